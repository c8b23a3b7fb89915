"""Every soft loss of single-label classification, by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from raydistill.errors import ConfigError
from raydistill.losses.dist import dist
from raydistill.losses.divergences import forward_kl, jensen_shannon, reverse_kl, skew_kl
from raydistill.losses.dkd import dkd
from raydistill.losses.mse import mse
from raydistill.losses.nkd import nkd
from raydistill.losses.numerics import mask_unknown
from raydistill.losses.standardize import standardize


@dataclass(frozen=True)
class SoftLoss:
    """A loss against the teachers' logits, and what it needs.

    Attributes:
        function: (student_logits, teacher_logits, temperature, [hard_labels,] **options) -> scalar, a sum over rows.
        needs_target: it also takes `hard_labels`, [batch] int64 with −1 for a row without a label.
        needs_every_logit: it cannot learn from top-k soft targets whose tail was spread evenly over the other
            classes. A probability-weighted loss hardly sees that tail; one that compares logits or relations with
            equal weight would teach the made-up values of the tail, and a row's mean and spread are made up too
            (so under standardisation every loss needs every logit).
    """

    function: Callable[..., Tensor]
    needs_target: bool = False
    needs_every_logit: bool = False

    @property
    def options(self) -> frozenset[str]:
        """Names of the keyword arguments that a config may set."""
        fixed = {"student_logits", "teacher_logits", "temperature", "hard_labels"}
        return frozenset(inspect.signature(self.function).parameters) - fixed


SOFT_LOSSES: dict[str, SoftLoss] = {
    "kl": SoftLoss(forward_kl),
    "reverse_kl": SoftLoss(reverse_kl),
    "js": SoftLoss(jensen_shannon),
    "skew_kl": SoftLoss(skew_kl),
    "dkd": SoftLoss(dkd, needs_target=True),
    "dist": SoftLoss(dist, needs_every_logit=True),
    "nkd": SoftLoss(nkd, needs_target=True),
    "mse": SoftLoss(mse, needs_every_logit=True),
}


def soft_loss(
    name: str,
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: float,
    hard_labels: Tensor,
    options: Mapping[str, float],
    standardized: bool,
) -> Tensor:
    """The soft loss of this name, over the classes that a teacher knows, summed over rows.

    Args:
        name: a key of `SOFT_LOSSES`.
        student_logits: [batch, num_classes], raw, any float type.
        teacher_logits: [batch, num_classes], raw; `numerics.UNKNOWN` where no teacher knows the class.
        temperature: > 0.
        hard_labels: [batch] int64; −1 marks a row without a label. Used where the loss needs a target.
        options: keyword arguments of the loss, by name.
        standardized: take the loss of standardised logits: see `standardize`.

    Raises:
        ConfigError: no such loss, or the loss has no such option.
    """
    if name not in SOFT_LOSSES:
        raise ConfigError(f"no soft loss {name!r}; there are {sorted(SOFT_LOSSES)}")
    loss = SOFT_LOSSES[name]
    if foreign := sorted(set(options) - loss.options):
        raise ConfigError(f"soft loss {name!r} has no option {foreign[0]!r}; it has {sorted(loss.options)}")
    student_logits = mask_unknown(student_logits, teacher_logits)
    if standardized:
        student_logits, teacher_logits = standardize(student_logits), standardize(teacher_logits)
    target = {"hard_labels": hard_labels} if loss.needs_target else {}
    return loss.function(student_logits, teacher_logits, temperature, **target, **options)
