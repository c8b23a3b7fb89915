"""The teachers' word on one micro-batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from raydistill.soft_labels.layers import Features


@dataclass(frozen=True)
class SoftTargets:
    """Raw logits by teacher, float16 [batch, num_classes], columns in the task's label order.

    Raw, because the temperature belongs to the loss: one teacher pass then serves every temperature. A row that a
    teacher said nothing about, because it is lost, is NaN. Features are there by teacher where they were asked for.
    """

    logits: dict[str, NDArray[np.float16]]
    features: dict[str, Features] = field(default_factory=dict)

    def stacked(self, teachers: Sequence[str]) -> NDArray[np.float16]:
        """[teachers, batch, num_classes] in the given order; NaN where one said nothing. Fusing them is the student's
        side's: the store keeps each teacher apart."""
        first = next(iter(self.logits.values()))
        silent = np.full_like(first, np.nan)
        return np.stack([self.logits.get(teacher, silent) for teacher in teachers])
