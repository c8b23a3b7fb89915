"""Which rows a micro-batch takes: a pure function of (seed, task, step), so that a resumed run needs no state."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raydistill.data.ordering import shuffled_batches
from raydistill.tasks import Task


@dataclass(frozen=True)
class MicroBatch:
    """Rows of one task for one micro-step, all parts together, and the view that they are seen in."""

    rows: NDArray[np.int64]
    view: int

    def part(self, number: int, num_parts: int) -> NDArray[np.int64]:
        """A contiguous one."""
        return np.array_split(self.rows, num_parts)[number]


class TaskSampler:
    """Shuffled epochs over a task's rows; each epoch shows the next augmented view.

    Args:
        seed: the run's.
        task: its name, so that tasks are shuffled apart.
        rows: the rows that may be drawn (all, or those with a label).
        global_batch_size: rows of one micro-step, all parts together.
        num_views: how many augmented views a row has; 0 = the plain view always, None = every epoch a new one.
        lengths: of every row of the split: rows of like length then share a micro-batch. None: all are alike.
    """

    def __init__(
        self,
        seed: int,
        task: str,
        rows: NDArray[np.int64],
        global_batch_size: int,
        num_views: int | None,
        lengths: NDArray[np.int64] | None = None,
    ) -> None:
        self.rows, self.lengths = rows, lengths
        self.global_batch_size = global_batch_size
        self.num_views = num_views
        self.steps_per_epoch = max(1, len(rows) // global_batch_size)
        self._entropy = int.from_bytes(hashlib.sha256(f"{seed}/{task}".encode()).digest()[:8], "big")
        self._shuffled = lru_cache(maxsize=2)(self._shuffle)

    def _shuffle(self, epoch: int) -> list[NDArray[np.int64]]:
        # A set smaller than one batch is repeated within it.
        rows = np.tile(self.rows, -(-self.global_batch_size // len(self.rows)))
        generator = np.random.default_rng([self._entropy, epoch])
        return shuffled_batches(rows, self.lengths, self.global_batch_size, generator)

    def micro_batch(self, micro_step: int) -> MicroBatch:
        """The rows of micro-step 0, 1, 2, …"""
        epoch, position = divmod(micro_step, self.steps_per_epoch)
        rows = self._shuffled(epoch)[position]
        if self.num_views is None:
            return MicroBatch(rows, 1 + epoch)
        return MicroBatch(rows, 1 + epoch % self.num_views if self.num_views else 0)


def labelled_rows(labels: NDArray[Any], fraction: float, task: Task, seed: int) -> NDArray[np.int64]:
    """The training rows whose label the student sees: `fraction` of the labelled ones, drawn by seed, sorted.

    At least one row of every class stays, so that the student alone can know that the class exists.
    """
    candidates = np.flatnonzero(task.is_labelled(labels))
    if fraction >= 1.0:
        return candidates
    entropy = int.from_bytes(hashlib.sha256(f"labels/{task.name}".encode()).digest()[:8], "big")
    order = np.random.default_rng([entropy, seed]).permutation(candidates)
    kept = order[: max(1, round(fraction * len(order)))]
    return np.sort(np.concatenate([kept, task.must_show(labels, kept, order)]))
