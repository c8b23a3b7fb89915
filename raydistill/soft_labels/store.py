"""The store: every table of soft labels under one folder. What it knows no teacher is asked again."""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raydistill.config.models import Config
from raydistill.errors import ConfigError, SoftLabelError
from raydistill.soft_labels.encoding import Encoding
from raydistill.soft_labels.index import IN_USE, INDEX, LOCK, BadIndex, LabelKey, TableIndex, read_index, writing
from raydistill.soft_labels.locks import acquire
from raydistill.soft_labels.mirror import Mirror
from raydistill.soft_labels.reading import log
from raydistill.soft_labels.table import LabelTable
from raydistill.soft_labels.upkeep import damages, drop_shards, table_lock

__all__ = ["Damage", "LabelKey", "LabelStore", "LabelTable", "TableInfo", "open_store"]

REMOVED = ".removed-"


@dataclass(frozen=True)
class TableInfo:
    """A table from outside.

    Attributes:
        folder: its name in the store.
        num_known: rows that it has, of `num_rows`.
        size_bytes: of all its files.
        used_at: when a run last opened it, seconds since 1970.
        problem: why its index cannot be read; then the numbers are 0.
    """

    folder: str
    key: LabelKey | None
    about: Mapping[str, str]
    num_known: int
    num_rows: int
    num_classes: int
    encoding: str
    size_bytes: int
    used_at: float
    problem: str = ""


@dataclass(frozen=True)
class Damage:
    """A shard that is not what was written, or an index that is none."""

    table: str
    file: str
    problem: str
    about: Mapping[str, str] = field(default_factory=dict)


class LabelStore:
    """A folder of tables, one for each teacher, split and view. Cheap to make; can be sent to workers.

    Args:
        folder: made when first written to.
        report: hears of everything that is damaged or of no use and will be made again. Not sent to workers.
        mirror: where the tables are kept for good, with the folder as what this machine works in.
    """

    def __init__(self, folder: Path, report: Callable[[str], None] = log, mirror: Mirror | None = None) -> None:
        self.folder, self._report, self._mirror = folder, report, mirror

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_report": log}

    def table(
        self,
        key: LabelKey,
        num_rows: int,
        num_classes: int,
        top_k: int | None = None,
        about: Mapping[str, str] | None = None,
    ) -> LabelTable:
        """Open a table; it need not be there yet. One of other rows or in another form is reported and made again.

        Args:
            top_k: logits kept of a row; None: all up to 1,024 classes, 32 above.
            about: words for people: the names of the teacher, the task, the split.

        Raises:
            ConfigError: `top_k` is larger than the number of classes.
            SoftLabelError: a newer version has written the table, or it cannot be read.
        """
        wanted = TableIndex(key, num_rows, Encoding.choose(num_classes, top_k), dict(about or {}))
        return LabelTable(self.folder / key.digest, wanted, self._report, self._mirror)

    def tables(self) -> list[TableInfo]:
        """All that are there, by name, then those that are at the URL only."""
        found = [_info(folder) for folder in self._folders()]
        if self._mirror is not None:
            here = {table.folder for table in found}
            for digest in self._mirror.tables():
                index = None if digest in here else self._mirror.index(digest)
                if index is not None:
                    found.append(_info_of(digest, index, index.size_bytes, 0.0))
        return sorted(
            found, key=lambda table: (list(table.about.values()), table.key.view if table.key else 0, table.folder)
        )

    def verify(self) -> list[Damage]:
        """Read every shard in the folder and compare its checksum; the damaged ones are dropped, so that their rows
        count as missing.

        Raises:
            SoftLabelError: they cannot be dropped.
        """
        found = []
        for folder in self._folders():
            try:
                index = read_index(folder)
            except SoftLabelError as error:
                found.append(Damage(folder.name, INDEX, str(error)))
                continue
            if index is not None and index.key.digest != folder.name:
                found.append(Damage(folder.name, INDEX, f"it is the one of {index.key.digest}; swap them back"))
                continue
            problems = {} if index is None else damages(folder, index)
            if index is None or not problems:
                continue
            with table_lock(folder), writing(folder):
                now = read_index(folder)
                names = {shard.file for shard in now.shards} if now is not None else set()
                problems = {file: problem for file, problem in problems.items() if file in names}
                drop_shards(folder, problems)
            found += [Damage(folder.name, file, problem, index.about) for file, problem in problems.items()]
        return found

    def prune(self, size_bytes: int) -> list[TableInfo]:
        """Remove tables from the folder, the least recently used first, until the rest takes `size_bytes` at most.

        Tables that a living process has open stay. Returns those that were removed.

        Raises:
            SoftLabelError: they cannot be removed.
        """
        tables = sorted((_info(folder) for folder in self._folders()), key=lambda table: table.used_at)
        too_many = sum(table.size_bytes for table in tables) - size_bytes
        removed = []
        for table in tables:
            if too_many <= 0:
                break
            if self._remove(self.folder / table.folder):
                too_many -= table.size_bytes
                removed.append(table)
        for folder in self.folder.glob("*/") if self.folder.is_dir() else ():
            if folder.name.startswith(REMOVED):  # a pruning was killed
                shutil.rmtree(folder, ignore_errors=True)
            elif _is_ours(folder) and (folder / LOCK).exists() and not (folder / INDEX).exists():
                self._remove(folder)  # a run claimed and never wrote
        return removed

    def _remove(self, folder: Path) -> bool:
        with writing(self.folder):
            use = acquire(folder / IN_USE)
            if use is None:
                return False
            try:
                # In one step: who comes meanwhile finds nothing, not half a table.
                doomed = self.folder / f"{REMOVED}{uuid.uuid4().hex[:12]}"
                folder.rename(doomed)
            finally:
                use.release()
        shutil.rmtree(doomed, ignore_errors=True)
        return True

    def _folders(self) -> list[Path]:
        try:
            folders = sorted(index.parent for index in self.folder.glob(f"*/{INDEX}"))
        except OSError:
            return []
        return [folder for folder in folders if _is_ours(folder)]


def _is_ours(folder: Path) -> bool:
    """A table's folder has a digest for a name. Other things may lie beside it, and are none of our business."""
    return re.fullmatch(r"[0-9a-f]{24}", folder.name) is not None


def open_store(config: Config, report: Callable[[str], None] = log) -> LabelStore:
    """The store that a config names.

    Raises:
        ConfigError: `store.path` is no folder, or a kind of URL that is not known here. SoftLabelError: it is a URL
        that cannot be reached.
    """
    cache, path = Path(config.cache_dir).expanduser().absolute(), config.store.path
    if path is None:
        return LabelStore(cache / "soft_labels", report)
    if "://" in path:
        mirror = Mirror(path)
        mirror.check()
        digest = hashlib.sha256(mirror.url.encode()).hexdigest()[:12]
        return LabelStore(cache / f"soft_labels-{digest}", report, mirror)
    folder = Path(path).expanduser().absolute()
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"store.path {path} is a file, not a folder")
    return LabelStore(folder, report)


def _info(folder: Path) -> TableInfo:
    size_bytes, used_at = 0, 0.0
    for file in folder.glob("*"):
        with contextlib.suppress(OSError):
            status = file.stat()
            # Claims are full of holes.
            size_bytes += min(status.st_size, 512 * status.st_blocks) if file.is_file() else 0
            used_at = max(used_at, status.st_mtime if file.name in (IN_USE, INDEX) else 0.0)
    try:
        index = read_index(folder)
    except SoftLabelError as error:
        problem = "damaged" if isinstance(error, BadIndex) else str(error)
        return TableInfo(folder.name, None, {}, 0, 0, 0, "", size_bytes, used_at, problem)
    if index is None:
        return TableInfo(folder.name, None, {}, 0, 0, 0, "", size_bytes, used_at, "removed just now")
    return _info_of(folder.name, index, size_bytes, used_at)


def _info_of(folder: str, index: TableIndex, size_bytes: int, used_at: float) -> TableInfo:
    known = min(index.num_rows, sum(shard.num_rows for shard in index.shards))  # rows that two shards have count twice
    return TableInfo(
        folder, index.key, index.about, known, index.num_rows, index.encoding.num_classes, str(index.encoding),
        size_bytes, used_at,
    )  # fmt: skip
