"""What is done to a table's folder as a whole: damaged shards are dropped, small ones merged, leftovers swept."""

from __future__ import annotations

import contextlib
import math
import shutil
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from raydistill.atomic import reason
from raydistill.errors import SoftLabelError
from raydistill.soft_labels.claims import CLAIMS, OWNERS
from raydistill.soft_labels.index import IN_USE, INDEX, LOCK, ShardEntry, TableIndex, read_index, write_index, writing
from raydistill.soft_labels.locks import acquire
from raydistill.soft_labels.shards import (
    PREFIX,
    SUFFIX,
    DamagedShard,
    Shard,
    check_shard,
    merged,
    open_shard,
    write_shard,
)

LOCK_WAIT_S = 60.0
LEFTOVER_S = 3_600.0  # a file that no index names and that is older than this was left by a process that died
SHARD_BYTES = 64 * 2**20
MANY = 16  # shards of like size, after which they are merged
MERGING = "merging"


@contextlib.contextmanager
def table_lock(folder: Path) -> Iterator[None]:
    """For as long as index or claims are changed.

    Raises:
        SoftLabelError: the folder cannot be written, or the lock cannot be had.
    """
    with writing(folder):
        lock = acquire(folder / LOCK, wait_s=LOCK_WAIT_S)
    if lock is None:
        raise SoftLabelError(
            f"the soft labels in {folder} have been locked by another process for {LOCK_WAIT_S:.0f} s; is one stopped?"
        )
    try:
        yield
    finally:
        lock.release()


def damages(folder: Path, index: TableIndex) -> dict[str, str]:
    """What is wrong with which shard: every file is read."""
    found = {}
    for entry in index.shards:
        try:
            check_shard(folder / entry.file, entry)
            open_shard(folder / entry.file, entry, index.key, index.num_rows, index.encoding)
        except FileNotFoundError:
            found[entry.file] = "is missing"
        except DamagedShard as error:
            found[entry.file] = str(error)
        except OSError as error:
            found[entry.file] = f"cannot be read ({reason(error)})"
    return found


def drop_shards(folder: Path, files: Collection[str]) -> None:
    """Take them from the index, then from the disk; the caller holds the table's lock. Raises OSError."""
    index = read_index(folder)
    if index is not None:
        write_index(folder, index.with_shards(*(shard for shard in index.shards if shard.file not in files)))
    for file in files:
        (folder / file).unlink(missing_ok=True)


def start_anew(folder: Path) -> None:
    """Remove a table that is of no use to the caller; refused while others use it.

    Raises:
        SoftLabelError: a living process uses it, or it cannot be written.
    """
    with writing(folder):
        use = acquire(folder / IN_USE)
        if use is None:
            raise SoftLabelError(
                f"the soft labels in {folder} are in use by a run that keeps them in another form (store.top_k?); "
                "wait for it, or set store.path"
            )
        try:
            (folder / INDEX).unlink(missing_ok=True)
            for path in folder.glob(f"{PREFIX}*{SUFFIX}"):
                path.unlink(missing_ok=True)
            (folder / CLAIMS).unlink(missing_ok=True)
            shutil.rmtree(folder / OWNERS, ignore_errors=True)
        finally:
            use.release()


def sweep(folder: Path) -> None:
    """Remove what killed writers left; the caller holds the table's lock."""
    index = read_index(folder)
    named = set() if index is None else {shard.file for shard in index.shards}
    for pattern in (f"{PREFIX}*{SUFFIX}", f".{PREFIX}*", f".{INDEX}.*"):
        for path in folder.glob(pattern):
            with contextlib.suppress(OSError):
                if path.name not in named and time.time() - path.stat().st_mtime > LEFTOVER_S:
                    path.unlink()


def wants_merging(index: TableIndex, complete: bool) -> list[ShardEntry]:
    """The shards that should be one, or few: all of a complete table, or those of like size once they are many, so that
    a row is written again a few times only, however small the pieces in which rows come."""
    if complete:
        few = len(index.shards) <= 1 and index.size_bytes <= SHARD_BYTES
        return [] if index.compact or few else list(index.shards)
    tiers: dict[int, list[ShardEntry]] = {}
    for shard in index.shards:
        if shard.bytes < SHARD_BYTES // 2:
            tiers.setdefault(int(math.log(shard.bytes, MANY)), []).append(shard)
    return next((alike for _, alike in sorted(tiers.items()) if len(alike) >= MANY), [])


def merge_shards(
    folder: Path,
    index: TableIndex,
    entries: list[ShardEntry],
    shards: list[Shard],
    report: Callable[[str], None],
    copied: bool = False,
) -> None:
    """Write the shards' rows again, sorted and in files of bounded size, then remove the old files.

    Who reads them goes on: a mapped file outlives its name. One process does it at a time, and a full disk only means
    that it is not done.

    Args:
        copied: the store has a copy elsewhere, for which the names of the old files are kept.
    """
    written: list[ShardEntry] = []
    kept = False
    try:
        with writing(folder):
            turn = acquire(folder / MERGING)
        if turn is None:
            return
        try:
            with writing(folder):
                for part in merged(shards, index.encoding, SHARD_BYTES):
                    written.append(write_shard(folder, index.key, part))
            with table_lock(folder), writing(folder):
                now = read_index(folder)
                if now is None or not set(entries) <= set(now.shards):
                    return  # somebody dropped one of them
                others = [shard for shard in now.shards if shard not in entries]
                rows = sum(shard.num_rows for shard in written)
                compact = not others and rows == index.num_rows
                names = tuple(entry.file for entry in entries) if copied else ()
                write_index(folder, now.with_shards(*written, *others, compact=compact, merged=names))
                kept = True
            for entry in entries:
                (folder / entry.file).unlink(missing_ok=True)
        finally:
            turn.release()
    except SoftLabelError as error:
        report(f"soft labels are left in many files: {error}")
    finally:
        if not kept:
            for entry in written:
                (folder / entry.file).unlink(missing_ok=True)
