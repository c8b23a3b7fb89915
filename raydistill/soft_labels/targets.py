"""The teachers' word on one micro-batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class SoftTargets:
    """Raw logits by teacher, float16 [batch, num_classes], columns in the task's label order.

    Raw, because the temperature belongs to the loss: one teacher pass then serves every temperature. A row that a
    teacher said nothing about, because it is lost, is NaN.
    """

    logits: dict[str, NDArray[np.float16]]

    def fused(self) -> NDArray[np.float32]:
        """The mean of the teachers' logits, float32 [batch, num_classes]; NaN where no teacher spoke."""
        return fuse(list(self.logits.values()))


def fuse(logits: list[NDArray[np.float16]]) -> NDArray[np.float32]:
    """Mean logits of the teachers that spoke: a normalised geometric mean of their distributions."""
    stacked = np.stack([values.astype(np.float32) for values in logits])
    silent = np.isnan(stacked[:, :, :1])
    mean: NDArray[np.float32]
    if not silent.any():
        mean = stacked.mean(axis=0, dtype=np.float32)
        return mean
    speaking = (~silent).sum(axis=0)
    total = np.where(silent, np.float32(0.0), stacked).sum(axis=0, dtype=np.float32)
    mean = np.where(speaking > 0, total / np.maximum(speaking, 1), np.float32(np.nan)).astype(np.float32)
    return mean
