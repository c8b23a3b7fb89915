"""A tiny real teacher of 8×8 digits that can be held at a gate, so that a test decides when to kill or interrupt.

Environment variable TEST_GATE names a file. While it exists, a forward pass of `rows` rows waits once `after` such
passes went through; it first leaves its process id in `<gate>.reached.<pid>`. Without the file nothing waits, and with
a larger `after` in it those who wait go on until then.
"""

import json
import os
import signal
import time
from pathlib import Path

import torch
from torch import nn


class GatedNetwork(nn.Module):
    """Flattened pixels -> logits, as fast as a network can be."""

    def __init__(self, num_classes: int, num_pixels: int = 64, width: int = 96, broken: str = "") -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(num_pixels, width), nn.ReLU(), nn.Linear(width, num_classes)
        )
        self.broken = broken
        self.passes = 0

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        if self.broken == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.broken == "hangs":
            time.sleep(3_600)
        if self.broken:
            raise RuntimeError(self.broken)
        self._wait_at_the_gate(len(pixel_values))
        return self.layers(pixel_values)

    def _wait_at_the_gate(self, rows: int) -> None:
        gate = Path(os.environ.get("TEST_GATE", "/nowhere"))
        rule = _rule(gate)
        self.passes += rows == rule.get("rows")
        while rows == rule.get("rows") and self.passes > rule["after"]:
            gate.with_name(f"{gate.name}.reached.{os.getpid()}").touch()
            time.sleep(0.02)
            rule = _rule(gate)


def _rule(gate: Path) -> dict[str, int]:
    try:
        return dict(json.loads(gate.read_text()))
    except FileNotFoundError:
        return {}


def digit_network(num_classes: int, **options: object) -> nn.Module:
    """What a config names as `gated_teacher:digit_network`."""
    return GatedNetwork(num_classes, **options)
