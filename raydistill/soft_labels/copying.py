"""A table's way from the store's URL into the working folder and back.

Shards are fetched when a table is opened, and copied back when it is closed or complete: shards first, the index last.
An object store has no locks: who has written the index reads it again, until his shards are in it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from raydistill.errors import SoftLabelError
from raydistill.soft_labels.folder import TableFolder
from raydistill.soft_labels.index import BadIndex, TableIndex, writing
from raydistill.soft_labels.locks import acquire
from raydistill.soft_labels.mirror import Mirror
from raydistill.soft_labels.shards import DamagedShard

ATTEMPTS = 5
COPYING, COPIED_S = "copying", 600.0


def pull(mirror: Mirror, table: TableFolder) -> bool:
    """Fetch the shards that the folder lacks.

    Returns:
        Whether it has some that the URL lacks.

    Raises:
        SoftLabelError: no answer, or the folder cannot be written.
    """
    for _ in range(ATTEMPTS):
        there, own = _index_of(mirror, table), table.index
        if there is None:
            return bool(own.shards)
        if own.compact:
            return not there.compact
        table.prepare()
        with _turn(table.path):
            table.refresh()
            if _fetch_all(mirror, table, there):
                return set(table.index.shards) != set(there.shards)
    raise SoftLabelError(f"others keep changing the soft labels in {mirror.url}/{table.path.name}")


def _fetch_all(mirror: Mirror, table: TableFolder, there: TableIndex) -> bool:
    """False where a shard has gone from the URL's index meanwhile, because a compact table took its place."""
    fetched = []
    for entry in there.shards:
        if entry in table.index.shards or entry.file in table.index.merged:
            continue
        try:
            with writing(table.path):
                mirror.fetch(table.path, entry)
            fetched.append(entry)
        except (DamagedShard, FileNotFoundError) as error:
            now = mirror.index(table.path.name)
            if now is None or entry not in now.shards:
                return False
            problem = str(error) if isinstance(error, DamagedShard) else "is missing"
            table.report(
                f"soft labels {mirror.url}/{table.path.name}/{entry.file}: it {problem}; its rows are made again"
            )
            mirror.damaged.add(entry)
    with table.locked():
        if there.compact and mirror.damaged.isdisjoint(there.shards):
            table.replace(there.shards)
        elif fetched:
            table.add(*fetched)
    table.refresh()
    return True


def push(mirror: Mirror, table: TableFolder) -> None:
    """Copy the folder's shards that the URL lacks, then the index with all of them. A compact table replaces what
    is there.

    Raises:
        SoftLabelError: no answer, a refusal, or others write at the same time and never stop.
    """
    with _turn(table.path):
        for _ in range(ATTEMPTS):
            table.refresh()
            try:
                if _push_once(mirror, table):
                    return
            except FileNotFoundError:
                continue  # others have merged the shards here meanwhile
    raise SoftLabelError(f"others keep changing the soft labels in {mirror.url}/{table.path.name}")


def _push_once(mirror: Mirror, table: TableFolder) -> bool:
    """False where others have written the index at the same time."""
    index, there, digest = table.index, _index_of(mirror, table), table.path.name
    theirs = () if there is None else there.shards
    if not index.shards or (there is not None and there.compact and mirror.damaged.isdisjoint(theirs)):
        return True
    for entry in index.shards:
        if entry not in theirs:
            mirror.send(table.path, entry)
    of_no_use = {entry for entry in theirs if index.compact or entry.file in index.merged} | mirror.damaged
    kept = [entry for entry in theirs if entry not in of_no_use and entry not in index.shards]
    wanted = index.with_shards(*kept, *index.shards, compact=index.compact)
    if there != wanted:
        mirror.write_index(digest, wanted)
    now = mirror.index(digest)
    if now is None or not set(index.shards) <= set(now.shards):
        return False
    for entry in set(theirs) - set(now.shards):
        mirror.remove(digest, entry.file)
    return True


def _index_of(mirror: Mirror, table: TableFolder) -> TableIndex | None:
    """The URL's index of the table; None where it has none, or none that is of use."""
    try:
        there = mirror.index(table.path.name)
    except BadIndex as error:
        table.report(f"{error}: made again")
        return None
    if there is not None and not there.is_of(table.wanted):
        table.report(f"{mirror.url}/{table.path.name} has soft labels of other rows or in another form: made again")
        return None
    return there


@contextlib.contextmanager
def _turn(folder: Path) -> Iterator[None]:
    """Processes that share the working folder copy one after the other."""
    with writing(folder):
        lock = acquire(folder / COPYING, wait_s=COPIED_S)
    if lock is None:
        raise SoftLabelError(f"the soft labels in {folder} are being copied by another process for {COPIED_S:.0f} s")
    try:
        yield
    finally:
        lock.release()
