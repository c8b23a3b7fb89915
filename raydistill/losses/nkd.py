"""Normalised knowledge distillation."""

from __future__ import annotations

from torch import Tensor

from raydistill.losses.numerics import log_probabilities, unknown_classes
from raydistill.losses.target import at_target, target_mask


def nkd(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float, hard_labels: Tensor, gamma: float = 1.5
) -> Tensor:
    """Normalised distillation: a soft cross-entropy on the target class, and one among the other classes.

        Σ_rows  − p_t log q_t  −  γ T² Σ_{c ≠ t} p̂_c log q̂_c

    with p, q at temperature 1 and p̂, q̂ the softmax over the classes other than t at temperature T: normalised, so that
    their sums agree and the student can match them. A cross-entropy: it is not 0 at agreement, and its first term
    always pushes the target class up. The target class t is as in `dkd`.

    Source: Yang et al., "From Knowledge Distillation to Self-Knowledge Distillation: A Unified Approach with
    Normalized Loss and Customized Soft Labels" (2023), section 3.

    Use it when rows have trusted labels and you want `dkd`'s idea with one weight to search instead of two; without
    labels its first term reinforces the teacher's own mistakes.

    Args:
        student_logits: [batch, num_classes], raw.
        teacher_logits: [batch, num_classes], raw.
        temperature: > 0; of the other classes' part alone.
        hard_labels: [batch] int64; −1 marks a row without a label.
        gamma: weight of the other classes' part, ≥ 0.

    Returns:
        A scalar, summed over rows.
    """
    unknown = unknown_classes(teacher_logits)
    target = target_mask(teacher_logits, unknown, hard_labels)
    p_target = at_target(log_probabilities(teacher_logits, 1.0, unknown), target).exp()
    target_part = p_target * at_target(log_probabilities(student_logits, 1.0, unknown), target)
    p_others = log_probabilities(teacher_logits, temperature, unknown | target).exp()
    others_part = p_others * log_probabilities(student_logits, temperature, unknown | target)
    return -target_part.sum() - gamma * temperature**2 * others_part.sum()
