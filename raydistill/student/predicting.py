"""A student's answers on a split, without gradients."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from raydistill.data.dataset import Split
from raydistill.precision import autocast
from raydistill.student.model import Student


@torch.inference_mode()
def predict_split(
    student: Student, task: str, split: Split, batch_size: int = 128, bf16: bool = False
) -> NDArray[np.float32]:
    """Logits [num_rows, num_classes] on the plain view of every row, in row order."""
    device = next(student.parameters()).device
    prepare = student.preparer(task)
    was_training = student.training
    student.eval()
    logits = []
    with autocast(device, bf16):
        for start in range(0, len(split), batch_size):
            views = split.views(np.arange(start, min(start + batch_size, len(split))))
            prepared = {key: value.to(device) for key, value in prepare(views).items()}
            logits.append(student({task: prepared})[task].float().cpu().numpy())
    student.train(was_training)
    return np.concatenate(logits)


def top_labels(logits: NDArray[np.float32], label_names: Sequence[str]) -> list[tuple[str, float]]:
    """By row: the likeliest label and its probability."""
    exponents = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities = exponents / exponents.sum(axis=-1, keepdims=True)
    best = probabilities.argmax(axis=-1)
    return [(label_names[i], float(row[i])) for i, row in zip(best, probabilities, strict=True)]
