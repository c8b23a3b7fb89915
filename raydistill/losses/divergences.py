"""Divergences between the tempered distributions of teacher and student, computed from log-probabilities."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from raydistill.errors import ConfigError
from raydistill.losses.numerics import log_probabilities, unknown_classes


def _log_pair(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """log p of the teacher and log q of the student over the classes that a teacher knows."""
    unknown = unknown_classes(teacher_logits)
    log_p = log_probabilities(teacher_logits, temperature, unknown)
    return log_p, log_probabilities(student_logits, temperature, unknown)


def _kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p ‖ q) summed over all entries."""
    return (log_p.exp() * (log_p - log_q)).sum()


def forward_kl(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """T²-scaled KL divergence from the tempered teacher to the tempered student, in nats: Hinton's distillation.

        T² · Σ_rows Σ_c p_c (log p_c − log q_c),   p = softmax(teacher / T),  q = softmax(student / T)

    The factor T² keeps the gradient's size when T changes, so that a search over T does not silently search
    the weight of this loss. Zero only where the student agrees with the teacher on every class.

    Source: Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network" (2015), section 2.

    Use it when you have no reason for another: it is the baseline, and it covers every class that the teacher gives
    weight to; search its temperature before you try the others.

    Args:
        student_logits: [batch, num_classes], raw.
        teacher_logits: [batch, num_classes], raw: the temperature is applied here and nowhere else.
        temperature: > 0.

    Returns:
        A scalar, summed over rows.
    """
    log_p, log_q = _log_pair(student_logits, teacher_logits, temperature)
    return _kl(log_p, log_q) * temperature**2


def reverse_kl(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """T²-scaled KL divergence from the tempered student to the tempered teacher, in nats.

        T² · Σ_rows Σ_c q_c (log q_c − log p_c),   p = softmax(teacher / T),  q = softmax(student / T)

    Mode-seeking: the student pays for weight where the teacher has none, and little for missing a class that the
    teacher thinks possible.

    Source: Gu, Dong, Wei, Huang, "MiniLLM: Knowledge Distillation of Large Language Models" (2024), section 2.1.

    Use it when the student is too small to cover all that the teacher thinks possible and a confident right answer
    matters more than calibrated second choices; on few classes expect little difference from `kl`.

    Args:
        student_logits: [batch, num_classes], raw.
        teacher_logits: [batch, num_classes], raw.
        temperature: > 0.

    Returns:
        A scalar, summed over rows.
    """
    log_p, log_q = _log_pair(student_logits, teacher_logits, temperature)
    return _kl(log_q, log_p) * temperature**2


def jensen_shannon(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """T²-scaled Jensen-Shannon divergence of the tempered distributions, in nats.

        T² · Σ_rows ½ KL(p ‖ m) + ½ KL(q ‖ m),   m = ½ (p + q)

    Symmetric, and at most T² log 2 a row, so that no single row can dominate a batch. Near agreement it is a quarter
    of `forward_kl`.

    Source: Lin, "Divergence Measures Based on the Shannon Entropy" (1991), section IV; for distillation, Agarwal et
    al., "On-Policy Distillation of Language Models" (2024), section 2, with β = ½.

    Use it when some of the teacher's answers are confidently wrong or the soft labels are noisy: a bounded loss
    forgives them; give it about four times the weight of `kl` for the same pull near agreement.

    Args:
        student_logits: [batch, num_classes], raw.
        teacher_logits: [batch, num_classes], raw.
        temperature: > 0.

    Returns:
        A scalar, summed over rows.
    """
    log_p, log_q = _log_pair(student_logits, teacher_logits, temperature)
    log_m = torch.logaddexp(log_p, log_q) - math.log(2.0)
    return 0.5 * (_kl(log_p, log_m) + _kl(log_q, log_m)) * temperature**2


def skew_kl(student_logits: Tensor, teacher_logits: Tensor, temperature: float, skew: float = 0.1) -> Tensor:
    """T²-scaled KL divergence from the teacher to a mixture of the student with a little of the teacher, in nats.

        T² · Σ_rows KL(p ‖ (1 − λ) q + λ p),   p = softmax(teacher / T),  q = softmax(student / T),  λ = skew

    Bounded by −T² log λ a row, with smaller gradients than `forward_kl` where the student has no weight at all;
    λ = 0 is `forward_kl`. Near agreement it is (1 − λ)² of `forward_kl`.

    Source: Ko, Kim, Chen, Yun, "DistiLLM: Towards Streamlined Distillation for Large Language Models" (2024),
    section 3.1.

    Use it when `kl` has spikes early in training or with a very confident teacher; it was made for large
    vocabularies, and on ten classes its gain is small.

    Args:
        student_logits: [batch, num_classes], raw.
        teacher_logits: [batch, num_classes], raw.
        temperature: > 0.
        skew: the teacher's share of the mixture, 0 ≤ skew < 1.

    Returns:
        A scalar, summed over rows.

    Raises:
        ConfigError: `skew` is out of range.
    """
    if not 0.0 <= skew < 1.0:
        raise ConfigError(f"skew_kl: skew must be at least 0 and less than 1, not {skew}")
    log_p, log_q = _log_pair(student_logits, teacher_logits, temperature)
    log_mixture = log_q if skew == 0.0 else torch.logaddexp(log_q + math.log1p(-skew), log_p + math.log(skew))
    return _kl(log_p, log_mixture) * temperature**2
