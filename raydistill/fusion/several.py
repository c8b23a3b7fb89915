"""Fusing teachers of tasks with a number for each label: logits of names that hold or do not, or plain numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from raydistill.config.data import TaskKind
from raydistill.config.distill import FusionName, FusionOptions
from raydistill.fusion.combining import shares
from raydistill.fusion.fuser import Fused, Fuser
from raydistill.fusion.standing import Standing
from raydistill.fusion.weighting import by_losses, of_least_norm
from raydistill.losses.numerics import UNKNOWN, exact, mean_of_kept, unknown_classes

YES, NO = 0, 1


class LabelFuser(Fuser):
    """Teachers of a multilabel task as one: each label of each row is a row of two classes, with the logits (z, 0).

    All strategies keep their meaning; the weights are of each label, those of `aekd` and of single teachers of all. A
    teacher that does not know a label is silent on it.
    """

    kind: TaskKind = "multilabel"

    def __init__(
        self,
        strategy: FusionName,
        standings: Sequence[Standing],
        num_labels: int,
        options: FusionOptions,
        teacher_weights: Mapping[str, float],
    ) -> None:
        super().__init__(strategy, standings, 2, options, teacher_weights)
        self.num_labels = num_labels
        self._trust, self._rows = torch.zeros(len(standings), num_labels), torch.zeros(num_labels)

    def forward(self, teacher_logits: Tensor, temperature: float, student_logits: Tensor, hard_labels: Tensor) -> Fused:
        """Fuse.

        Args:
            teacher_logits: [teachers, batch, labels]; a NaN row said nothing, `UNKNOWN` is a label that it does not
                know.
            student_logits: [batch, labels].
            hard_labels: [batch, labels], NaN: none.

        Returns:
            Logits [batch, labels], `UNKNOWN` where nobody knows; weights [teachers, batch, labels].
        """
        logits = exact(teacher_logits)
        logits = logits.masked_fill(unknown_classes(logits), torch.nan)
        classes = torch.where(hard_labels.isnan(), -1, torch.where(hard_labels > 0.5, YES, NO)).flatten()
        fused = super().forward(_pairs(logits), temperature, _pairs(student_logits), classes)
        said = (fused.logits[:, YES] - fused.logits[:, NO]).view(logits.shape[1:])
        loss = None if fused.gate_loss is None else fused.gate_loss / self.num_labels
        return Fused(said.masked_fill(logits.isnan().all(dim=0), UNKNOWN), fused.weights.reshape(logits.shape), loss)

    def _by_gradients(self, logits: Tensor, speaks: Tensor, student_logits: Tensor, temperature: float) -> Tensor:
        """One weight a teacher, of the gradients on the labels' logits: see `weighting.by_gradients`."""
        by_label = speaks.view(len(logits), -1, self.num_labels)
        present = by_label.flatten(1).any(dim=1)
        counted = (by_label | ~present.view(-1, 1, 1)).all(dim=0)
        difference = student_logits.detach()[:, YES].div(temperature).sigmoid() - (
            (logits[..., YES] - logits[..., NO]).div(temperature).sigmoid()
        )
        gradients = temperature * difference.view(by_label.shape) * counted
        mean = gradients.sum(dim=1) / counted.sum(dim=0).clamp_min(1)
        return of_least_norm(mean, present, self.options.aekd.most).unsqueeze(1).expand(-1, speaks.shape[1])

    def _remember(self, fused: Tensor, weights: Tensor) -> None:
        _add_up(self, weights.reshape(len(weights), -1, self.num_labels))


class NumberFuser(Fuser):
    """Teachers of a regression task as one: the weighted mean of their numbers.

        z = Σ_k w_k z_k

    Both means are this one, `best` hears one teacher, `confidence` and `aekd` have their own weights. Numbers are
    standardised alike: no scale is to be brought to another. A teacher that does not know a label is silent on it.
    """

    kind: TaskKind = "regression"

    def forward(self, teacher_logits: Tensor, temperature: float, student_logits: Tensor, hard_labels: Tensor) -> Fused:
        """Fuse.

        Args:
            teacher_logits: numbers [teachers, batch, labels]; a NaN row said nothing, `UNKNOWN` is a label that it does
                not know.
            temperature: counts for nothing.
            student_logits: numbers [batch, labels].
            hard_labels: [batch, labels], NaN: none.

        Returns:
            Numbers [batch, labels], `UNKNOWN` where nobody knows; weights [teachers, batch, labels].
        """
        numbers = exact(teacher_logits)
        speaks = ~(unknown_classes(numbers) | numbers.isnan())
        numbers = numbers.masked_fill(~speaks, 0.0)
        if self.strategy == "confidence":
            weights = self._by_errors(numbers, speaks, hard_labels)
        elif self.strategy == "aekd":
            weights = self._by_differences(numbers, speaks, student_logits)
        else:
            weights = self._weights.to(numbers).view(-1, 1, 1).expand(numbers.shape)
        weights = shares(weights, speaks)
        fused = (weights * numbers).sum(dim=0).masked_fill(~speaks.any(dim=0), UNKNOWN)
        if self.training and len(numbers) > 1:
            _add_up(self, weights)
        return Fused(fused, weights)

    def _by_errors(self, numbers: Tensor, speaks: Tensor, hard_labels: Tensor) -> Tensor:
        """`weighting.by_confidence` with the likelihood of a normal distribution of variance 1; one weight a row."""
        missing = hard_labels.isnan() | ~speaks
        error = (numbers - hard_labels.nan_to_num(nan=0.0).to(numbers.dtype)).square()
        able = ~missing.all(dim=-1)
        weights = by_losses(0.5 * mean_of_kept(error, missing), able)
        # Where nobody can be told right from wrong all count alike.
        weights = torch.where(able.any(dim=0), weights, 1.0)
        return weights.unsqueeze(-1).expand(numbers.shape)

    def _by_differences(self, numbers: Tensor, speaks: Tensor, student_numbers: Tensor) -> Tensor:
        """One weight a teacher, of the gradients of half the squared difference."""
        present = speaks.flatten(1).any(dim=1)
        counted = (speaks | ~present.view(-1, 1, 1)).all(dim=0)
        gradients = (student_numbers.detach().to(numbers.dtype) - numbers) * counted
        mean = gradients.sum(dim=1) / counted.sum(dim=0).clamp_min(1)
        return of_least_norm(mean, present, self.options.aekd.most).view(-1, 1, 1).expand(numbers.shape)


def _pairs(logits: Tensor) -> Tensor:
    """[…, batch, labels] as rows of two classes, […, batch · labels, 2]."""
    yes = logits.flatten(-2)
    return torch.stack([yes, torch.zeros_like(yes)], dim=-1)


def _add_up(fuser: Fuser, weights: Tensor) -> None:
    """Trust is by label: mean weights over rows, [teachers, batch, labels]."""
    weights = weights.detach()
    heard = weights.sum(dim=0) > 0
    fuser._trust = fuser._trust.to(weights.device) + weights.sum(dim=1).to(fuser._trust.dtype)
    fuser._rows = fuser._rows.to(weights.device) + heard.sum(dim=0).to(fuser._rows.dtype)
