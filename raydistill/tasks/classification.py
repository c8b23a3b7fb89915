"""Single-label classification, over inputs of any domain."""

from __future__ import annotations

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


class PooledHead(nn.Module):
    """Mean over the real tokens, then one linear layer to the classes."""

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, num_classes)

    def forward(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """tokens [batch, tokens, width], mask [batch, tokens] (True = real) -> logits [batch, num_classes]."""
        if mask is None:
            pooled = tokens.mean(dim=1)
        else:
            weight = mask.to(tokens.dtype).unsqueeze(-1)
            pooled = (tokens * weight).sum(dim=1) / weight.sum(dim=1).clamp_min(1.0)
        logits: Tensor = self.linear(self.norm(pooled))
        return logits


@dataclass(frozen=True)
class Classification:
    """Exactly one of `label_names` a row; the metric is accuracy."""

    name: str
    domain: Domain
    label_names: tuple[str, ...]
    metric_name: str = "accuracy"

    @property
    def chance(self) -> float:
        """Accuracy of a uniform guess."""
        return 1.0 / len(self.label_names)

    def make_head(self, width: int) -> nn.Module:
        """See `PooledHead`."""
        return PooledHead(width, len(self.label_names))

    def hard_loss(self, output: Tensor, hard_labels: Tensor) -> Tensor:
        """Cross-entropy: see `losses.hard`."""
        return hard_cross_entropy(output, hard_labels)

    def soft_loss(self, output: Tensor, teacher_logits: Tensor, hard_labels: Tensor, choice: SoftLossChoice) -> Tensor:
        """As chosen: see `losses.soft_losses`."""
        return soft_loss(
            choice.name, output, teacher_logits, choice.temperature, hard_labels, choice.options, choice.standardized
        )

    def count_labelled(self, hard_labels: NDArray[np.int64]) -> int:
        """Rows whose label is not −1."""
        return int((hard_labels != NO_LABEL).sum())

    def metric(self, output: NDArray[Any], hard_labels: NDArray[np.int64]) -> float:
        """Accuracy over the labelled rows; nan where none is labelled."""
        scores = self.row_scores(output, hard_labels)
        return float(scores.mean()) if len(scores) else float("nan")

    def row_scores(self, output: NDArray[Any], hard_labels: NDArray[np.int64]) -> NDArray[np.float64]:
        """1 for a labelled row that is answered right, else 0."""
        labelled = hard_labels != NO_LABEL
        right: NDArray[np.float64] = (output.argmax(axis=-1)[labelled] == hard_labels[labelled]).astype(np.float64)
        return right

    def details(self, output: NDArray[Any], hard_labels: NDArray[np.int64]) -> dict[str, float]:
        """macro_f1, and calibration_error: expected, over 15 bins of confidence (Guo et al. 2017)."""
        from torchmetrics.functional.classification import multiclass_calibration_error, multiclass_f1_score

        labelled = hard_labels != NO_LABEL
        probabilities = torch.from_numpy(output[labelled]).float().softmax(dim=-1)
        target = torch.from_numpy(hard_labels[labelled])
        num_classes = len(self.label_names)
        return {
            "macro_f1": float(multiclass_f1_score(probabilities, target, num_classes, average="macro")),
            "calibration_error": float(multiclass_calibration_error(probabilities, target, num_classes, n_bins=15)),
        }

    def agreement(self, output: NDArray[Any], teacher_output: NDArray[Any]) -> float:
        """Share of rows with the same likeliest class."""
        return float((output.argmax(axis=-1) == teacher_output.argmax(axis=-1)).mean())
