"""Distillation from a stronger teacher: relations instead of values."""

from __future__ import annotations

from torch import Tensor

from raydistill.losses.geometry import pearson
from raydistill.losses.numerics import log_probabilities, unknown_classes


def dist(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float, beta: float = 1.0, gamma: float = 1.0
) -> Tensor:
    """Correlation distances of the tempered probabilities, along classes and along the batch (DIST).

        batch · ( β · mean_rows [1 − ρ(q_row, p_row)]  +  γ · mean_classes [1 − ρ(q_class, p_class)] )

    with ρ Pearson's correlation: over the classes of a row (inter-class), and over the rows of the batch for a class
    (intra-class). Only relations are matched, not values: an affine map of the student's probabilities costs nothing.
    No factor T²: a correlation has no scale, so its gradient does not shrink as T grows. A row or column that is
    constant for both counts as agreeing, for one of them as uncorrelated; both without gradient, so that a batch
    of one has no intra-class part.

    Source: Huang, You, Wang, Qian, Xu, "Knowledge Distillation from A Stronger Teacher" (2022), section 4.

    Use it when the teacher is far larger than the student, or trained with strong augmentation, so that its exact
    probabilities are out of reach; it needs every logit and batches of a few dozen rows for its intra-class part.

    Args:
        student_logits: [batch, num_classes], raw.
        teacher_logits: [batch, num_classes], raw.
        temperature: > 0.
        beta: weight of the inter-class part, ≥ 0.
        gamma: weight of the intra-class part, ≥ 0.

    Returns:
        A scalar: batch × the value over the batch at hand, so that the caller can divide by a count of rows.
    """
    unknown = unknown_classes(teacher_logits)
    p = log_probabilities(teacher_logits, temperature, unknown).exp()
    q = log_probabilities(student_logits, temperature, unknown).exp()
    inter = (1.0 - pearson(q, p, 1, unknown)).sum()
    num_known = (~unknown).any(dim=0).sum().clamp_min(1)
    intra = (1.0 - pearson(q, p, 0, unknown)).sum() / num_known
    return beta * inter + gamma * len(p) * intra
