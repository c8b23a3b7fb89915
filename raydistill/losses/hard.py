"""The loss against the labels."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

NO_LABEL = -1


def hard_cross_entropy(student_logits: Tensor, hard_labels: Tensor) -> Tensor:
    """Cross-entropy summed over the labelled rows, in nats.

    Args:
        student_logits: [batch, num_classes], any float type; reduced in float32.
        hard_labels: [batch] int64; −1 marks a row without a label, which adds nothing.

    Returns:
        A scalar sum (not a mean: the caller divides by the count over all ranks).
    """
    return F.cross_entropy(student_logits.float(), hard_labels, ignore_index=NO_LABEL, reduction="sum")
