"""`raydistill store`: what is kept of the teachers' answers, whether it is sound, and making it smaller."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from raydistill.config.loader import load_config
from raydistill.config.models import Config
from raydistill.errors import ConfigError
from raydistill.soft_labels.index import INDEX
from raydistill.soft_labels.store import Damage, LabelStore, TableInfo, open_store

Source = Config | str | Path | Mapping[str, Any] | None
UNITS = {"": 1, "b": 1}
for power, prefix in enumerate("kmgt", start=1):
    UNITS |= {prefix: 1000**power, f"{prefix}b": 1000**power, f"{prefix}ib": 1024**power}


def list_store(source: Source = None, overrides: Iterable[str] = ()) -> list[TableInfo]:
    """Print every table of a store: whose word on what, how much of it, how large, when last used.

    Args:
        source: a config (whatever `raydistill.distill` takes), whose store is meant; None: the one in the default
            cache.

    Raises:
        ConfigError, SoftLabelError: `store.path` is of no use or cannot be reached.
    """
    store = _store(source, overrides)
    tables = store.tables()
    console = _console()
    if tables:
        console.print(_table(tables))
    total = sum(table.size_bytes for table in tables)
    _say(console, f"{len(tables)} tables, {readable(total)} in {store.folder}")
    return tables


def verify_store(source: Source = None, overrides: Iterable[str] = ()) -> list[Damage]:
    """Read everything that the store has on this machine and compare checksums; print what was damaged and dropped.

    Args and errors as in `list_store`.
    """
    store, console = _store(source, overrides), _console()
    if not store.folder.is_dir():
        _say(console, f"there is nothing in {store.folder} yet")
        return []
    found = store.verify()
    for damage in found:
        then = "" if damage.file == INDEX else "; its rows are made again"  # a newer version's index stays
        _say(console, f"{_words(damage.about)} {damage.table}/{damage.file}: {damage.problem}{then}".lstrip())
    _say(console, f"{len(found)} files are of no use in {store.folder}" if found else f"{store.folder} is sound")
    return found


def prune_store(source: Source = None, overrides: Iterable[str] = (), size: str = "10GB") -> list[TableInfo]:
    """Remove tables from this machine, the least recently used first, until the rest takes no more than `size`.

    Tables that a run has open stay. Args and errors as in `list_store`.

    Args:
        size: such as 500MB, 10GB or 2GiB.
    """
    size_bytes = parse_size(size)
    store, console = _store(source, overrides), _console()
    removed = store.prune(size_bytes)
    if removed:
        console.print(_table(removed, title="removed"))
    left = sum(table.size_bytes for table in store.tables())
    _say(
        console,
        f"{len(removed)} tables removed, {readable(sum(table.size_bytes for table in removed))}; {readable(left)} left"
        + (f", more than {size}: what is left is in use or at the store's URL" if left > size_bytes else ""),
    )
    return removed


def parse_size(text: str) -> int:
    """Bytes of a size such as 500MB, 10GB (powers of 1000), 2GiB (powers of 1024).

    Raises:
        ConfigError: it is none.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", text)
    if match is None or match[2].lower() not in UNITS:
        raise ConfigError(f"{text!r} is not a size; write a number with a unit, such as 500MB, 10GB or 2GiB")
    try:
        return int(float(match[1]) * UNITS[match[2].lower()])
    except OverflowError:
        raise ConfigError(f"{text[:20]}… is more than any disk has") from None


def readable(size_bytes: float) -> str:
    """A size for people."""
    for unit in ("B", "KB", "MB", "GB"):
        if size_bytes < 1000:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} TB"


def _store(source: Source, overrides: Iterable[str]) -> LabelStore:
    if source is None:
        folder = Path(Config.model_fields["cache_dir"].default).expanduser() / "soft_labels"
        return LabelStore(folder, lambda message: _say(_console(), message))
    # Not `as_config`, which loads torch: of all paths, the store's are enough.
    config = load_config(source.model_dump(mode="json") if isinstance(source, Config) else source, overrides)
    return open_store(config, lambda message: _say(_console(), message))


def _table(tables: list[TableInfo], title: str = "soft labels") -> Table:
    table = Table(title=title, title_justify="left")
    words = {"of", "kept", "folder"}
    for heading in ("of", "view", "rows", "classes", "kept", "size", "last used", "folder"):
        table.add_column(heading, justify="left" if heading in words else "right")
    for info in tables:
        if info.problem:
            table.add_row(escape(info.problem), "", "", "", "", readable(info.size_bytes), "", info.folder[:8])
            continue
        known = f"{info.num_known:,}" + (f" of {info.num_rows:,}" if info.num_known < info.num_rows else "")
        whose = _words(info.about) or (info.key.teacher[:12] if info.key else "")
        table.add_row(
            escape(whose), str(info.key.view) if info.key else "", known, f"{info.num_classes:,}",
            info.encoding, readable(info.size_bytes), _ago(info.used_at), info.folder[:8],
        )  # fmt: skip
    return table


def _words(about: Mapping[str, str]) -> str:
    return ", ".join(f"{what} {name}" for what, name in about.items())


def _ago(used_at: float) -> str:
    """How long it is since then."""
    if not used_at:
        return "elsewhere"  # it is at the store's URL only
    seconds = max(0.0, time.time() - used_at)
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit} ago"
    return "now"


def _console() -> Console:
    # A file or a pipe has no width of its own, and eighty columns would cut the table.
    return Console(width=None if sys.stdout.isatty() else 140)


def _say(console: Console, line: str) -> None:
    console.print(line, highlight=False, markup=False, soft_wrap=True)
