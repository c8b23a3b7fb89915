"""The loss against the teachers' word."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def soft_kl_divergence(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """T²-scaled KL divergence from the tempered teacher to the tempered student, summed over rows, in nats.

        T² · Σ_rows Σ_c p_c (log p_c − log q_c),   p = softmax(teacher / T),  q = softmax(student / T)

    The factor T² keeps the gradient's size when T changes, so that a search over T does not silently search
    the weight of this loss. Source: Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network"
    (2015), section 2.

    Args:
        student_logits: [batch, num_classes], raw.
        teacher_logits: [batch, num_classes], raw: the temperature is applied here and nowhere else.
        temperature: > 0.
    """
    log_q = F.log_softmax(student_logits.float() / temperature, dim=-1)
    log_p = F.log_softmax(teacher_logits.float() / temperature, dim=-1)
    return F.kl_div(log_q, log_p, reduction="sum", log_target=True) * temperature**2
