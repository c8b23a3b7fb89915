"""How a teacher does on rows whose answer is known, before any student hears it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raydistill.config.data import TaskKind
from raydistill.losses.numerics import UNKNOWN

RULED_OUT = -5.8e4


@dataclass(frozen=True)
class Standing:
    """How a teacher does on its task's validation split.

    Attributes:
        accuracy: of the task's metric, over the rows whose class it knows.
        scale: see `logit_scale`.
        kind: of its task: how its answers are read.
    """

    teacher: str
    accuracy: float
    scale: float
    kind: TaskKind = "classification"


def logit_scale(logits: NDArray[Any], kind: TaskKind = "classification") -> float:
    """How far a teacher's logits [rows, labels] are spread, over what it knows.

    Of classes: the mean over rows of the standard deviation over the classes. Of labels that hold or do not, each with
    the two logits (z, 0): the mean of |z| / 2, which is the same. Numbers are no logits: 1.
    """
    if kind == "regression":
        return 1.0
    # Classes that are ruled out have no place in a spread.
    values = np.where(logits > RULED_OUT, logits.astype(np.float64), np.nan)
    return float(np.nanmean(np.abs(values)) / 2 if kind == "multilabel" else np.nanmean(np.nanstd(values, axis=1)))


def asked_about(logits: NDArray[Any], labels: NDArray[Any]) -> NDArray[Any]:
    """The labels that a teacher can be asked about; none where it does not know the row's class, or that label.

    A teacher of cats and dogs is neither right nor wrong about a horse.

    Args:
        logits: [rows, labels].
        labels: classes, int64 [rows], −1 = none; or [rows, labels], NaN = none.
    """
    if labels.ndim > 1:
        return np.where(logits > UNKNOWN, labels, np.nan)
    knows = logits[np.arange(len(labels)), np.maximum(labels, 0)] > UNKNOWN
    return np.where(knows, labels, -1)
