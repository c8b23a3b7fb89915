"""What the kinds of task with a number for each label have in common: labels float32 [rows, labels], NaN = none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def any_label(labels: NDArray[Any]) -> NDArray[np.bool_]:
    """[rows]: those with one label at least."""
    return np.asarray(~np.isnan(labels).all(axis=1))


def only_rows(labels: NDArray[Any], rows: NDArray[np.int64]) -> NDArray[Any]:
    """The labels of these rows; the others have none."""
    visible = np.full_like(labels, np.nan)
    visible[rows] = labels[rows]
    return visible


def columns_of(labels: NDArray[Any], label_names: Sequence[str], wanted: Sequence[str]) -> NDArray[Any]:
    """The columns of the wanted names, in their order; NaN for a name that is not there."""
    names = list(label_names)
    found = [labels[:, names.index(name)] if name in names else np.full(len(labels), np.nan) for name in wanted]
    return np.stack(found, axis=1).astype(labels.dtype)
