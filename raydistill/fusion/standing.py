"""How a teacher does on rows whose answer is known, before any student hears it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raydistill.losses.numerics import UNKNOWN


@dataclass(frozen=True)
class Standing:
    """How a teacher does on its task's validation split.

    Attributes:
        accuracy: of the task's metric, over the rows whose class it knows.
        scale: mean over rows of the standard deviation of its logits over the classes that it knows.
    """

    teacher: str
    accuracy: float
    scale: float


def logit_scale(logits: NDArray[Any]) -> float:
    """See `Standing.scale`; logits [rows, classes]."""
    values = np.where(logits > UNKNOWN, logits.astype(np.float64), np.nan)
    return float(np.nanmean(np.nanstd(values, axis=1)))


def asked_about(logits: NDArray[Any], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """The labels [rows] that a teacher can be asked about: −1 where it does not know the label's class.

    A teacher of cats and dogs is neither right nor wrong about a horse.
    """
    knows = logits[np.arange(len(labels)), np.maximum(labels, 0)] > UNKNOWN
    return np.where(knows, labels, -1)
