"""The loss against the labels."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from raydistill.losses.numerics import exact

NO_LABEL = -1


def hard_cross_entropy(student_logits: Tensor, hard_labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy summed over the labelled rows, in nats.

        Σ_labelled rows − log softmax(student)_label

    A sum, not a mean: the caller divides by the count over all ranks.

    Source: Bishop, "Pattern Recognition and Machine Learning" (2006), section 4.3.4.

    Use it when each row has exactly one class.

    Args:
        student_logits: [batch, num_classes], any float type; reduced in at least float32.
        hard_labels: [batch] int64; −1 marks a row without a label, which adds nothing.
        label_smoothing: share of each target that is spread evenly over all classes, 0 … 1.

    Returns:
        A scalar, summed over the labelled rows.
    """
    return F.cross_entropy(
        exact(student_logits), hard_labels, ignore_index=NO_LABEL, reduction="sum", label_smoothing=label_smoothing
    )  # fmt: skip
