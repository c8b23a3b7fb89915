"""A tiny real teacher that a test can slow down, hold, spoil or break through files in a folder."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from raydistill.config.loader import load_config
from raydistill.config.models import Config
from raydistill.data.batch import ViewBatch

LABELS = ("a", "b", "c")
SIDE = 8
SUPPORT = Path(__file__).parent


class Steered(nn.Module):
    """One layer, and a folder of files that steer it.

    `slow` or `slow.PID` holds the seconds that a pass takes, `hangs` stops all passes but the canaries', `wrong` shifts
    all answers of processes that load while it is there, `broken` makes those fail; `passes.PID` counts passes.
    """

    def __init__(self, num_classes: int, folder: str) -> None:
        super().__init__()
        self.linear = nn.Linear(SIDE * SIDE, num_classes)
        self.folder = Path(folder)
        self.wrong = (self.folder / "wrong").exists()
        if (self.folder / "broken").exists():
            raise ValueError((self.folder / "broken").read_text())

    def forward(self, pixel_values: Tensor) -> Tensor:
        with (self.folder / f"passes.{os.getpid()}").open("a") as file:
            file.write(f"{len(pixel_values)}\n")
        for name in (f"slow.{os.getpid()}", "slow"):
            if (self.folder / name).exists():
                time.sleep(float((self.folder / name).read_text()))
        if (self.folder / "hangs").exists() and len(pixel_values) != 4:
            time.sleep(1000)
        if len(pixel_values) == 13:
            raise RuntimeError("thirteen rows are too many")
        logits: Tensor = self.linear(pixel_values.flatten(1)) + (3.0 if self.wrong else 0.0)
        return logits


def steered(num_classes: int, folder: str) -> nn.Module:
    return Steered(num_classes, folder)


def processes(folder: Path) -> list[int]:
    """Other ones that ever computed."""
    return sorted({int(path.suffix[1:]) for path in folder.glob("passes.*")} - {os.getpid()})


def passes(folder: Path) -> list[int]:
    """The rows of every pass of other processes, the canaries' four left out."""
    files = [path for path in folder.glob("passes.*") if path.suffix != f".{os.getpid()}"]
    return [int(line) for path in files for line in path.read_text().split() if line != "4"]


def pool_config(
    root: Path, *names: str, distill: dict[str, Any] | None = None, ray: dict[str, Any] | None = None, **teacher: Any
) -> Config:
    """Teachers `names` in folders of their own, all asked about one task of 8×8 pictures."""
    teachers = {}
    for number, name in enumerate(names):
        folder = root / name
        folder.mkdir(parents=True, exist_ok=True)
        weights = root / f"{name}.safetensors"
        if not weights.exists():
            torch.manual_seed(number)
            layer = nn.Linear(SIDE * SIDE, len(LABELS))
            save_file({f"linear.{key}": value for key, value in layer.state_dict().items()}, weights)
        teachers[name] = {
            "task": "digits", "loader": "python", "model": "pool_teachers:steered", "checkpoint": str(weights),
            "options": {"folder": str(folder)}, "label_names": LABELS, "precision": "fp32",
            "placement": {"num_cpus": 1}, "timeout_s": 60, **teacher,
        }  # fmt: skip
    data = {"source": "imagefolder", "path": str(root), "image_size": SIDE, "grayscale": True}
    return load_config({
        "name": "pooled", "cache_dir": str(root / "cache"), "tasks": {"digits": {"domain": "vision", "data": data}},
        "teachers": teachers, "distill": {"soft_labels": "remote", **(distill or {})},
        "ray": {"lease_s": 5, **(ray or {})},
    })  # fmt: skip


def pictures(rows: int, seed: int = 0) -> ViewBatch:
    generator = np.random.default_rng(seed)
    pixels = generator.integers(0, 256, (rows, SIDE, SIDE, 1), dtype=np.uint8)
    return ViewBatch("vision", pixels, np.full(rows, -1, np.int64), np.arange(rows, dtype=np.int64), 0)
