"""One line of metrics.jsonl every few steps, the same to TensorBoard, the same to whoever shows progress."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

METRICS_FILE = "metrics.jsonl"


class MetricsLog:
    """Appends; after a resume, first drops the lines of steps that will be repeated.

    Args:
        folder: of metrics.jsonl.
        run: this training's name, in every line.
        tensorboard: folder of the event files.
        resumed_step: the step that training goes on from.
        on_log: hears every line.
    """

    def __init__(
        self, folder: Path, run: str, tensorboard: Path, resumed_step: int, on_log: Callable[[dict[str, Any]], None]
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / METRICS_FILE
        kept = [line for line in read_metrics(path) if line["step"] <= resumed_step]
        temporary = path.with_suffix(".tmp")
        temporary.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        temporary.replace(path)
        self._run, self._on_log = run, on_log
        self._file = path.open("a", encoding="utf-8")
        self._writer = SummaryWriter(str(tensorboard), purge_step=resumed_step + 1)

    def write(self, step: int, values: dict[str, float]) -> None:
        """Losses and rates of a step."""
        self._emit({"run": self._run, "step": step, **values})

    def write_validation(self, step: int, scores: dict[str, Any]) -> None:
        """Validation metrics by task, and retention."""
        flat = {f"validation/{task}": value for task, value in scores["validation"].items()}
        self._emit({"run": self._run, "step": step, **flat, "validation/retention": scores["retention"]})

    def _emit(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        for name, value in line.items():
            if name not in ("run", "step"):
                self._writer.add_scalar(name, value, line["step"])
        self._on_log(line)

    def close(self) -> None:
        """Flush both."""
        self._file.close()
        self._writer.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a metrics file; one cut short by a kill is left out."""
    lines = []
    if path.is_file():
        for text in path.read_text(encoding="utf-8").splitlines():
            try:
                lines.append(json.loads(text))
            except json.JSONDecodeError:
                break
    return lines
