"""A task's data, ready: three splits that give views of rows."""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
from filelock import FileLock
from numpy.typing import NDArray

from raydistill.atomic import reason
from raydistill.config.basics import Domain
from raydistill.config.data import DataConfig, LabelScales, TaskConfig, TaskKind
from raydistill.data import table, views
from raydistill.data.batch import Inputs, ViewBatch
from raydistill.data.labels import standardised
from raydistill.data.sources import is_missing, open_source
from raydistill.data.sources.at_url import DataAtUrl, data_at_url
from raydistill.errors import DataError, RaydistillError

# Everything else decides the table's content; these only decide how a view is cut from it.
VIEW_FIELDS = ("augment", "num_views", "max_bad_fraction")


class Split:
    """A memory-mapped table of prepared rows.

    Attributes:
        labels: of classification int64 [num_rows], −1 = none. Of multilabel float32 [num_rows, labels]: 1 = holds,
            0 = does not, NaN = not known. Of regression the same, standardised by the scales.
        fingerprint: of the content and of how views are made: part of a soft label's key.
    """

    def __init__(
        self,
        name: str,
        domain: Domain,
        config: DataConfig,
        rows: pa.Table,
        digest: str,
        scales: LabelScales | None = None,
    ) -> None:
        self.name, self.domain, self.config = name, domain, config
        labels = table.label_array(rows["label"])
        self.labels: NDArray[Any] = labels if scales is None else standardised(labels, scales)
        self._values = rows["value"].combine_chunks()
        if isinstance(self._values, pa.ChunkedArray):
            self._values = self._values.chunk(0)
        view = [1, domain, config.augment, config.image_size, config.grayscale, config.sample_rate]
        self.fingerprint = hashlib.sha256(json.dumps([digest, view]).encode()).hexdigest()
        if domain == "vision":
            channels = 1 if config.grayscale else 3
            data = np.frombuffer(self._values.buffers()[2], np.uint8)
            shape = (len(rows), config.image_size, config.image_size, channels)
            self._pixels = data[: int(np.prod(shape))].reshape(shape)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> NDArray[np.int64] | None:
        """[num_rows] characters, or bytes of sound; None for pictures, which are all alike."""
        if self.domain == "vision":
            return None
        measure = pa.compute.utf8_length if self.domain == "text" else pa.compute.binary_length
        return np.asarray(measure(self._values), dtype=np.int64)

    def views(self, indices: Sequence[int] | NDArray[np.int64], view: int = 0) -> ViewBatch:
        """The given rows, plain (view 0) or augmented: the same pixels, words or sound for the same arguments."""
        ids = np.asarray(indices, dtype=np.int64)
        seeds = views.sample_seeds(view, ids)
        inputs: Inputs
        if self.domain == "vision":
            inputs = self._pixels[ids]
            if view:
                inputs = views.image_views(inputs, seeds)
        elif self.domain == "text":
            inputs = [views.text_view(text) for text in self._values.take(ids).to_pylist()]
        else:
            clips: list[NDArray[np.float32]] = []
            for row, seed in zip(ids, seeds, strict=True):
                samples = np.frombuffer(self._values[int(row)].as_buffer(), np.int16)
                waveform = samples.astype(np.float32) / np.float32(32768.0)
                clips.append(views.speech_view(waveform, seed, self.config.sample_rate) if view else waveform)
            inputs = clips
        rate = self.config.sample_rate if self.domain == "speech" else None
        return ViewBatch(self.domain, inputs, self.labels[ids], ids, view, rate)


@dataclass(frozen=True)
class Prepared:
    """A task's data as the command has it: travels to other processes and nodes.

    Attributes:
        folder: its name in the cache.
        fingerprint: of all three splits.
    """

    folder: str
    fingerprint: str


@dataclass(frozen=True)
class TaskData:
    """The three splits of one task.

    Attributes:
        label_names: in the order of the student's head.
        skipped: one readable line for each row that could not be used.
        kind: of the task: what its labels are.
        scales: of a regression's labels: what brings them back into the user's units.
        folder: name of the prepared table in the cache.
        fingerprint: of all three splits.
    """

    name: str
    domain: Domain
    label_names: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    skipped: tuple[str, ...]
    settings: DataConfig
    kind: TaskKind = "classification"
    scales: LabelScales | None = None
    folder: str = ""

    @property
    def prepared(self) -> Prepared:
        """For processes elsewhere."""
        return Prepared(self.folder, self.fingerprint)

    @property
    def fingerprint(self) -> str:
        """Changes with any row, label or view setting."""
        parts = [self.train.fingerprint, self.validation.fingerprint, self.test.fingerprint, *self.label_names]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    @property
    def learning_fingerprint(self) -> str:
        """The same without the test split: what a trained model depends on."""
        parts = [self.train.fingerprint, self.validation.fingerprint, *self.label_names]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def load_task_data(
    name: str,
    task: TaskConfig,
    cache_dir: Path,
    progress: Callable[[str], None] = lambda message: None,
    prepared: Prepared | None = None,
) -> TaskData:
    """A task's data from the cache; fetched, checked and prepared first where it is not there.

    Args:
        name: the task's.
        task: its config.
        cache_dir: raw packages and prepared tables lie below it.
        progress: hears what is being done.
        prepared: what the command has, where this is another process: found in the cache, it need not be looked for;
            where the cache is another one, what is prepared here has to be the same.

    Raises:
        DataError: missing, corrupt beyond `max_bad_fraction`, an empty split, cannot be fetched or written; on another
            node, not there, or not the same.
    """
    if prepared is None:
        return _read(name, task, _prepare(name, task, cache_dir, progress))
    folder, host = cache_dir / "data" / prepared.folder, socket.gethostname()
    if folder.is_dir():
        return _read(name, task, folder)
    if is_missing(task.data):
        raise DataError(
            f"task {name!r}: node {host} has neither {task.data.path} nor the prepared data in {cache_dir}; put either "
            f"on storage that every node sees, or let tasks.{name}.data.path be a URL"
        )
    try:
        found = _read(name, task, _prepare(name, task, cache_dir, progress))
    except RaydistillError as error:
        raise type(error)(f"on node {host}: {error}") from error
    if found.fingerprint != prepared.fingerprint:
        raise DataError(
            f"task {name!r}: the data that node {host} finds at {task.data.path or task.data.source} is not what the "
            "command began with; give every node the same, or put cache_dir on storage that every node sees"
        )
    return found


def _prepare(name: str, task: TaskConfig, cache_dir: Path, progress: Callable[[str], None]) -> Path:
    """The folder of the prepared table; made where it is not there."""
    # What is at a URL says by itself what it is: prepared before, it is not fetched again.
    at_url = data_at_url(name, task)
    raw = None if at_url is not None else open_source(name, task, cache_dir, progress)
    identity = at_url.identity if at_url is not None else raw.identity if raw is not None else ""
    settings = task.content(leave_out=VIEW_FIELDS)
    key = json.dumps([table.FORMAT, task.domain, settings, identity], sort_keys=True)
    folder = cache_dir / "data" / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    if not folder.exists():
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"cannot write to cache_dir {cache_dir}: {reason(error)}; set another") from error
        with FileLock(folder.with_suffix(".lock")):
            if not folder.exists():
                if at_url is not None:
                    _prepare_fetched(name, task, at_url, cache_dir, folder, progress)
                elif raw is not None:
                    table.prepare(name, task, raw, folder, lambda text: progress(f"{name}: {text}"))
    return folder


def _prepare_fetched(
    name: str, task: TaskConfig, at_url: DataAtUrl, cache_dir: Path, folder: Path, progress: Callable[[str], None]
) -> None:
    path = str(at_url.fetched(cache_dir, lambda text: progress(f"{name}: {text}")))
    here = task.model_copy(update={"data": task.data.model_copy(update={"path": path})})
    try:
        raw = open_source(name, here, cache_dir, progress)
        table.prepare(name, here, raw, folder, lambda text: progress(f"{name}: {text}"))
    except DataError as error:
        raise DataError(str(error).replace(path, at_url.url)) from error  # the user knows no copy


def _read(name: str, task: TaskConfig, folder: Path) -> TaskData:
    config = task.data
    tables, meta = table.read(folder)
    table.check_skipped(name, config, meta["skipped"], meta["num_seen"])
    labels, skipped = tuple(meta["label_names"]), tuple(meta["skipped"])
    scales = _scales(name, config, labels, meta["label_scales"]) if task.kind == "regression" else None
    digests = meta["digests"]
    splits = {split: Split(split, task.domain, config, tables[split], digests[split], scales) for split in table.SPLITS}
    return TaskData(
        name, task.domain, labels, **splits, skipped=skipped, settings=config, kind=task.kind, scales=scales,
        folder=folder.name,
    )  # fmt: skip


def _scales(name: str, config: DataConfig, label_names: tuple[str, ...], found: list[list[float]]) -> LabelScales:
    """The config's, or those found in the train split."""
    if config.label_scales is None:
        return tuple((mean, deviation) for mean, deviation in found)
    if missing := [label for label in label_names if label not in config.label_scales]:
        raise DataError(
            f"task {name!r}: label_scales has none of the label {missing[0]!r}; set "
            f"tasks.{name}.data.label_scales for {list(label_names)}, or leave it out"
        )
    return tuple(config.label_scales[label] for label in label_names)
