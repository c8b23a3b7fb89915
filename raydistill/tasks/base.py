"""The seam between the training loop and a kind of task. The loop knows no more of a task than this."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from raydistill.config.basics import Domain
from raydistill.config.data import LabelScales, TaskKind
from raydistill.losses.choice import SoftLossChoice

Labels = NDArray[Any]
"""Of some rows, in the form of `Split.labels`: classes, int64 [rows], or a number for each label, float32
[rows, labels]."""
Prediction = tuple[str, float] | dict[str, float]
"""Of one row, for people: the likeliest class and its probability; or by label its probability, or its number."""


class Task(Protocol):
    """One thing that the student learns to do. Losses are sums: the caller divides by counts over all ranks.

    `output` is [rows, outputs], of the student or of teachers, in head order.
    """

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

    def make_head(self, width: int) -> nn.Module:
        """A module from trunk tokens [batch, tokens, width] and mask [batch, tokens] to this task's output."""
        ...

    def hard_loss(self, output: Tensor, hard_labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Scalar: summed over the rows that have a label."""
        ...

    def soft_loss(self, output: Tensor, teacher_logits: Tensor, hard_labels: Tensor, choice: SoftLossChoice) -> Tensor:
        """Scalar: summed over all rows, with the T² factor. Labels are for losses that need a target class."""
        ...

    def is_labelled(self, labels: Labels) -> NDArray[np.bool_]:
        """[rows]: those that `hard_loss` sums over."""
        ...

    def count_labelled(self, labels: Labels) -> int:
        """Their number."""
        ...

    def hide(self, labels: Labels, shown: NDArray[np.int64]) -> Labels:
        """The same labels, of the rows `shown` only; the others have none."""
        ...

    def must_show(self, labels: Labels, shown: NDArray[np.int64], order: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows of `order`, the first that do, to show beside `shown`, so that no label name goes unseen."""
        ...

    def relabel(self, labels: Labels, label_names: Sequence[str]) -> Labels:
        """Labels of a task with other names or another order, as this one's; names that it does not know: none."""
        ...

    def metric(self, output: NDArray[Any], labels: Labels) -> float:
        """Higher is better, 1 is perfect; rows without a label do not count. nan where there is nothing to measure."""
        ...

    def row_scores(self, output: NDArray[Any], labels: Labels) -> NDArray[np.float64]:
        """What each labelled row adds to the metric, [num_labelled], in the mean the metric itself (of regression:
        before it is clipped). Two models are compared row by row on these."""
        ...

    def details(self, output: NDArray[Any], labels: Labels) -> dict[str, float]:
        """Other measures that the report shows, by name."""
        ...

    def agreement(self, output: NDArray[Any], teacher_output: NDArray[Any]) -> float:
        """How far the student says what the teachers say, 0…1; no label is needed."""
        ...

    def chance_on(self, labels: Labels) -> float:
        """The metric of a model that knows nothing of the rows."""
        ...

    def floor(self, output: NDArray[Any], labels: Labels) -> tuple[float, str]:
        """The metric that a teacher must reach to be better than the best answer that is the same for every row, by
        three standard errors; and what that answer gives, in words."""
        ...

    def predictions(self, output: NDArray[Any]) -> list[Prediction]:
        """One for each row."""
        ...


class Described(Protocol):
    """What has to be known of a task's data to make the task: see `TaskData`."""

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def domain(self) -> Domain: ...  # noqa: D102

    @property
    def kind(self) -> TaskKind: ...  # noqa: D102

    @property
    def label_names(self) -> tuple[str, ...]: ...  # noqa: D102

    @property
    def scales(self) -> LabelScales | None: ...  # noqa: D102


def make_task(
    kind: str, name: str, domain: Domain, label_names: tuple[str, ...], scales: LabelScales | None = None
) -> Task:
    """The task of one config section. A new kind is a file beside this one and an entry here.

    Args:
        scales: of a regression's labels, for measures in the user's units.
    """
    from raydistill.tasks.classification import Classification
    from raydistill.tasks.multilabel import Multilabel
    from raydistill.tasks.regression import Regression

    if kind == "regression":
        return Regression(name, domain, label_names, scales or ((0.0, 1.0),) * len(label_names))
    if kind == "multilabel":
        return Multilabel(name, domain, label_names)
    return Classification(name, domain, label_names)


def task_of(data: Described, label_names: Sequence[str] | None = None) -> Task:
    """The task of some data, or the part of it that a teacher of fewer labels learns.

    Raises:
        ValueError: the data has no such label.
    """
    names = tuple(label_names or data.label_names)
    if strangers := [name for name in names if name not in data.label_names]:
        raise ValueError(f"label_names has {strangers[0]!r}, and the task's are {list(data.label_names)}")
    scales = data.scales and tuple(data.scales[data.label_names.index(name)] for name in names)
    return make_task(data.kind, data.name, data.domain, names, scales)
