"""One teacher's word on one view of a split: rows are read where known, claimed and written where not."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from raydistill.errors import SoftLabelError
from raydistill.soft_labels.claims import Claims
from raydistill.soft_labels.copying import pull, push
from raydistill.soft_labels.index import TableIndex, writing
from raydistill.soft_labels.mirror import Mirror
from raydistill.soft_labels.reading import TableReader
from raydistill.soft_labels.rows import Buffer
from raydistill.soft_labels.shards import write_shard

FLUSH_BYTES = 4 * 2**20
FLUSH_S = 10.0
SHARED_FLUSH_S = 0.5  # while there are other owners
ASKED_FLUSH_S = 0.05  # when one of them has come for rows that are claimed


class LabelTable(TableReader):
    """A table of soft labels, [num_rows, num_classes]; see `LabelStore.table`.

    Safe in threads. Pickled, it opens itself again where it arrives, without what was not flushed; so it does in a
    forked process. Whoever claims or writes is an owner of his own, also beside another table of the same key in the
    same process.

    Args:
        folder: the table's own; made by the first claim or write.
        wanted: an index without shards: what the table has to be.
        report: hears of everything that is damaged or of no use and will be made again.

    Raises:
        SoftLabelError: a newer version has written it, or something cannot be read.
    """

    def _open(self, folder: Path, wanted: TableIndex, report: Callable[[str], None], mirror: Mirror | None) -> None:
        super()._open(folder, wanted, report, mirror)
        self._claims: Claims | None = None
        self._buffer: Buffer | None = None
        self._timer: threading.Timer | None = None
        self._failure: SoftLabelError | None = None  # of a flush that nobody waited for
        self._times_asked, self._flushed_at = 0, 0.0
        self._unpushed = False
        if mirror:
            self._unpushed = pull(mirror, self._folder)

    def claim(self, rows: ArrayLike) -> NDArray[np.bool_]:
        """Which of the rows are the caller's to compute now, bool [n].

        The others are known, or a living owner (this table too) has claimed them and not yet flushed them. Of a row
        that is given twice, the first one counts.

        Raises:
            SoftLabelError: the store cannot be written.
        """
        wanted = np.asarray(rows, np.int64)
        with self._here():
            self._folder.refresh()
            ours = ~self.known(wanted)
            if ours.any():
                claims = self._join()
                with self._folder.locked(), writing(self._folder.path):
                    # Owners flush, then give back, both under the lock: a row is seen as known or as claimed.
                    self._folder.refresh()
                    ours = ~self.known(wanted)
                    ours[ours] = claims.take(wanted[ours])
            return ours

    def release(self, rows: ArrayLike) -> None:
        """Give claims back unanswered; rows that are not claimed here stay as they are."""
        with self._here():
            if self._claims is not None:
                with self._folder.locked(), writing(self._folder.path):
                    self._claims.give_back(np.asarray(rows, np.int64))

    def write(self, rows: ArrayLike, logits: NDArray[np.float16]) -> None:
        """Keep logits, [n, num_classes]. Known here at once; for others after a flush, which comes by itself: when
        4 MiB are together, after 10 s, after 0.5 s while there are other owners, and with the next write when one of
        them waits. Rows of one write get into one flush. A row that is known already keeps what it has.

        Raises:
            SoftLabelError: NaN or infinite logits; the disk is full or read-only (now or in an earlier flush).
        """
        given, values = np.asarray(rows, np.int64), np.asarray(logits, np.float16)
        if values.shape != (len(given), self.num_classes):
            raise ValueError(f"logits are {values.shape}, not {(len(given), self.num_classes)}")
        with self._here():
            self._raise_failure()
            self._join()
            first = np.zeros(len(given), bool)
            first[np.unique(given, return_index=True)[1]] = True
            fresh = first & ~self.known(given)
            if not fresh[first].all():  # others have answered them too
                self.release(given[~fresh])
            if not fresh.any():
                return
            tensors = self._wanted.encoding.encode(values[fresh])
            if self._buffer is None:
                self._buffer = Buffer(self._folder.rows, self._wanted.encoding)
            self._buffer.append(given[fresh], tensors)
            due = self.complete or self._buffer.size_bytes >= FLUSH_BYTES or self._asked()
            if not due and self._timer is None:
                self._wind_up()
        if due:
            self.flush()

    def flush(self) -> None:
        """Make a shard of what is buffered, whole or not at all.

        Raises:
            SoftLabelError: the disk is full or read-only; what is buffered stays so.
        """
        with self._here():
            self._failure = None
            if self._buffer is None:
                return
            buffer, path = self._buffer, self._folder.path
            shard, claims = buffer.shard(), self._join()
            with writing(path):
                entry = write_shard(path, self.key, shard)
            try:
                with self._folder.locked():
                    self._folder.add(entry)
                    self._buffer = None
                    with writing(path):
                        self._folder.adopt(entry, buffer.number)
                        claims.give_back(shard.rows.astype(np.int64))
            finally:
                if self._buffer is not None:
                    (path / entry.file).unlink(missing_ok=True)
            self._unpushed, self._flushed_at = True, time.monotonic()
            self._folder.refresh()
        self._tidy()

    def close(self) -> None:
        """Flush, give claims back, copy to the store's URL. Safe to call twice; a closed table opens itself again.

        Raises:
            SoftLabelError: what is buffered cannot be written; claims are given back all the same.
        """
        with self._here():
            try:
                self._raise_failure()
                self.flush()
                if self._claims is not None:
                    self._tidy()
                self._push()
            finally:
                if self._timer is not None:
                    self._timer.cancel()
                    self._timer = None
                if self._claims is not None:
                    self._claims.close()
                    self._claims = None
                self._folder.end_use()

    def _join(self) -> Claims:
        """Become an owner."""
        if self._claims is None:
            self._folder.prepare()
            with self._folder.locked(), writing(self._folder.path):
                self._claims = Claims(self._folder.path, self.num_rows)
                self._times_asked = self._claims.times_asked()
        return self._claims

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _asked(self) -> bool:
        """Whether others wait for rows of this owner, who has not flushed just now."""
        assert self._claims is not None
        now, times = time.monotonic(), self._claims.times_asked()
        if times == self._times_asked or now - self._flushed_at < ASKED_FLUSH_S:
            return False
        self._times_asked = times
        return True

    def _wind_up(self) -> None:
        """Look at the buffer in a moment, whatever the caller is doing then: others may wait for its rows."""
        self._timer = threading.Timer(SHARED_FLUSH_S, self._tick)
        self._timer.daemon = True
        self._timer.start()

    def _tick(self) -> None:
        with self._guard:
            self._timer = None
            if self._buffer is None or self._failure is not None:
                return
            due = self._buffer.age_s >= FLUSH_S or (self._claims is not None and self._claims.others_live())
            if not due:
                self._wind_up()
                return
        try:
            self.flush()
        except SoftLabelError as error:
            self._failure = error  # the next write says it

    def _tidy(self) -> None:
        """Merge shards where they are too many; copy a complete table to the store's URL."""
        with self._guard:
            complete = self.complete
            merge = self._folder.merging(complete)
        if merge is not None:
            merge()  # other threads may go on
            self.refresh()
        if complete:
            self._push()

    def _push(self) -> None:
        """A URL that cannot be reached costs the copy, not the labels: they are here, and go there another time."""
        if self._mirror is None or not self._unpushed:
            return
        try:
            with self._guard:
                push(self._mirror, self._folder)
                self._unpushed = False
        except SoftLabelError as error:
            self._report(f"soft labels stay in {self._folder.path} and are copied next time: {error}")
