"""Losses of binary and multi-label tasks: every label is a yes or no of its own."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from raydistill.losses.numerics import exact, mean_of_kept, unknown_classes


def soft_binary_cross_entropy(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """T²-scaled KL divergence between the yes-or-no distributions of teacher and student, label by label, in nats.

        Σ_rows mean_labels T² · [ p (log p − log q) + (1 − p) (log(1 − p) − log(1 − q)) ],
        p = σ(teacher / T),  q = σ(student / T)

    The cross-entropy less the teacher's own entropy: the same gradient, and 0 where the logits agree. Labels that no
    teacher knows do not count, on their row.

    Source: Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network" (2015), section 2, with each label a
    softmax over the two logits (z, 0).

    Use it when labels do not exclude one another, or there is a single yes-or-no label; for exactly one class of many
    use `kl`, which knows that the classes compete.

    Args:
        student_logits: [batch, num_labels], raw.
        teacher_logits: [batch, num_labels], raw.
        temperature: > 0.

    Returns:
        A scalar, summed over rows.
    """
    assert student_logits.shape == teacher_logits.shape
    unknown = unknown_classes(teacher_logits)
    student = exact(student_logits).masked_fill(unknown, 0.0) / temperature
    teacher = exact(teacher_logits).masked_fill(unknown, 0.0) / temperature
    log_p_yes, log_p_no = F.logsigmoid(teacher), F.logsigmoid(-teacher)
    yes = log_p_yes.exp() * (log_p_yes - F.logsigmoid(student))
    no = log_p_no.exp() * (log_p_no - F.logsigmoid(-student))
    return mean_of_kept(yes + no, unknown).sum() * temperature**2


def hard_binary_cross_entropy(student_logits: Tensor, hard_labels: Tensor) -> Tensor:
    """Cross-entropy of yes-or-no labels, in nats.

        Σ_rows mean_labels − [ y log σ(z) + (1 − y) log(1 − σ(z)) ]

    The mean of a row is over the labels that it has; a row without any adds nothing.

    Source: Cox, "The Regression Analysis of Binary Sequences" (1958), section 2.

    Use it when labels do not exclude one another; where nearly all are "no", expect to need a threshold other than ½.

    Args:
        student_logits: [batch, num_labels], raw.
        hard_labels: [batch, num_labels] float, 0 … 1; NaN marks a missing label.

    Returns:
        A scalar, summed over rows.
    """
    assert student_logits.shape == hard_labels.shape
    missing = hard_labels.isnan()
    logits = exact(student_logits)
    labels = hard_labels.to(logits.dtype).masked_fill(missing, 0.0)
    each = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    return mean_of_kept(each, missing).sum()
