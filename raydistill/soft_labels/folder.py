"""A table's folder as one process sees it: what its index names is mapped, what is wrong with it is dropped."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from raydistill.atomic import reason
from raydistill.errors import SoftLabelError
from raydistill.soft_labels.index import (
    IN_USE,
    BadIndex,
    ShardEntry,
    Signature,
    TableIndex,
    read_index,
    signature,
    write_index,
    writing,
)
from raydistill.soft_labels.locks import FileLock, acquire
from raydistill.soft_labels.rows import RowIndex
from raydistill.soft_labels.shards import DamagedShard, Shard, open_shard
from raydistill.soft_labels.upkeep import (
    LOCK_WAIT_S,
    damages,
    drop_shards,
    merge_shards,
    start_anew,
    sweep,
    table_lock,
    wants_merging,
)


@dataclass(frozen=True)
class OpenShard:
    """A shard of the index, and the number that its rows point to."""

    entry: ShardEntry
    shard: Shard
    source: int


class TableFolder:
    """Not safe in threads: the table that has it sees to that.

    Args:
        path: of the folder; need not be there.
        wanted: an index without shards: what the table has to be. Another one is reported, and replaced by a write.
        copied: the store has a copy elsewhere.
    """

    def __init__(self, path: Path, wanted: TableIndex, report: Callable[[str], None], copied: bool = False) -> None:
        self.path, self.wanted, self.report, self._copied = path, wanted, report, copied
        self.rows = RowIndex(wanted.num_rows, wanted.encoding)
        self.index = wanted
        self._signature: Signature = None
        self._useless = False
        self._shards: dict[str, OpenShard] = {}
        self._dropped: set[str] = set()
        self._lock_depth = 0
        self._use: FileLock | None = None

    def refresh(self) -> None:
        """See the index as it is now.

        Raises:
            SoftLabelError: a newer version has written it, or something cannot be read.
        """
        while (found := signature(self.path)) != self._signature:
            self._load(found)
        if self._use is None and self.index.shards:
            self._begin_use()

    def _load(self, found: Signature) -> None:
        self._useless, index = False, None
        try:
            index = read_index(self.path)
        except BadIndex as error:
            self._refuse(str(error))
        if index is not None and not index.is_of(self.wanted):
            self._refuse(
                f"{self.path} has soft labels of other rows or in another form ({index.num_rows:,} rows, "
                f"{index.encoding.num_classes} classes, {index.encoding})"
            )
            index = None
        self.index = index or self.wanted
        entries = {entry.file: entry for entry in self.index.shards if entry.file not in self._dropped}
        fresh: dict[str, Shard] = {}
        problems: dict[str, str] = {}
        for file, entry in entries.items():
            if file not in self._shards:
                try:
                    fresh[file] = open_shard(
                        self.path / file, entry, self.wanted.key, self.wanted.num_rows, self.wanted.encoding
                    )
                except FileNotFoundError:
                    problems[file] = "is missing"
                except DamagedShard as error:
                    problems[file] = str(error)
                except OSError as error:
                    raise SoftLabelError(f"cannot read the soft labels in {self.path} ({reason(error)})") from error
        if problems and signature(self.path) != found:
            return  # the shards were merged meanwhile: look again
        gone = [self._shards.pop(file).source for file in list(self._shards) if file not in entries]
        if fresh or gone:
            sources = self.rows.change(list(fresh.values()), gone)
            for (file, shard), source in zip(fresh.items(), sources, strict=True):
                self._shards[file] = OpenShard(entries[file], shard, source)
        self._signature = found
        if problems:
            self._drop(problems)

    def _refuse(self, why: str) -> None:
        self._useless = True
        self.report(f"{why}: they are made again")

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Index and claims are this table's to change; may be nested. Errors as in `table_lock`."""
        with contextlib.ExitStack() as stack:
            if not self._lock_depth:
                stack.enter_context(table_lock(self.path))
            self._lock_depth += 1
            try:
                yield
            finally:
                self._lock_depth -= 1

    def prepare(self) -> None:
        """Make the folder ready for a writer.

        Raises:
            SoftLabelError: it cannot be written, or living runs use it in another form.
        """
        self.refresh()
        if self._useless:
            start_anew(self.path)
        while self._use is None:
            with writing(self.path):
                self.path.mkdir(parents=True, exist_ok=True)
            self._begin_use()
            if self._use is None and self.path.exists():
                break  # the next line says why it cannot be written; otherwise it was pruned in between
        self.refresh()
        with self.locked(), writing(self.path):
            sweep(self.path)

    def _begin_use(self) -> None:
        """From here on nobody prunes the table."""
        if self._use is not None:
            return
        with contextlib.suppress(OSError):  # a read-only folder without that file is not pruned either
            self._use = acquire(self.path / IN_USE, shared=True, wait_s=LOCK_WAIT_S)
        with contextlib.suppress(OSError):
            os.utime(self.path / IN_USE)  # the time of the last use, for pruning

    def end_use(self) -> None:
        """It may be pruned again."""
        if self._use is not None:
            self._use.release()
            self._use = None

    def add(self, *entries: ShardEntry) -> None:
        """Name new shards in the index; the caller holds the lock.

        Raises:
            SoftLabelError: it cannot be written, or others have started the table anew in another form.
        """
        with writing(self.path):
            index = read_index(self.path) or self.wanted
            if not index.is_of(self.wanted):
                raise SoftLabelError(f"the soft labels in {self.path} were started anew by a run with other settings")
            write_index(self.path, index.with_shards(*index.shards, *entries))
        self._dropped -= {entry.file for entry in entries}

    def replace(self, entries: Sequence[ShardEntry]) -> None:
        """Have these, a compact table, instead of all shards; the caller holds the lock."""
        with writing(self.path):
            old = {entry.file for entry in self.index.shards} - {entry.file for entry in entries}
            write_index(self.path, self.wanted.with_shards(*entries, compact=True))
            self._dropped -= {entry.file for entry in entries}
            for file in old:
                (self.path / file).unlink(missing_ok=True)

    def adopt(self, entry: ShardEntry, source: int) -> None:
        """What was in memory as that source is in a shard of the index now, at the same positions."""
        shard = open_shard(self.path / entry.file, entry, self.wanted.key, self.wanted.num_rows, self.wanted.encoding)
        self._shards[entry.file] = OpenShard(entry, shard, source)
        self.rows.move(source, shard.tensors)

    def check(self) -> None:
        """Read every shard and compare its checksum; what is wrong is reported and dropped."""
        self.refresh()
        checked = self.index
        problems = damages(self.path, checked)
        if problems:
            self.refresh()
            now = {entry.file for entry in self.index.shards}  # others may have merged them meanwhile
            self._drop({file: problem for file, problem in problems.items() if file in now})

    def _drop(self, problems: dict[str, str]) -> None:
        for file, problem in problems.items():
            self.report(f"soft labels {self.path / file}: it {problem}; its rows are made again")
        self._dropped |= set(problems)
        gone = [self._shards.pop(file).source for file in problems if file in self._shards]
        self.rows.change([], gone)
        # In a read-only store they stay where they are, and are not looked at.
        with contextlib.suppress(SoftLabelError), self.locked(), writing(self.path):
            drop_shards(self.path, problems)

    def merging(self, complete: bool) -> Callable[[], None] | None:
        """What makes fewer, larger and sorted shards of those that are too many; None where they are not. It may run
        while others use the folder, this object included."""
        entries = wants_merging(self.index, complete)
        if not entries or not all(entry.file in self._shards for entry in entries):
            return None
        shards = [self._shards[entry.file].shard for entry in entries]
        return partial(merge_shards, self.path, self.index, entries, shards, self.report, self._copied)
