"""A student's answers, without gradients: on a split, or on pictures, sentences and sounds of your own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from raydistill.config.data import DataConfig
from raydistill.data import decoding
from raydistill.data.batch import Inputs, ViewBatch
from raydistill.data.dataset import Split
from raydistill.data.preparing import prepared
from raydistill.errors import ConfigError, DataError
from raydistill.precision import autocast
from raydistill.student.model import Student
from raydistill.tasks import Prediction, Task, make_task


@torch.inference_mode()
def predict_split(
    student: Student, task: str, split: Split, batch_size: int = 128, bf16: bool = False
) -> NDArray[np.float32]:
    """Logits, or standardised numbers, [num_rows, num_outputs] on the plain view of every row, in row order."""
    was_training = student.training
    student.eval()
    starts = range(0, len(split), batch_size)
    chunks = [np.arange(start, min(start + batch_size, len(split))) for start in starts]
    logits = [_answer(student, task, split.views(rows), bf16) for rows in chunks]
    student.train(was_training)
    return np.concatenate(logits)


@torch.inference_mode()
def predict(student: Student, task: str, inputs: Sequence[Any]) -> list[Prediction]:
    """What the student says of each input.

    Of classification: the likeliest class, with its probability. Of multilabel: by label name, the probability that it
    holds. Of regression: by label name, its number, in the units of the data that the student learned from.

    Args:
        student: in eval mode.
        task: one of `student.tasks`.
        inputs: vision: files, encoded bytes or PIL images; text: strings; speech: files, encoded bytes or
            (float samples, Hz).

    Raises:
        ConfigError: the student has no such task. DataError: an input cannot be read.
    """
    if task not in student.tasks:
        raise ConfigError(f"the student has no task {task!r}; it has {sorted(student.tasks)}")
    if not inputs:
        return []
    views = _views(student, task, inputs)
    logits = _answer(student, task, views, bf16=False)
    return own_task(student, task).predictions(logits)


def own_task(student: Student, task: str) -> Task:
    """One of the student's tasks, with the units that the student has kept."""
    found = student.tasks[task]
    if student.shape.tasks[task].kind != "regression":
        return found
    return make_task("regression", task, found.domain, found.label_names, student.units_of(task).scales)


def _answer(student: Student, task: str, views: ViewBatch, bf16: bool) -> NDArray[np.float32]:
    device = next(student.parameters()).device
    inputs = prepared(student.preparer(task), views, device)
    with autocast(device, bf16):
        logits: NDArray[np.float32] = student({task: inputs})[task].float().cpu().numpy()
    return logits


def _views(student: Student, task: str, inputs: Sequence[Any]) -> ViewBatch:
    """Plain views, made as the training data's were."""
    shape = student.shape.tasks[task]
    settings = DataConfig(
        source="disk", path="-", image_size=shape.image_size or 1, grayscale=shape.grayscale,
        sample_rate=shape.sample_rate or 1, max_seconds=shape.max_seconds or 1.0,
    )  # fmt: skip
    decoded: list[Any] = []
    for position, given in enumerate(inputs):
        where = str(given) if isinstance(given, (str, Path)) else f"input {position}"
        try:
            is_file = shape.domain != "text" and isinstance(given, (str, Path))
            value = Path(given).expanduser().read_bytes() if is_file else given
            if shape.domain == "vision":
                pixels = np.frombuffer(decoding.image_bytes(value, settings), np.uint8)
                decoded.append(pixels.reshape(shape.image_size, shape.image_size, -1))
            elif shape.domain == "text":
                decoded.append(decoding.clean_text(value))
            else:
                samples = np.frombuffer(decoding.audio_bytes(value, settings), np.int16)
                decoded.append(samples.astype(np.float32) / np.float32(32768.0))
        except (decoding.BadRow, OSError) as error:
            raise DataError(f"task {task!r}: {where}: {error}") from error
    values: Inputs = np.stack(decoded) if shape.domain == "vision" else decoded
    count = len(decoded)
    unknown, ids = np.full(count, -1, np.int64), np.arange(count)
    return ViewBatch(shape.domain, values, unknown, ids, 0, shape.sample_rate if shape.domain == "speech" else None)
