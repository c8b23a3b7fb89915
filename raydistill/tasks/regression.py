"""One number of a row, or several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from raydistill.config.basics import Domain
from raydistill.config.data import LabelScales
from raydistill.losses.choice import SoftLossChoice
from raydistill.losses.numerics import unknown_classes
from raydistill.losses.regression import hard_regression, soft_regression
from raydistill.tasks.base import Prediction
from raydistill.tasks.heads import PooledHead
from raydistill.tasks.several import any_label, columns_of, only_rows


@dataclass(frozen=True)
class Regression:
    """A number for each of `label_names`. Labels are float32 [rows, labels], NaN = none.

    Labels and outputs are standardised: (number − mean) / deviation, with the `scales` of the task's data. `details`
    and `predictions` are in the user's units. The metric is R², in the mean over labels, and 0 at least.
    """

    name: str
    domain: Domain
    label_names: tuple[str, ...]
    scales: LabelScales
    metric_name: str = "R²"

    def make_head(self, width: int) -> nn.Module:
        """Linear on the mean over tokens; its outputs are standardised."""
        return PooledHead(width, len(self.label_names))

    def hard_loss(self, output: Tensor, hard_labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Half the squared difference, in the mean over a row's labels: see `losses.regression`."""
        assert label_smoothing == 0.0, "refused with the config"
        return hard_regression(output, hard_labels)

    def soft_loss(self, output: Tensor, teacher_logits: Tensor, hard_labels: Tensor, choice: SoftLossChoice) -> Tensor:
        """The same against the teachers' numbers; nothing of the choice counts."""
        known = teacher_logits.masked_fill(unknown_classes(teacher_logits), float("nan"))
        return soft_regression(output, known, choice.temperature)

    def is_labelled(self, labels: NDArray[Any]) -> NDArray[np.bool_]:
        """Of which one number at least is known."""
        return any_label(labels)

    def count_labelled(self, labels: NDArray[Any]) -> int:
        """Rows of which one number at least is known."""
        return int(any_label(labels).sum())

    def hide(self, labels: NDArray[Any], shown: NDArray[np.int64]) -> NDArray[Any]:
        """NaN everywhere else."""
        return only_rows(labels, shown)

    def must_show(self, labels: NDArray[Any], shown: NDArray[np.int64], order: NDArray[np.int64]) -> NDArray[np.int64]:
        """For each label of which no number would be seen a row that has one."""
        rows: list[int] = []
        for column in np.isnan(labels).T:
            given = order[~column[order]]
            if len(given) and column[shown].all() and column[rows].all():
                rows.append(int(given[0]))
        return np.array(rows, dtype=np.int64)

    def relabel(self, labels: NDArray[Any], label_names: Sequence[str]) -> NDArray[Any]:
        """Columns by name; NaN for one that is not there."""
        return columns_of(labels, label_names, self.label_names)

    def metric(self, output: NDArray[Any], labels: NDArray[Any]) -> float:
        """R² of each label over the rows that have it, in the mean over labels, clipped below at 0.

            R² = 1 − Σ (label − output)² / Σ (label − mean label)²

        Labels without any spread do not count; nan where none has any.

        Source: Draper and Smith, "Applied Regression Analysis" (1998), section 1.3.
        """
        scores = self.row_scores(output, labels)
        return max(0.0, float(scores.mean())) if len(_spreads(labels)) else float("nan")

    def row_scores(self, output: NDArray[Any], labels: NDArray[Any]) -> NDArray[np.float64]:
        """1 − squared error / variance, in the mean over labels: in the mean over rows R², not clipped. A label that a
        row lacks is left to the rows that have it."""
        scores, labelled, spreads = np.zeros(len(labels)), any_label(labels), _spreads(labels)
        share = labelled.sum() / max(1, len(spreads))
        for at, variance in spreads.items():
            given = np.flatnonzero(~np.isnan(labels[:, at]))
            error = output[given, at].astype(np.float64) - labels[given, at]
            scores[given] += share * (1.0 - error**2 / variance) / len(given)
        return scores[labelled]

    def details(self, output: NDArray[Any], labels: NDArray[Any]) -> dict[str, float]:
        """rmse, in the user's units (of several labels rmse_NAME), and spearman: the mean over labels of the
        correlation of ranks; 0 where all outputs are the same."""
        found, correlations = {}, []
        for at, (name, (_, deviation)) in enumerate(zip(self.label_names, self.scales, strict=True)):
            given = ~np.isnan(labels[:, at])
            own, wanted = output[given, at].astype(np.float64), labels[given, at].astype(np.float64)
            key = "rmse" if len(self.label_names) == 1 else f"rmse_{name}"
            found[key] = float(deviation * np.sqrt(np.mean((own - wanted) ** 2))) if given.any() else 0.0
            correlations.append(_spearman(own, wanted))
        return {**found, "spearman": float(np.mean(correlations))}

    def agreement(self, output: NDArray[Any], teacher_output: NDArray[Any]) -> float:
        """R² of the student's numbers, with the teachers' for labels."""
        return self.metric(output, teacher_output.astype(np.float64))

    def chance_on(self, labels: NDArray[Any]) -> float:
        """Of the mean for every row."""
        return 0.0

    def floor(self, output: NDArray[Any], labels: NDArray[Any]) -> tuple[float, str]:
        """Of the mean for every row, whose R² is 0; three standard errors of the rows' differences above."""
        scores = self.row_scores(output, labels)
        return min(3 * float(scores.std()) / len(scores) ** 0.5, 0.5), "the mean for every row gives 0.000"

    def predictions(self, output: NDArray[Any]) -> list[Prediction]:
        """By label, its number in the user's units."""
        mean, deviation = np.array(self.scales, np.float64).T
        numbers = output.astype(np.float64) * deviation + mean
        return [dict(zip(self.label_names, map(float, row), strict=True)) for row in numbers]


def _spreads(labels: NDArray[Any]) -> dict[int, float]:
    """By label, the variance over the rows that have it; of those that have any."""
    variances = {}
    for at, column in enumerate(labels.T.astype(np.float64)):
        given = column[~np.isnan(column)]
        if len(given) and np.ptp(given) > 0:
            variances[at] = float(given.var())
    return variances


def _spearman(left: NDArray[np.float64], right: NDArray[np.float64]) -> float:
    if len(left) < 2 or not np.ptp(left) or not np.ptp(right):
        return 0.0
    return float(np.corrcoef(_ranks(left), _ranks(right))[0, 1])


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Equal ones share the mean of their ranks."""
    _, at, counts = np.unique(values, return_inverse=True, return_counts=True)
    middle: NDArray[np.float64] = counts.cumsum() - (counts - 1) / 2
    return middle[at]
