"""Everything that Hugging Face `datasets` reads: the hub, folders of files, tables, saved data sets."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets

from raydistill.config.models import DataConfig, TaskConfig
from raydistill.data.rows import RawData, RawRow
from raydistill.errors import DataError

DEFAULT_COLUMN = {"vision": "image", "text": "text", "speech": "audio"}


def open_dataset(name: str, task: TaskConfig, progress: Callable[[str], None]) -> RawData:
    """The source of a task's config, as raw rows.

    Raises:
        DataError: the path, a split or a column is missing, or `datasets` cannot read it.
    """
    config = task.data
    assert config.path is not None
    progress(f"{name}: reading {config.source} {config.path}")
    datasets.disable_progress_bars()
    try:
        loaded = _load(config)
    except Exception as error:  # `datasets` raises dozens of kinds; to the user each means: not readable as asked
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(f"task {name!r}: cannot read {config.source} {config.path!r}: {reason}") from error
    named = {"train": config.train_split, "validation": config.validation_split, "test": config.test_split}
    if config.train_split not in loaded:
        raise DataError(
            f"task {name!r}: {config.path!r} has no split {config.train_split!r}; it has {sorted(loaded)}: "
            f"set tasks.{name}.data.train_split"
        )
    splits = {split: loaded[key] for split, key in named.items() if key in loaded}
    column = config.input_column or DEFAULT_COLUMN[task.domain]
    for split, rows in splits.items():
        for key, wanted in (("input_column", column), ("label_column", config.label_column)):
            if wanted not in rows.column_names:
                raise DataError(
                    f"task {name!r}: split {split!r} has no column {wanted!r}; it has {rows.column_names}: "
                    f"set tasks.{name}.data.{key}"
                )
        if config.group_column and config.group_column not in rows.column_names:
            raise DataError(
                f"task {name!r}: split {split!r} has no column {config.group_column!r}; it has {rows.column_names}: "
                f"set tasks.{name}.data.group_column"
            )
    label = splits["train"].features[config.label_column]
    label_names = tuple(label.names) if isinstance(label, datasets.ClassLabel) else None
    readers = {split: _reader(split, rows, column, config) for split, rows in splits.items()}
    return RawData(readers, label_names, f"{config.source} {config.path} {_identity(config, splits)}")


def _load(config: DataConfig) -> Any:
    if config.source == "hub":
        return datasets.load_dataset(config.path, config.subset)
    place = _local(config)
    path = str(place)
    if not place.exists():
        raise FileNotFoundError("no such file or folder")
    if config.source == "disk":
        loaded = datasets.load_from_disk(path)
        return loaded if isinstance(loaded, datasets.DatasetDict) else {config.train_split: loaded}
    if config.source in ("imagefolder", "audiofolder"):
        return datasets.load_dataset(config.source, data_dir=path)
    if place.is_dir():
        return datasets.load_dataset(config.source, data_dir=path)
    return datasets.load_dataset(config.source, data_files={config.train_split: path})


def _local(config: DataConfig) -> Path:
    return Path(config.path or "").expanduser()


def _reader(split: str, rows: datasets.Dataset, column: str, config: DataConfig) -> Callable[[], Iterator[RawRow]]:
    feature = rows.features[column]
    # Undecoded: a corrupt file is then one bad row, not the end of the iteration.
    if isinstance(feature, datasets.Image):
        rows = rows.cast_column(column, datasets.Image(decode=False))
    elif isinstance(feature, datasets.Audio):
        rows = rows.cast_column(column, datasets.Audio(decode=False))

    base = _local(config)
    base = base if base.is_dir() else base.parent

    def read() -> Iterator[RawRow]:
        for position, row in enumerate(rows):
            value, where = row[column], f"{split} row {position}"
            if isinstance(value, dict):
                where = value.get("path") or where
                value = value.get("bytes") or _file_bytes(Path(value.get("path") or ""))
            elif isinstance(value, str) and config.source != "hub" and _is_file_column(value, base):
                where, value = value, _file_bytes(base / value)
            label = row[config.label_column]
            group = None if config.group_column is None else str(row[config.group_column])
            yield RawRow(where, value, label if label is None or isinstance(label, int) else str(label), group)

    return read


FILE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".wav", ".flac", ".ogg", ".mp3")


def _is_file_column(value: str, base: Path) -> bool:
    return value.lower().endswith(FILE_ENDINGS)


def _file_bytes(path: Path) -> bytes:
    """Empty where it cannot be read: decoding then counts the row as corrupt, under its name."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _identity(config: DataConfig, splits: dict[str, datasets.Dataset]) -> str:
    """Of the content as found: `datasets`' own fingerprints, and names, sizes and times of a folder's files."""
    digest = hashlib.sha256()
    base = _local(config)
    if config.source == "hub":
        for split, rows in sorted(splits.items()):
            digest.update(f"{split} {rows._fingerprint}\n".encode())
    else:
        files = sorted(base.rglob("*")) if base.is_dir() else [base]
        for file in files:
            if file.is_file():
                stat = file.stat()
                digest.update(f"{file} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]
