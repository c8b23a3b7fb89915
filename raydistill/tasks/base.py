"""The seam between the training loop and a kind of task. The loop knows no more of a task than this."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from raydistill.config.basics import Domain
from raydistill.losses.choice import SoftLossChoice


class Task(Protocol):
    """One thing that the student learns to do. Losses are sums: the caller divides by counts over all ranks."""

    @property
    def name(self) -> str:
        """As in the config."""
        ...

    @property
    def domain(self) -> Domain:
        """Which stem its inputs take."""
        ...

    @property
    def metric_name(self) -> str:
        """Of `metric`, for people."""
        ...

    @property
    def label_names(self) -> tuple[str, ...]:
        """In head order."""
        ...

    @property
    def chance(self) -> float:
        """The metric of a model that knows nothing."""
        ...

    def make_head(self, width: int) -> nn.Module:
        """A module from trunk tokens [batch, tokens, width] and mask [batch, tokens] to this task's output."""
        ...

    def hard_loss(self, output: Tensor, hard_labels: Tensor) -> Tensor:
        """Scalar: summed over the rows that have a label."""
        ...

    def soft_loss(self, output: Tensor, teacher_logits: Tensor, hard_labels: Tensor, choice: SoftLossChoice) -> Tensor:
        """Scalar: summed over all rows, with the T² factor. Labels are for losses that need a target class."""
        ...

    def count_labelled(self, hard_labels: NDArray[np.int64]) -> int:
        """The number of rows that `hard_loss` sums over."""
        ...

    def metric(self, output: NDArray[Any], hard_labels: NDArray[np.int64]) -> float:
        """Higher is better, 1 is perfect; rows without a label do not count."""
        ...

    def row_scores(self, output: NDArray[Any], hard_labels: NDArray[np.int64]) -> NDArray[np.float64]:
        """What each labelled row adds to the metric, [num_labelled]: two models are compared row by row on these."""
        ...

    def details(self, output: NDArray[Any], hard_labels: NDArray[np.int64]) -> dict[str, float]:
        """Other measures that the report shows, by name."""
        ...

    def agreement(self, output: NDArray[Any], teacher_output: NDArray[Any]) -> float:
        """How often the student says what the teachers say, 0…1; no label is needed."""
        ...


def make_task(kind: str, name: str, domain: Domain, label_names: tuple[str, ...]) -> Task:
    """The task of one config section. A new kind is a file beside this one and an entry here."""
    from raydistill.tasks.classification import Classification

    kinds = {"classification": Classification}
    return kinds[kind](name, domain, label_names)
