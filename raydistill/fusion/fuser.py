"""The fused word of a task's teachers, by the strategy that the config names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from raydistill.config.data import TaskKind
from raydistill.config.distill import DistillConfig, FusionName, FusionOptions
from raydistill.fusion.combining import mean_of_logits, mean_of_probabilities, shares, spoken
from raydistill.fusion.standing import Standing
from raydistill.fusion.weighting import Gate, by_accuracy, by_confidence, by_entropy, by_gradients
from raydistill.losses.numerics import unknown_classes

WITHOUT_LABELS: tuple[FusionName, ...] = ("mean_logits", "mean_probabilities", "best", "entropy")
"""Strategies that need neither labels nor a student: what they are worth can be measured on any split."""


RULED_OUT = -5.9e4  # above `UNKNOWN`


@dataclass(frozen=True)
class Fused:
    """One soft target a row.

    Attributes:
        logits: [batch, classes]; of regression numbers. `UNKNOWN` where nobody knows.
        weights: [teachers, batch], summing to 1: who counted how much; of other kinds [teachers, batch, labels].
        gate_loss: of a learned gate, summed over labelled rows.
    """

    logits: Tensor
    weights: Tensor
    gate_loss: Tensor | None = None


class Fuser(nn.Module):
    """A task's teachers as one.

    Args:
        strategy: see `raydistill methods`.
        standings: of the teachers, in the order in which their logits come.
        num_classes: of the task.
        options: of all strategies.
        teacher_weights: of single teachers, for the two means; default 1.
    """

    kind: TaskKind = "classification"

    def __init__(
        self,
        strategy: FusionName,
        standings: Sequence[Standing],
        num_classes: int,
        options: FusionOptions,
        teacher_weights: Mapping[str, float],
    ) -> None:
        super().__init__()
        self.strategy, self.options = strategy, options
        self.teachers = [standing.teacher for standing in standings]
        scales = np.array([standing.scale for standing in standings])
        flat = scales < 1e-4  # says the same of everything: nothing to bring to a scale
        common = np.ones(len(scales))
        if options.normalize_scales and not flat.all():
            common = np.where(flat, 1.0, scales[~flat].mean() / np.where(flat, 1.0, scales))
        weights = np.array([teacher_weights.get(name, 1.0) for name in self.teachers])
        if strategy == "best":
            weights = np.array(by_accuracy([standing.accuracy for standing in standings]))
        # Neither parameters nor buffers: they come from the config, and ranks have nothing to tell each other.
        self._scales = torch.tensor(common, dtype=torch.float64)
        self._weights = torch.tensor(weights, dtype=torch.float64)
        self.gate = Gate(len(standings), num_classes) if strategy == "gate" and len(standings) > 1 else None
        self._trust = torch.zeros(len(standings), num_classes)
        self._rows = torch.zeros(num_classes)

    def forward(self, teacher_logits: Tensor, temperature: float, student_logits: Tensor, hard_labels: Tensor) -> Fused:
        """Fuse.

        Args:
            teacher_logits: [teachers, batch, classes]; a NaN row said nothing, `UNKNOWN` is a class that it does not
                know. Those that speak share the weight of those that do not.
            student_logits: [batch, classes].
            hard_labels: [batch] int64, −1: none.
        """
        logits, speaks = spoken(teacher_logits)
        if len(logits) == 1:
            return Fused(logits[0], speaks.to(logits.dtype))
        logits = self._at_common_scale(logits)
        gate_loss = None
        if self.gate is not None:
            weights = self.gate(logits, speaks)
            gate_loss = self.options.gate.weight * self.gate.loss(weights, logits, hard_labels)
            weights = weights.detach()
        elif self.strategy == "confidence":
            weights = by_confidence(logits, speaks, hard_labels)
        elif self.strategy == "entropy":
            weights = by_entropy(logits, speaks)
        elif self.strategy == "aekd":
            weights = self._by_gradients(logits, speaks, student_logits, temperature)
        else:
            weights = self._weights.to(logits).unsqueeze(1).expand(-1, logits.shape[1])
        weights = shares(weights.to(logits.dtype), speaks)
        if self.strategy == "mean_logits":
            fused = mean_of_logits(logits, weights)
        else:
            fused = mean_of_probabilities(logits, weights, temperature)
        if self.training and torch.is_grad_enabled():  # not where a step's rows are looked at once more
            self._remember(fused, weights)
        return Fused(fused, weights, gate_loss)

    def trust(self) -> dict[str, list[float]]:
        """By teacher: its mean weight on training rows of each class, as the fused teachers see it; nan: no row."""
        shown = (self._trust / self._rows).cpu()
        return {name: [float(value) for value in row] for name, row in zip(self.teachers, shown, strict=True)}

    def get_extra_state(self) -> dict[str, Tensor]:
        """Who was trusted so far goes into the checkpoint."""
        return {"trust": self._trust, "rows": self._rows}

    def set_extra_state(self, state: dict[str, Tensor]) -> None:
        """And comes back."""
        self._trust, self._rows = state["trust"], state["rows"]

    def _by_gradients(self, logits: Tensor, speaks: Tensor, student_logits: Tensor, temperature: float) -> Tensor:
        return by_gradients(logits, speaks, student_logits, temperature, self.options.aekd.most)

    def _at_common_scale(self, logits: Tensor) -> Tensor:
        known = ~unknown_classes(logits)
        scaled = logits * self._scales.to(logits).view(-1, 1, 1)
        # A class that is ruled out stays so, and does not become one that is not known.
        return torch.where(known, scaled.clamp_min(RULED_OUT), logits)

    def _remember(self, fused: Tensor, weights: Tensor) -> None:
        classes = fused.detach().argmax(dim=-1)
        if self._trust.device != classes.device:
            self._trust, self._rows = self._trust.to(classes.device), self._rows.to(classes.device)
        self._trust.index_add_(1, classes, weights.detach().to(self._trust.dtype))
        self._rows.index_add_(0, classes, torch.ones_like(classes, dtype=self._rows.dtype))


def without_labels(kind: TaskKind) -> tuple[FusionName, ...]:
    """The strategies of `WITHOUT_LABELS` that say different things of such a task."""
    return ("mean_logits", "best") if kind == "regression" else WITHOUT_LABELS


def make_fuser(distill: DistillConfig, task: str, standings: Sequence[Standing], num_classes: int) -> Fuser:
    """As the config wants it for a task.

    Args:
        standings: of its teachers, which also say of what kind the task is.
    """
    return _fuser(distill.fusion_of(task), distill, standings, num_classes)


def _fuser(strategy: FusionName, distill: DistillConfig, standings: Sequence[Standing], num_classes: int) -> Fuser:
    from raydistill.fusion.several import LabelFuser, NumberFuser

    kinds = {"classification": Fuser, "multilabel": LabelFuser, "regression": NumberFuser}
    return kinds[standings[0].kind](strategy, standings, num_classes, distill.fusion_options, distill.teacher_weights)


@torch.inference_mode()
def ensemble(
    distill: DistillConfig,
    task: str,
    standings: Sequence[Standing],
    logits: Mapping[str, NDArray[np.float16]],
    strategy: FusionName | None = None,
) -> NDArray[np.float32]:
    """What the teachers say together on a whole split, float32 [rows, classes].

    A strategy that needs labels or a student (`confidence`, `aekd`, `gate`) cannot speak here: the mean of
    probabilities stands for it.

    Args:
        logits: by teacher; all of `standings`.
        strategy: default: the config's.
    """
    name = strategy or distill.fusion_of(task)
    if name not in WITHOUT_LABELS:
        name = "mean_probabilities"
    stacked = torch.from_numpy(np.stack([logits[each.teacher] for each in standings]))
    _, num_rows, num_classes = stacked.shape
    fuser = _fuser(name, distill, standings, num_classes).eval()
    nothing = torch.zeros(num_rows, num_classes)
    none = torch.full((num_rows,), -1) if fuser.kind == "classification" else torch.full_like(nothing, torch.nan)
    fused = fuser(stacked, 1.0, nothing, none)
    result: NDArray[np.float32] = fused.logits.numpy()
    return result
