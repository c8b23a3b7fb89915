"""Single-label classification, over inputs of any domain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from raydistill.config.basics import Domain
from raydistill.losses.choice import SoftLossChoice
from raydistill.losses.hard import NO_LABEL, hard_cross_entropy
from raydistill.losses.soft_losses import soft_loss
from raydistill.tasks.base import Prediction
from raydistill.tasks.heads import PooledHead


@dataclass(frozen=True)
class Classification:
    """Exactly one of `label_names` a row; the metric is accuracy. Labels are int64 [rows], −1 = none."""

    name: str
    domain: Domain
    label_names: tuple[str, ...]
    metric_name: str = "accuracy"

    @property
    def chance(self) -> float:
        """Accuracy of a uniform guess."""
        return 1.0 / len(self.label_names)

    def chance_on(self, labels: NDArray[np.int64]) -> float:
        """The same, whatever the labels are."""
        return self.chance

    def make_head(self, width: int) -> nn.Module:
        """See `PooledHead`."""
        return PooledHead(width, len(self.label_names))

    def hard_loss(self, output: Tensor, hard_labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Cross-entropy: see `losses.hard`."""
        return hard_cross_entropy(output, hard_labels, label_smoothing)

    def soft_loss(self, output: Tensor, teacher_logits: Tensor, hard_labels: Tensor, choice: SoftLossChoice) -> Tensor:
        """As chosen: see `losses.soft_losses`."""
        return soft_loss(
            choice.name, output, teacher_logits, choice.temperature, hard_labels, choice.options, choice.standardized
        )

    def is_labelled(self, labels: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whose label is not −1."""
        return np.asarray(labels != NO_LABEL)

    def count_labelled(self, labels: NDArray[np.int64]) -> int:
        """Rows whose label is not −1."""
        return int((labels != NO_LABEL).sum())

    def hide(self, labels: NDArray[np.int64], shown: NDArray[np.int64]) -> NDArray[np.int64]:
        """−1 everywhere else."""
        visible = np.full_like(labels, NO_LABEL)
        visible[shown] = labels[shown]
        return visible

    def must_show(
        self, labels: NDArray[np.int64], shown: NDArray[np.int64], order: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """A row of every class that would go unseen."""
        missing = np.setdiff1d(np.unique(labels[order]), labels[shown])
        return np.array([order[labels[order] == label][0] for label in missing], dtype=shown.dtype)

    def relabel(self, labels: NDArray[np.int64], label_names: Sequence[str]) -> NDArray[np.int64]:
        """Positions in `self.label_names`; −1 for a class that is none of them."""
        own = [self.label_names.index(name) if name in self.label_names else NO_LABEL for name in label_names]
        return np.array([*own, NO_LABEL], dtype=np.int64)[labels]

    def metric(self, output: NDArray[Any], labels: NDArray[np.int64]) -> float:
        """Accuracy over the labelled rows; nan where none is labelled."""
        scores = self.row_scores(output, labels)
        return float(scores.mean()) if len(scores) else float("nan")

    def row_scores(self, output: NDArray[Any], labels: NDArray[np.int64]) -> NDArray[np.float64]:
        """1 for a labelled row that is answered right, else 0."""
        labelled = labels != NO_LABEL
        right: NDArray[np.float64] = (output.argmax(axis=-1)[labelled] == labels[labelled]).astype(np.float64)
        return right

    def details(self, output: NDArray[Any], labels: NDArray[np.int64]) -> dict[str, float]:
        """macro_f1, and calibration_error: expected, over 15 bins of confidence (Guo et al. 2017)."""
        from torchmetrics.functional.classification import multiclass_calibration_error, multiclass_f1_score

        labelled = labels != NO_LABEL
        probabilities = torch.from_numpy(output[labelled]).float().softmax(dim=-1)
        target = torch.from_numpy(labels[labelled])
        num_classes = len(self.label_names)
        return {
            "macro_f1": float(multiclass_f1_score(probabilities, target, num_classes, average="macro")),
            "calibration_error": float(multiclass_calibration_error(probabilities, target, num_classes, n_bins=15)),
        }

    def agreement(self, output: NDArray[Any], teacher_output: NDArray[Any]) -> float:
        """Share of rows with the same likeliest class."""
        return float((output.argmax(axis=-1) == teacher_output.argmax(axis=-1)).mean())

    def floor(self, output: NDArray[Any], labels: NDArray[np.int64]) -> tuple[float, str]:
        """Of always naming the commonest class."""
        labelled = labels != NO_LABEL
        commonest = float(np.bincount(labels[labelled]).max() / labelled.sum())
        margin = 3 * (commonest * (1 - commonest) / labelled.sum()) ** 0.5
        # A small split cannot ask for more than it can show.
        return min(commonest + margin, (1 + commonest) / 2), f"the commonest class alone gives {commonest:.3f}"

    def predictions(self, output: NDArray[Any]) -> list[Prediction]:
        """The likeliest class, with its probability."""
        exponents = np.exp(output - output.max(axis=-1, keepdims=True))
        probabilities = exponents / exponents.sum(axis=-1, keepdims=True)
        return [(self.label_names[row.argmax()], float(row.max())) for row in probabilities]
