"""Which rows share a batch: those of like length, so that little of it is padding."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

POOL = 32  # batches drawn together and sorted: enough to find like lengths, few enough to stay random


def shuffled_batches(
    rows: NDArray[np.int64], lengths: NDArray[np.int64] | None, batch_size: int, generator: np.random.Generator
) -> list[NDArray[np.int64]]:
    """An epoch's batches in random order; the rows that do not fill one are left for another epoch.

    Args:
        rows: to draw from.
        lengths: of every row of the split; None: all are alike.
        batch_size: rows of a batch; fewer only where there are fewer rows.
        generator: decides everything that is random here.
    """
    order = generator.permutation(rows)
    batch_size = min(batch_size, len(order))
    order = order[: len(order) // batch_size * batch_size]
    if lengths is None:
        return list(order.reshape(-1, batch_size))
    batches: list[NDArray[np.int64]] = []
    for start in range(0, len(order), POOL * batch_size):
        pool = order[start : start + POOL * batch_size]
        batches += list(pool[np.argsort(lengths[pool], kind="stable")].reshape(-1, batch_size))
    return [batches[i] for i in generator.permutation(len(batches))]


def sorted_batches(num_rows: int, lengths: NDArray[np.int64] | None, batch_size: int) -> list[NDArray[np.int64]]:
    """All rows 0…num_rows−1, shortest first."""
    order = np.arange(num_rows) if lengths is None else np.argsort(lengths, kind="stable")
    return [order[start : start + batch_size] for start in range(0, num_rows, batch_size)]
