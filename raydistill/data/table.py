"""The prepared table: every row looked at once, then kept as Arrow in the cache and memory-mapped ever after."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raydistill.atomic import reason, replacing
from raydistill.config.basics import Domain
from raydistill.config.data import DataConfig, TaskConfig
from raydistill.data import decoding
from raydistill.data.labels import LabelReader, make_reader, train_scales
from raydistill.data.rows import RawData, RawRow
from raydistill.data.splits import cut
from raydistill.errors import DataError

SPLITS = ("train", "validation", "test")
FORMAT = 3  # raise when a table's content changes for the same source and settings
CHUNK = 2_000
# Large: 64-bit offsets, for splits of more than 2 GiB.
ARROW = {"vision": pa.large_binary(), "text": pa.large_string(), "speech": pa.large_binary()}


class Collector:
    """Decodes rows, keeps the good ones and a readable line for each bad one."""

    def __init__(self, domain: Domain, config: DataConfig, reader: LabelReader) -> None:
        self.domain, self.config, self.reader = domain, config, reader
        self.skipped: list[str] = []
        self.num_seen = 0

    def decode(self, row: RawRow) -> tuple[Any, Any]:
        """The canonical value, and the label as the reader has it (None: unlabelled)."""
        label = self.reader.read(row.label)
        if self.domain == "vision":
            return decoding.image_bytes(row.value, self.config), label
        if self.domain == "text":
            return decoding.clean_text(row.value), label
        return decoding.audio_bytes(row.value, self.config), label

    def collect(self, rows: Iterator[RawRow], progress: Callable[[str], None]) -> dict[str, list[Any]]:
        """Columns value, label, group of the rows that can be used."""
        columns: dict[str, list[Any]] = {"value": [], "label": [], "group": []}
        began = time.monotonic()
        while chunk := list(islice(rows, CHUNK)):
            for row in chunk:
                self.num_seen += 1
                try:
                    value, label = self.decode(row)
                except decoding.BadRow as bad:
                    self.skipped.append(f"{row.where}: {bad}")
                    continue
                columns["value"].append(value)
                columns["label"].append(label)
                columns["group"].append(row.group if row.group is not None else _content_name(value))
            rate = self.num_seen / max(1e-9, time.monotonic() - began)
            progress(f"{self.num_seen:,} rows read, {rate:,.0f} rows/s")
        return columns


def prepare(name: str, task: TaskConfig, raw: RawData, folder: Path, progress: Callable[[str], None]) -> None:
    """Write `folder` with one Arrow file a split and `table.json`; whole or not at all.

    Raises:
        DataError: too many bad rows, an empty split, labels that say nothing, a full disk.
    """
    config, reader = task.data, make_reader(task.kind, task.data, raw.label_names)
    collector = Collector(task.domain, config, reader)
    source = {split: collector.collect(rows(), progress) for split, rows in raw.splits.items()}
    check_skipped(name, config, collector.skipped, collector.num_seen)
    columns = _three_splits(source, config)
    for split in SPLITS:
        rows = columns[split]
        if not rows["value"] or all(label is None for label in rows["label"]):
            what = "no rows" if not rows["value"] else "no labelled rows"
            raise _of_no_use(name, split, what, raw)
    label_names = reader.names(label for split in columns.values() for label in split["label"] if label is not None)
    if len(label_names) < reader.fewest_names:
        few = f"one label only ({list(label_names)}); {task.kind} needs two or more"
        none = f"no row has a label that holds; set tasks.{name}.data.label_names"
        raise DataError(f"task {name!r}: {few if label_names else none}")
    labels = {split: reader.array(columns[split]["label"], label_names) for split in SPLITS}
    for split in SPLITS:
        if problem := reader.useless(labels[split], label_names):
            raise _of_no_use(name, split, problem, raw)
    meta: dict[str, Any] = {
        "label_names": list(label_names), "skipped": collector.skipped, "num_seen": collector.num_seen,
        "digests": {split: _digest(columns[split]["value"], labels[split]) for split in SPLITS},
    }  # fmt: skip
    if task.kind == "regression":
        meta["label_scales"] = train_scales(labels["train"])
    try:
        with replacing(folder) as temporary:
            temporary.mkdir()
            for split in SPLITS:
                values = pa.array(columns[split]["value"], ARROW[task.domain])
                table = pa.table({"value": values, "label": _arrow(labels[split])})
                with (
                    pa.OSFile(str(temporary / f"{split}.arrow"), "wb") as file,
                    pa.ipc.new_file(file, table.schema) as out,
                ):
                    out.write_table(table)
            (temporary / "table.json").write_text(json.dumps(meta, indent=1), encoding="utf-8")
    except OSError as error:
        raise DataError(
            f"cannot write the prepared data to {folder}: {reason(error)}; free some space or set cache_dir"
        ) from error


def check_skipped(name: str, config: DataConfig, skipped: Sequence[str], num_seen: int) -> None:
    """Too many rows that cannot be used are an error.

    Raises:
        DataError: names the first three.
    """
    if num_seen and len(skipped) > config.max_bad_fraction * num_seen:
        raise DataError(
            f"task {name!r}: {len(skipped)} of {num_seen} rows cannot be used ({'; '.join(skipped[:3])}); "
            f"mend them or raise tasks.{name}.data.max_bad_fraction (now {config.max_bad_fraction:g})"
        )


def read(folder: Path) -> tuple[dict[str, pa.Table], dict[str, Any]]:
    """The memory-mapped splits and the content of table.json."""
    meta = json.loads((folder / "table.json").read_text(encoding="utf-8"))
    tables = {}
    for split in SPLITS:
        with pa.memory_map(str(folder / f"{split}.arrow")) as source:
            tables[split] = pa.ipc.open_file(source).read_all()
    return tables, meta


def label_array(column: pa.ChunkedArray) -> NDArray[Any]:
    """A table's labels: int64 [rows], or [rows, labels] of a kind with several."""
    if not pa.types.is_fixed_size_list(column.type):
        flat: NDArray[Any] = column.to_numpy()
        return flat
    values: NDArray[Any] = column.combine_chunks().flatten().to_numpy()
    return values.reshape(-1, column.type.list_size)


def _arrow(labels: NDArray[Any]) -> Any:
    if labels.ndim == 1:
        return labels
    return pa.FixedSizeListArray.from_arrays(pa.array(labels.reshape(-1)), labels.shape[1])


def _of_no_use(name: str, split: str, problem: str, raw: RawData) -> DataError:
    return DataError(f"task {name!r}: the {split} split has {problem}; check tasks.{name}.data ({raw.identity})")


def _three_splits(source: dict[str, dict[str, list[Any]]], config: DataConfig) -> dict[str, dict[str, list[Any]]]:
    """The source's own splits; those it lacks are cut from train. Then each is drawn down to its maximum."""
    columns = dict(source)
    wanted = {"validation": config.validation_fraction, "test": config.test_fraction}
    missing = {split: fraction for split, fraction in wanted.items() if split not in columns}
    if missing:
        # Unlabelled rows are for learning only: they neither validate nor test.
        train = columns["train"]
        labelled = [i for i, label in enumerate(train["label"]) if label is not None]
        owners = cut([train["group"][i] for i in labelled], missing)
        kept_out = {train["group"][labelled[row]] for split in missing for row in owners[split]}
        parts = {split: [labelled[row] for row in owners[split]] for split in missing}
        parts["train"] = [i for i, group in enumerate(train["group"]) if group not in kept_out]
        for split, rows in parts.items():
            columns[split] = {key: [values[i] for i in rows] for key, values in train.items()}
    limits = {"train": config.max_train, "validation": config.max_validation, "test": config.max_test}
    for split, limit in limits.items():
        size = len(columns[split]["value"])
        if limit is not None and size > limit:
            drawn = np.sort(np.random.default_rng(0).permutation(size)[:limit])
            columns[split] = {key: [values[i] for i in drawn] for key, values in columns[split].items()}
    return columns


def _content_name(value: Any) -> str:
    """A group for a row without one: the same content stays on one side, wherever it lies and in whatever order."""
    return hashlib.sha256(value.encode() if isinstance(value, str) else value).hexdigest()


def _digest(values: list[Any], labels: NDArray[Any]) -> str:
    digest = hashlib.sha256(labels.tobytes())
    for value in values:
        encoded = value.encode() if isinstance(value, str) else value
        digest.update(len(encoded).to_bytes(8, "big"))
        digest.update(encoded)
    return digest.hexdigest()
