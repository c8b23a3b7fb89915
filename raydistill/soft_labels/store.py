"""Soft labels on disk: one safetensors file for each (teacher, split, view), never asked twice."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from raydistill.atomic import reason, replacing
from raydistill.errors import SoftLabelError
from raydistill.soft_labels.source import StepViews, TeacherCost
from raydistill.soft_labels.targets import SoftTargets


@dataclass(frozen=True)
class LabelKey:
    """Whose word on what: changes with the teacher's weights, preparation or label order, with any row, and with
    the view."""

    teacher: str
    split: str
    view: int

    @property
    def text(self) -> str:
        """As it stands in the file's header."""
        return f"{self.teacher}/{self.split}/{self.view}"

    def path(self, folder: Path) -> Path:
        """The file of this key."""
        digest = hashlib.sha256(self.text.encode()).hexdigest()[:24]
        return folder / f"{digest}.safetensors"


class LabelStore:
    """A folder of soft labels.

    Args:
        folder: made when first written to.
        report: hears of every file that is damaged or foreign and will be made again.
    """

    def __init__(self, folder: Path, report: Callable[[str], None] = lambda message: None) -> None:
        self.folder, self._report = folder, report

    def read(self, key: LabelKey, num_rows: int) -> NDArray[np.float16] | None:
        """Logits [num_rows, num_classes]; None where there are none that can be trusted."""
        path = key.path(self.folder)
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="numpy") as file:
                meta = file.metadata() or {}
                logits: NDArray[np.float16] = file.get_tensor("logits")
        except (SafetensorError, OSError, KeyError) as error:
            self._report(f"soft labels {path.name} are damaged ({type(error).__name__}): made again")
            return None
        if meta.get("key") != key.text or len(logits) != num_rows:
            self._report(f"soft labels {path.name} belong to another teacher or data set: made again")
            return None
        if meta.get("sha256") != _checksum(logits):
            self._report(f"soft labels {path.name} have a wrong checksum: made again")
            return None
        return logits

    def write(self, key: LabelKey, logits: NDArray[np.float16]) -> None:
        """Replace the key's file in one step.

        Raises:
            SoftLabelError: the folder cannot be written, or the disk is full.
        """
        path = key.path(self.folder)
        meta = {"key": key.text, "sha256": _checksum(logits)}
        try:
            with replacing(path) as temporary:
                save_file({"logits": np.ascontiguousarray(logits)}, temporary, metadata=meta)
        except OSError as error:
            raise SoftLabelError(
                f"cannot write soft labels to {self.folder} ({reason(error)}); free some space or set cache_dir"
            ) from error


class StoredSource:
    """Answers from labels that were written ahead of time.

    Args:
        logits: by task, teacher and view: [num_rows of the train split, num_classes].
    """

    def __init__(self, logits: dict[str, dict[str, dict[int, NDArray[np.float16]]]]) -> None:
        self._logits = logits
        self._cached = 0

    def stream(self, batches: Iterable[StepViews]) -> Iterator[tuple[StepViews, dict[str, SoftTargets]]]:
        """See `SoftTargetSource.stream`."""
        for step_views in batches:
            targets = {}
            for task, views in step_views.items():
                teachers = self._logits.get(task)
                if not teachers:
                    continue
                try:
                    rows = {name: by_view[views.view][views.sample_ids] for name, by_view in teachers.items()}
                except (KeyError, IndexError) as error:
                    raise SoftLabelError(
                        f"task {task!r}: no stored soft labels for view {views.view}; run `raydistill label` first"
                    ) from error
                self._cached += len(views) * len(rows)
                targets[task] = SoftTargets(rows)
            yield step_views, targets

    def cost(self) -> TeacherCost:
        """Nothing but cached rows."""
        return TeacherCost(samples_cached=self._cached)

    def close(self) -> None:
        """Nothing is held."""


def _checksum(logits: NDArray[np.float16]) -> str:
    return hashlib.sha256(np.ascontiguousarray(logits).tobytes()).hexdigest()
