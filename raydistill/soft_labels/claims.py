"""Who computes which row now: each is computed once, across threads, workers and runs that know nothing of each other.

A table's folder has `claims`, 4 bytes a row with the number of the owner who computes it, and `owners/`, a file for
each owner that he keeps locked while he lives. A killed process loses its locks and with them its claims: no heartbeat,
no time-out. Numbers are never given twice: claims of the dead need no cleaning. Before the rows stand the last number
given and a count of how often somebody came for rows that another one had claimed: he may be waiting for a flush.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from raydistill.soft_labels.locks import FileLock, acquire, is_locked

CLAIMS, OWNERS = "claims", "owners"
NUMBER = np.dtype(np.uint32)
SPAN_ROWS = 1 << 15  # rows as close together as this are read and written in one go
NOBODY = 0
LAST_NUMBER, ASKED = -2, -1  # the two before row 0


class Claims:
    """One owner's view of the claims. `take` and `give_back`, and making one, want the table's lock held.

    Args:
        folder: of the table; has to be there.

    Raises:
        OSError: the folder cannot be written, here and in every method.
    """

    def __init__(self, folder: Path, num_rows: int) -> None:
        self._owners, self._process = folder / OWNERS, os.getpid()
        self._owners.mkdir(exist_ok=True)
        self._file = os.open(folder / CLAIMS, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        size = NUMBER.itemsize * (2 + num_rows)
        if os.fstat(self._file).st_size != size:
            os.ftruncate(self._file, size)  # sparse: zeros take no room
        self._remove_the_dead()
        self.number = int(self._read_span(LAST_NUMBER, LAST_NUMBER + 1)[0]) + 1
        self._path = self._owners / str(self.number)
        lock = acquire(self._path, wait_s=1.0)  # others may just be asking whether it is held
        assert lock is not None, "a new number is nobody's"
        self._lock: FileLock = lock
        self._write_span(LAST_NUMBER, np.array([self.number], NUMBER))

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Claim what no living owner has, this one included; of a row that is given twice, the first."""
        owners = self._read(rows)
        free: NDArray[np.bool_] = owners == NOBODY
        for number in np.unique(owners[~free]):
            if number != self.number and not is_locked(self._owners / str(number)):
                free |= owners == number
        if not (free | (owners == self.number)).all():
            self._write_span(ASKED, np.array([self.times_asked() + 1], np.int64).astype(NUMBER))
        first = np.zeros(len(rows), bool)
        first[np.unique(rows, return_index=True)[1]] = True
        free &= first
        self._write(rows[free], self.number)
        return free

    def give_back(self, rows: NDArray[np.int64]) -> None:
        """Those that are this owner's; others stay as they are."""
        self._write(rows[self._read(rows) == self.number], NOBODY)

    def times_asked(self) -> int:
        """Grows when somebody comes for rows that another one has claimed. Costs a microsecond, needs no lock."""
        return int(self._read_span(ASKED, ASKED + 1)[0])

    def others_live(self) -> bool:
        """Whether anybody else has claims, or may."""
        with contextlib.suppress(OSError):
            return any(path != self._path and is_locked(path) for path in self._owners.iterdir())
        return True

    def close(self) -> None:
        """Give everything back. Safe to call twice."""
        if self._file < 0:
            return
        os.close(self._file)
        self._file = -1
        if self._process == os.getpid():  # what a forked child has is its parent's
            with contextlib.suppress(OSError):
                self._path.unlink()
            self._lock.release()

    def __del__(self) -> None:
        if hasattr(self, "_lock"):
            self.close()

    def _remove_the_dead(self) -> None:
        for path in self._owners.iterdir():
            if not is_locked(path):
                path.unlink(missing_ok=True)

    def _read(self, rows: NDArray[np.int64]) -> NDArray[np.uint32]:
        if not len(rows):
            return np.empty(0, NUMBER)
        first, last = int(rows.min()), int(rows.max())
        if last - first < SPAN_ROWS:
            return self._read_span(first, last + 1)[rows - first]
        each = b"".join(os.pread(self._file, NUMBER.itemsize, NUMBER.itemsize * (2 + row)) for row in rows.tolist())
        return np.frombuffer(each, NUMBER)

    def _write(self, rows: NDArray[np.int64], number: int) -> None:
        if not len(rows):
            return
        first, last = int(rows.min()), int(rows.max())
        if last - first < SPAN_ROWS:
            span = self._read_span(first, last + 1)
            span[rows - first] = number
            self._write_span(first, span)
            return
        content = np.array([number], NUMBER).tobytes()
        for row in rows.tolist():
            os.pwrite(self._file, content, NUMBER.itemsize * (2 + row))

    def _read_span(self, first: int, end: int) -> NDArray[np.uint32]:
        """Of rows first … end − 1."""
        content = os.pread(self._file, NUMBER.itemsize * (end - first), NUMBER.itemsize * (2 + first))
        return np.frombuffer(content, NUMBER).copy()

    def _write_span(self, first: int, numbers: NDArray[np.uint32]) -> None:
        os.pwrite(self._file, numbers.tobytes(), NUMBER.itemsize * (2 + first))
