"""Which tables of the store a run's training rows are in."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from raydistill.config.models import Config
from raydistill.soft_labels.layers import KeptLayers
from raydistill.soft_labels.store import LabelKey, LabelStore, LabelTable, open_store


@dataclass(frozen=True)
class TaughtSplit:
    """The rows that one teacher is asked about.

    Attributes:
        fingerprint: the teacher's.
        split: the split's name.
        split_fingerprint: of its content and of how views are made.
        views: that the student draws from.
    """

    fingerprint: str
    task: str
    split: str
    split_fingerprint: str
    num_rows: int
    num_classes: int
    views: tuple[int, ...]


class RunTables:
    """The tables of a run, opened where they are asked for: travels to workers as a few words.

    Args:
        config: says where the store is and how closely it keeps.
        taught: by teacher.
        kept_layers: by teacher, of those whose features are kept beside their logits: they have tables of their own.
    """

    def __init__(
        self, config: Config, taught: dict[str, TaughtSplit], kept_layers: Mapping[str, KeptLayers] | None = None
    ) -> None:
        self.config, self.taught, self.kept_layers = config, taught, kept_layers or {}
        self._store: LabelStore | None = None
        self._open: dict[tuple[str, int], LabelTable] = {}

    def __getstate__(self) -> dict[str, object]:
        return {**vars(self), "_store": None, "_open": {}}

    def open(self, teacher: str, view: int, report: Callable[[str], None] = lambda message: None) -> LabelTable:
        """The table of a teacher's word on one view.

        Args:
            report: hears of damaged shards that will be made again.

        Raises:
            SoftLabelError: it was written by a newer version, or cannot be read. ConfigError: `top_k` is too large.
        """
        if (teacher, view) not in self._open:
            self._store = self._store or open_store(self.config, report)
            taught = self.taught[teacher]
            task = self.config.tasks.get(taught.task)
            layers = self.kept_layers.get(teacher)
            num_columns = taught.num_classes + (layers.num_columns if layers else 0)
            # Labels that hold together, numbers and features have no few largest ones.
            whole = layers is not None or (task is not None and task.kind != "classification")
            about = {"teacher": teacher, "task": taught.task, "split": taught.split}
            table = self._store.table(
                LabelKey(f"{taught.fingerprint} and {layers}" if layers else taught.fingerprint,
                         taught.split_fingerprint, view),
                taught.num_rows,
                num_columns,
                num_columns if whole else self.config.store.top_k_of(taught.task),
                {**about, "layers": str(layers)} if layers else about,
            )  # fmt: skip
            if not os.access(self._store.folder, os.W_OK):
                table.check()  # where nothing can be dropped for good, everyone finds damage for himself
            self._open[teacher, view] = table
        return self._open[teacher, view]

    def complete(self, report: Callable[[str], None]) -> bool:
        """Whether the student can do without teachers: every view of every row is known. Args as in `open`."""
        return all(
            self.open(teacher, view, report).complete
            for teacher, taught in self.taught.items()
            for view in taught.views
        )

    def check(self, report: Callable[[str], None]) -> None:
        """Verify every shard's checksum, once, before anybody relies on it; what is damaged counts as missing."""
        for teacher, taught in self.taught.items():
            for view in taught.views:
                self.open(teacher, view, report).check()

    def flush(self) -> None:
        """Let others see what this process has."""
        for table in self._open.values():
            table.flush()

    def close(self) -> None:
        """Write what is buffered and give claims back. Opened again where asked again.

        Raises:
            SoftLabelError: one of them cannot be written; the others are closed all the same.
        """
        tables, self._open = self._open, {}
        with contextlib.ExitStack() as closing:
            for table in tables.values():
                closing.callback(table.close)
