"""Decoupled knowledge distillation."""

from __future__ import annotations

from torch import Tensor

from raydistill.losses.numerics import LOG_ZERO, log_probabilities, unknown_classes
from raydistill.losses.target import at_target, target_mask


def dkd(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: float,
    hard_labels: Tensor,
    alpha: float = 1.0,
    beta: float = 1.0,
) -> Tensor:
    """Decoupled distillation: how sure the teacher is of the target class, and how it ranks the others, apart.

        T² · Σ_rows α · TCKD + β · NCKD,
        TCKD = KL((p_t, 1 − p_t) ‖ (q_t, 1 − q_t)),   NCKD = KL(p̂ ‖ q̂),   p̂_c = p_c / (1 − p_t) for c ≠ t

    `forward_kl` is TCKD + (1 − p_t) · NCKD: there a sure teacher silences what it knows of the other classes. Here β
    gives that the same weight on every row. The target class t is the label, or the teacher's likeliest class on a
    row without one.

    Source: Zhao, Cui, Song, Qiu, Liang, "Decoupled Knowledge Distillation" (2022), sections 3.1 and 3.3.

    Use it when the teacher is very sure (p_t near 1) and has many classes to rank; search β, which the paper takes
    from 0.5 (ImageNet) to 8 (CIFAR-100): too much of it teaches noise, and on the demo's tasks 8 is worse than no
    teacher at all. With two classes only α counts.

    Args:
        student_logits: [batch, num_classes], raw.
        teacher_logits: [batch, num_classes], raw.
        temperature: > 0.
        hard_labels: [batch] int64; −1 marks a row without a label.
        alpha: weight of the target class's part, ≥ 0.
        beta: weight of the other classes' part, ≥ 0.

    Returns:
        A scalar, summed over rows.
    """
    unknown = unknown_classes(teacher_logits)
    target = target_mask(teacher_logits, unknown, hard_labels)
    log_p = log_probabilities(teacher_logits, temperature, unknown)
    log_q = log_probabilities(student_logits, temperature, unknown)

    # log(1 − p_t) as a sum over the others: 1 − p_t itself is 0 in float32 long before they are.
    log_p_target, log_p_rest = at_target(log_p, target), log_p.masked_fill(target, LOG_ZERO).logsumexp(dim=-1)
    log_q_target, log_q_rest = at_target(log_q, target), log_q.masked_fill(target, LOG_ZERO).logsumexp(dim=-1)
    tckd = log_p_target.exp() * (log_p_target - log_q_target) + log_p_rest.exp() * (log_p_rest - log_q_rest)

    log_p_others = log_probabilities(teacher_logits, temperature, unknown | target)
    log_q_others = log_probabilities(student_logits, temperature, unknown | target)
    nckd = (log_p_others.exp() * (log_p_others - log_q_others)).sum(dim=-1)
    return (alpha * tckd + beta * nckd).sum() * temperature**2
