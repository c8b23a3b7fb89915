"""What of a table is known, and reading it."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from raydistill.errors import SoftLabelError
from raydistill.soft_labels.encoding import Tensors
from raydistill.soft_labels.folder import TableFolder
from raydistill.soft_labels.index import LabelKey, TableIndex
from raydistill.soft_labels.mirror import Mirror


def log(message: str) -> None:
    """Where reports go that nobody asked for."""
    logging.getLogger("raydistill").warning(message)


class TableReader:
    """The reading half of a `LabelTable`.

    Args:
        folder: the table's own; need not be there.
        wanted: an index without shards: what the table has to be.
        report: hears of everything that is damaged or of no use and will be made again.

    Raises:
        SoftLabelError: a newer version has written it, or something cannot be read.
    """

    def __init__(
        self,
        folder: Path,
        wanted: TableIndex,
        report: Callable[[str], None] = log,
        mirror: Mirror | None = None,
    ) -> None:
        self._open(folder, wanted, report, mirror)

    def _open(self, folder: Path, wanted: TableIndex, report: Callable[[str], None], mirror: Mirror | None) -> None:
        self._process, self._guard = os.getpid(), threading.RLock()
        self._wanted, self._report, self._mirror = wanted, report, mirror
        self._folder = TableFolder(folder, wanted, report, copied=mirror is not None)
        self._folder.refresh()

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self._folder.path, "wanted": self._wanted, "mirror": self._mirror}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._open(report=log, **state)

    def _here(self) -> threading.RLock:
        """The guard; in a forked child, after opening the table anew: claims and buffer are the parent's."""
        if self._process != os.getpid():
            self._open(self._folder.path, self._wanted, self._report, self._mirror)
        return self._guard

    @property
    def key(self) -> LabelKey:
        """Whose word on what."""
        return self._wanted.key

    @property
    def num_rows(self) -> int:
        """Of the split."""
        return self._wanted.num_rows

    @property
    def num_classes(self) -> int:
        """Columns of the logits."""
        return self._wanted.encoding.num_classes

    @property
    def num_known(self) -> int:
        """Rows that can be read, as of the last refresh or write."""
        return self._folder.rows.num_known

    @property
    def complete(self) -> bool:
        """Whether all can."""
        return self.num_known == self.num_rows

    def known(self, rows: ArrayLike) -> NDArray[np.bool_]:
        """Which of the rows can be read, bool [n]; as of the last refresh or write, without a look at the disk."""
        return self._folder.rows.known(np.asarray(rows, np.int64))

    def read(self, rows: ArrayLike) -> NDArray[np.float16]:
        """Logits, float16 [n, num_classes]; of top-k rows see `Encoding`.

        Raises:
            SoftLabelError: a row is missing.
        """
        return self._wanted.encoding.decode(self.read_encoded(rows))

    def read_encoded(self, rows: ArrayLike) -> Tensors:
        """The same as they are kept; see `Encoding`."""
        wanted = np.asarray(rows, np.int64)
        found = self._folder.rows.read(wanted)
        if found is None:
            self.refresh()
            found = self._folder.rows.read(wanted)
        if found is None:
            missing = wanted[~self.known(wanted)]
            raise SoftLabelError(
                f"{len(missing):,} of {len(wanted):,} rows have no soft labels in {self} (row {missing[0]}, …); run "
                "`raydistill label` first"
            )
        return found

    def refresh(self) -> None:
        """Learn of what others have flushed. Costs microseconds where that is nothing.

        Raises:
            SoftLabelError: a newer version has written it, or it cannot be read.
        """
        with self._here():
            self._folder.refresh()

    def check(self) -> None:
        """Read every shard and compare its checksum; what is torn, changed or foreign is reported and dropped."""
        with self._here():
            self._folder.check()

    def __str__(self) -> str:
        return str(self._wanted)
