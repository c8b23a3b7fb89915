"""Several names, or none of them, hold of a row; one name alone is a yes-or-no question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from raydistill.config.basics import Domain
from raydistill.losses.binary import hard_binary_cross_entropy, soft_binary_cross_entropy
from raydistill.losses.choice import SoftLossChoice
from raydistill.tasks.base import Prediction
from raydistill.tasks.heads import PooledHead
from raydistill.tasks.several import any_label, columns_of, only_rows

DRAWS = 20  # of answers in random order, whose spread is what a teacher has to exceed


@dataclass(frozen=True)
class Multilabel:
    """Each of `label_names` holds of a row or does not. Labels are float32 [rows, labels]: 1, 0, or NaN = not known.

    Outputs are a logit for each label. The metric is mean average precision: it needs no threshold, and a label that
    rarely holds counts as much as one that often does.
    """

    name: str
    domain: Domain
    label_names: tuple[str, ...]
    metric_name: str = "mean average precision"

    def make_head(self, width: int) -> nn.Module:
        """See `PooledHead`."""
        return PooledHead(width, len(self.label_names))

    def hard_loss(self, output: Tensor, hard_labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Binary cross-entropy, in the mean over a row's labels: see `losses.binary`."""
        if label_smoothing:
            hard_labels = hard_labels * (1.0 - label_smoothing) + 0.5 * label_smoothing
        return hard_binary_cross_entropy(output, hard_labels)

    def soft_loss(self, output: Tensor, teacher_logits: Tensor, hard_labels: Tensor, choice: SoftLossChoice) -> Tensor:
        """KL of the yes-or-no distributions, in the mean over the labels; of the choice only the temperature counts."""
        return soft_binary_cross_entropy(output, teacher_logits, choice.temperature)

    def is_labelled(self, labels: NDArray[Any]) -> NDArray[np.bool_]:
        """Of which one label at least is known."""
        return any_label(labels)

    def count_labelled(self, labels: NDArray[Any]) -> int:
        """Rows of which one label at least is known."""
        return int(any_label(labels).sum())

    def hide(self, labels: NDArray[Any], shown: NDArray[np.int64]) -> NDArray[Any]:
        """NaN everywhere else."""
        return only_rows(labels, shown)

    def must_show(self, labels: NDArray[Any], shown: NDArray[np.int64], order: NDArray[np.int64]) -> NDArray[np.int64]:
        """For each label that would never be seen to hold a row on which it does."""
        rows: list[int] = []
        for column in labels.T:
            holds = order[column[order] == 1]
            if len(holds) and not (column[shown] == 1).any() and not (column[rows] == 1).any():
                rows.append(int(holds[0]))
        return np.array(rows, dtype=np.int64)

    def relabel(self, labels: NDArray[Any], label_names: Sequence[str]) -> NDArray[Any]:
        """Columns by name; NaN for one that is not there."""
        return columns_of(labels, label_names, self.label_names)

    def metric(self, output: NDArray[Any], labels: NDArray[Any]) -> float:
        """Mean over labels of the average precision, each over the rows on which it is known.

            AP = Σ_n (R_n − R_{n−1}) P_n,    n over the distinct outputs, largest first

        with precision P_n and recall R_n of calling every row yes down to that output. Labels that never hold do not
        count; nan where none does.

        Source: Manning, Raghavan, Schütze, "Introduction to Information Retrieval" (2008), section 8.4.
        """
        scores = self.row_scores(output, labels)
        return float(scores.mean()) if len(scores) and (labels == 1).any() else float("nan")

    def row_scores(self, output: NDArray[Any], labels: NDArray[Any]) -> NDArray[np.float64]:
        """A row's part of the metric, so that the mean over rows is the metric: for each label that holds of it the
        precision down to the row, over how many rows it holds of; 0 where none holds."""
        scores = np.zeros(len(labels))
        columns = [at for at in range(labels.shape[1]) if (labels[:, at] == 1).any()]
        labelled = any_label(labels)
        share = labelled.sum() / max(1, len(columns))
        for at in columns:
            known = np.flatnonzero(~np.isnan(labels[:, at]))
            holds = labels[known, at] == 1
            precision = precision_down_to(output[known, at], holds)
            scores[known[holds]] += share * precision[holds] / holds.sum()
        return scores[labelled]

    def details(self, output: NDArray[Any], labels: NDArray[Any]) -> dict[str, float]:
        """At the threshold ½: macro_f1, over the labels that hold or are called, and label_accuracy, the share of known
        labels that are answered right."""
        known = ~np.isnan(labels)
        called, holds = (output > 0) & known, (labels == 1) & known
        right = (called & holds).sum(axis=0)
        of = called.sum(axis=0) + holds.sum(axis=0)
        each = 2 * right[of > 0] / of[of > 0]
        return {
            "macro_f1": float(each.mean()) if len(each) else 0.0,
            "label_accuracy": float((called == holds)[known].mean()) if known.any() else 0.0,
        }

    def agreement(self, output: NDArray[Any], teacher_output: NDArray[Any]) -> float:
        """Share of labels with the same answer at the threshold ½."""
        return float(((output > 0) == (teacher_output > 0)).mean())

    def chance_on(self, labels: NDArray[Any]) -> float:
        """Mean share of rows on which a label holds: the average precision of the same output everywhere."""
        holds = [column[~np.isnan(column)].mean() for column in labels.T if (column == 1).any()]
        return float(np.mean(holds)) if holds else 0.0

    def floor(self, output: NDArray[Any], labels: NDArray[Any]) -> tuple[float, str]:
        """Of the same answer for every row; three standard deviations of the given ones in random order above."""
        same, generator = self.chance_on(labels), np.random.default_rng(0)
        drawn = [self.metric(generator.permutation(output), labels) for _ in range(DRAWS)]
        least = max(same, float(np.mean(drawn))) + 3 * float(np.std(drawn))
        return min(least, (1 + same) / 2), f"the same answer for every row gives {same:.3f}"

    def predictions(self, output: NDArray[Any]) -> list[Prediction]:
        """By label, its probability."""
        probabilities = 1.0 / (1.0 + np.exp(-np.clip(output.astype(np.float64), -500.0, 500.0)))
        return [dict(zip(self.label_names, map(float, row), strict=True)) for row in probabilities]


def precision_down_to(output: NDArray[Any], holds: NDArray[np.bool_]) -> NDArray[np.float64]:
    """[rows]: of the rows with this output or a larger one, the share on which the label holds."""
    values, at, counts = np.unique(output, return_inverse=True, return_counts=True)
    right = np.bincount(at, weights=holds, minlength=len(values))
    down_to: NDArray[np.float64] = (right[::-1].cumsum() / counts[::-1].cumsum())[::-1]
    return down_to[at]
