"""The teachers' word on one micro-batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class SoftTargets:
    """Raw logits by teacher, float16 [batch, num_classes], columns in the task's label order.

    Raw, because the temperature belongs to the loss: one teacher pass then serves every temperature.
    """

    logits: dict[str, NDArray[np.float16]]

    def fused(self) -> NDArray[np.float32]:
        """The mean of the teachers' logits, float32 [batch, num_classes]."""
        return fuse(list(self.logits.values()))


def fuse(logits: list[NDArray[np.float16]]) -> NDArray[np.float32]:
    """Mean logits of several teachers: a normalised geometric mean of their distributions."""
    mean: NDArray[np.float32] = np.mean([values.astype(np.float32) for values in logits], axis=0, dtype=np.float32)
    return mean
