"""Who goes where: whole groups, by a hash that neither the seed of a run nor the order of rows can move."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def position_of(group: str) -> float:
    """A fixed number in [0, 1) for a group's name."""
    return int.from_bytes(hashlib.sha256(group.encode()).digest()[:7], "big") / 2**56


def cut(groups: Sequence[str], fractions: dict[str, float]) -> dict[str, NDArray[np.int64]]:
    """Rows by split: the groups in the order of their hash, `fractions` of the rows to each, the rest to `train`.

    A group is never divided, so that a split may be a little larger than its fraction.
    """
    names, inverse, sizes = np.unique(
        np.asarray(groups, dtype=object).astype(str), return_inverse=True, return_counts=True
    )
    order = sorted(range(len(names)), key=lambda index: position_of(str(names[index])))
    owner = np.empty(len(names), dtype=object)
    start = 0
    for split, fraction in fractions.items():
        wanted, taken = fraction * len(groups), 0
        while start < len(order) and taken < wanted:
            owner[order[start]] = split
            taken += int(sizes[order[start]])
            start += 1
    for index in order[start:]:
        owner[index] = "train"
    return {split: np.flatnonzero(owner[inverse] == split) for split in ["train", *fractions]}
