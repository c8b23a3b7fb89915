"""Everything that Hugging Face `datasets` reads: the hub, folders of files, tables, saved data sets."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets

from raydistill.config.data import DataConfig, TaskConfig
from raydistill.data.rows import RawData, RawRow
from raydistill.errors import DataError

AUDIO_ENDINGS = (".wav", ".flac", ".ogg", ".mp3")
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
    for split in ("validation", "test"):
        default = DataConfig.model_fields[f"{split}_split"].default
        if named[split] not in (None, default) and named[split] not in loaded:
            raise DataError(
                f"task {name!r}: {config.path!r} has no split {named[split]!r}; it has {sorted(loaded)}: set "
                f"tasks.{name}.data.{split}_split, or leave it out to cut one from the train split"
            )
    splits = {split: loaded[key] for split, key in named.items() if key in loaded}
    column = config.input_column or DEFAULT_COLUMN[task.domain]
    labels = [("label_columns", wanted) for wanted in config.label_columns or ()]
    for split, rows in splits.items():
        for key, wanted in (("input_column", column), *(labels or [("label_column", config.label_column)])):
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
    label_names = None if task.kind == "regression" or labels else _label_names(splits["train"], config.label_column)
    names_files = task.domain != "text" and config.source != "hub"
    readers = {split: _reader(split, rows, column, task, names_files) for split, rows in splits.items()}
    files = [value for rows in splits.values() for value in _strings(rows, column)] if names_files else []
    return RawData(readers, label_names, f"{config.source} {config.path} {_identity(config, splits, files)}")


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
    if config.source == "imagefolder":
        return datasets.load_dataset("imagefolder", data_dir=path)
    if config.source == "audiofolder":
        return _audio_folder(place, config)
    if place.is_dir():
        return datasets.load_dataset(config.source, data_dir=path)
    return datasets.load_dataset(config.source, data_files={config.train_split: path})


def _audio_folder(folder: Path, config: DataConfig) -> dict[str, datasets.Dataset]:
    """One sub-folder a class, below one a split where there are splits: as `datasets` reads it.

    Its own reader needs a decoder (torchcodec and FFmpeg) merely to list files.
    """
    names = {config.train_split, config.validation_split, config.test_split}
    found = {sub.name: sub for sub in sorted(folder.iterdir()) if sub.is_dir() and sub.name in names}
    loaded = {}
    for split, root in (found or {config.train_split: folder}).items():
        files = [file for file in sorted(root.glob("*/*")) if file.suffix.lower() in AUDIO_ENDINGS]
        loaded[split] = datasets.Dataset.from_dict(
            {
                "audio": [str(file.absolute()) for file in files],
                config.label_column: [file.parent.name for file in files],
            }
        )
    if not any(len(rows) for rows in loaded.values()):
        raise FileNotFoundError(f"no {', '.join(AUDIO_ENDINGS)} files in sub-folders named after their class")
    return loaded


def _local(config: DataConfig) -> Path:
    return Path(config.path or "").expanduser()


def _label_names(rows: datasets.Dataset, column: str) -> tuple[str, ...] | None:
    """Of a column of named classes, or of lists of them."""
    feature = rows.features[column]
    feature = getattr(feature, "feature", feature)
    return tuple(feature.names) if isinstance(feature, datasets.ClassLabel) else None


def _reader(
    split: str, rows: datasets.Dataset, column: str, task: TaskConfig, names_files: bool
) -> Callable[[], Iterator[RawRow]]:
    """`names_files`: strings in the column are files, relative to the source's folder."""
    config, feature = task.data, rows.features[column]
    # Undecoded: a corrupt file is then one bad row, not the end of the iteration.
    if isinstance(feature, datasets.Image):
        rows = rows.cast_column(column, datasets.Image(decode=False))
    elif isinstance(feature, datasets.Audio):
        rows = rows.cast_column(column, datasets.Audio(decode=False))

    base = _folder(config)

    def read() -> Iterator[RawRow]:
        for position, row in enumerate(rows):
            value, where = row[column], f"{split} row {position}"
            if isinstance(value, dict):
                where = value.get("path") or where
                value = value.get("bytes") or _file_bytes(Path(value.get("path") or ""))
            elif isinstance(value, str) and names_files:
                where, value = value, _file_bytes(base / value)
            group = None if config.group_column is None else str(row[config.group_column])
            if config.label_columns:
                yield RawRow(where, value, tuple(row[key] for key in config.label_columns), group)
            else:
                label = row[config.label_column]
                yield RawRow(where, value, _label(label) if task.kind == "classification" else label, group)

    return read


def _label(value: Any) -> str | int | None:
    """A column of whole numbers with gaps arrives as floats, and gaps as NaN."""
    if isinstance(value, float):
        return None if math.isnan(value) else str(int(value)) if value.is_integer() else str(value)
    return value if value is None or isinstance(value, int) else str(value)


def _file_bytes(path: Path) -> bytes:
    """Empty where it cannot be read: decoding then counts the row as corrupt, under its name."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _strings(rows: datasets.Dataset, column: str) -> list[str]:
    return (
        [value for value in rows[column] if value] if rows.features[column].dtype in ("string", "large_string") else []
    )


def _identity(config: DataConfig, splits: dict[str, datasets.Dataset], named_files: list[str]) -> str:
    """Of the content as found: `datasets`' own fingerprints; elsewhere names, sizes and times of all files."""
    digest = hashlib.sha256()
    if config.source == "hub":
        for split, rows in sorted(splits.items()):
            digest.update(f"{split} {rows._fingerprint}\n".encode())
        return digest.hexdigest()[:16]
    place = _local(config)
    files = set(place.rglob("*")) if place.is_dir() else {place}
    for file in sorted(files | {_folder(config) / name for name in named_files}):
        if file.is_file():
            stat = file.stat()
            digest.update(f"{file} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def _folder(config: DataConfig) -> Path:
    """What relative file names in a table are relative to."""
    place = _local(config)
    return place if place.is_dir() else place.parent
