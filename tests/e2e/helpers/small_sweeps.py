"""Small real sweeps over a lab's digits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from small_runs import PARTS, Lab

T, W = "distill.temperature", "distill.hard_weight"
NUM_VIEWS = 2  # the default
ROWS = len(PARTS["train"]) * NUM_VIEWS + len(PARTS["validation"]) + len(PARTS["test"])


def space_file(lab: Lab, config: dict[str, Any] | None = None, **changes: Any) -> Path:
    """Temperature and weight over the lab's digits, with a store of its own."""
    path = lab.new("space").with_suffix(".yaml")
    settings = {"store": {"path": str(lab.new("labels"))}, "distill": {"soft_labels": "remote"}, **(config or {})}
    content = {
        "config": str(lab.config(**settings)),
        "space": {T: {"float": [1, 6], "log": True}, W: {"float": [0.0, 0.8]}},
        "search": {"num_trials": 4}, **changes,
    }  # fmt: skip
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path


def sweep_of(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "sweep.json").read_text(encoding="utf-8"))
    return content
