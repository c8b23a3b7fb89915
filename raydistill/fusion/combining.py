"""From several teachers' logits and their weights to one soft target."""

from __future__ import annotations

import torch
from torch import Tensor

from raydistill.losses.numerics import UNKNOWN, exact, unknown_classes


def spoken(teacher_logits: Tensor) -> tuple[Tensor, Tensor]:
    """What was said, and by whom.

    Args:
        teacher_logits: [teachers, batch, classes]; NaN rows: said nothing. `UNKNOWN`: does not know that class.

    Returns:
        The logits without NaN, in float32 at least, and `speaks` [teachers, batch] bool.
    """
    logits = exact(teacher_logits)
    speaks = ~logits[..., 0].isnan()
    return logits.nan_to_num(nan=0.0), speaks


def shares(weights: Tensor, speaks: Tensor) -> Tensor:
    """The weights [teachers, batch] of those that speak, to a sum of 1; equal ones where all of them are 0."""
    weights = weights * speaks
    equal = speaks / speaks.sum(dim=0).clamp_min(1)
    total = weights.sum(dim=0)
    return torch.where(total > 0, weights / total.clamp_min(torch.finfo(weights.dtype).tiny), equal.to(weights.dtype))


def mean_of_logits(logits: Tensor, weights: Tensor) -> Tensor:
    """The weighted mean of logits: the normalised geometric mean of the teachers' distributions.

        z = Σ_k w_k z_k

    Where a teacher does not know all classes, it counts for those that it knows, by the log of its distribution over
    them; a class that nobody knows stays `UNKNOWN`. `distill.teacher_weights` fixes other weights than equal ones.

    Source: Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network" (2015), section 2: the geometric mean.

    Use it when the teachers are equally good and independent: a class that one of them rules out is ruled out. Of
    regression it is the mean of the numbers.

    Args:
        logits: [teachers, batch, classes], see `spoken`.
        weights: [teachers, batch], summing to 1: see `shares`.

    Returns:
        [batch, classes].
    """
    known = ~unknown_classes(logits)
    weights = weights.unsqueeze(-1)
    whole = (weights * logits).sum(dim=0)
    # Distributions over different classes share no zero point: each is brought to the sum 1 first.
    counted = weights * known
    total = counted.sum(dim=0)
    parts = (counted * logits.log_softmax(dim=-1).masked_fill(~known, 0.0)).sum(dim=0)
    partly = (parts / total.clamp_min(torch.finfo(total.dtype).tiny)).masked_fill(total == 0, UNKNOWN)
    all_known = (known | (weights == 0)).all(dim=-1).all(dim=0).unsqueeze(-1)
    return torch.where(all_known, whole, partly)


def mean_of_probabilities(logits: Tensor, weights: Tensor, temperature: float) -> Tensor:
    """The weighted mean of the tempered distributions, as logits that give it back at the same temperature.

        z = T log Σ_k w_k softmax(z_k / T)

    so that KL(softmax(z / T) ‖ q) has the gradient of Σ_k w_k KL(p_k ‖ q). Of teachers that know different classes,
    each counts for its own; a class that nobody knows stays `UNKNOWN`. `distill.teacher_weights` fixes other weights
    than equal ones.

    Source: Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network" (2015), section 2: the arithmetic
    mean; Lakshminarayanan, Pritzel, Blundell, "Simple and Scalable Predictive Uncertainty Estimation using Deep
    Ensembles" (NeurIPS 2017), section 2.4.

    Use it when teachers disagree for good reasons: what one of them believes in stays possible. Of multilabel tasks
    each label has two classes; of regression it is the mean of the numbers.

    Args:
        logits: [teachers, batch, classes], see `spoken`.
        weights: [teachers, batch], summing to 1.

    Returns:
        [batch, classes].
    """
    known = ~unknown_classes(logits)
    counted = weights.unsqueeze(-1) * known
    total = counted.sum(dim=0)
    tiny = torch.finfo(total.dtype).tiny
    log_weights = (counted / total.clamp_min(tiny)).clamp_min(tiny).log()
    log_p = (logits / temperature).log_softmax(dim=-1)
    # A weight of 0 must not let a far more certain teacher in through `tiny`.
    terms = (log_weights + log_p).masked_fill(counted == 0, torch.finfo(log_p.dtype).min)
    return (temperature * terms.logsumexp(dim=0)).clamp_min(UNKNOWN / 2).masked_fill(total == 0, UNKNOWN)
