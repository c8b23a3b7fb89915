"""Which class a row is about, for the losses that treat it apart."""

from __future__ import annotations

import torch
from torch import Tensor


def target_mask(teacher_logits: Tensor, unknown: Tensor, hard_labels: Tensor) -> Tensor:
    """True at one class a row, bool [batch, num_classes].

    It is the label; on a row without one (−1), or whose label no teacher knows, the teacher's likeliest class.

    Args:
        teacher_logits: [batch, num_classes], raw.
        unknown: [batch, num_classes] bool, from `numerics.unknown_classes`.
        hard_labels: [batch] int64; −1 marks a row without a label.
    """
    label = hard_labels.clamp_min(0).unsqueeze(-1)
    usable = (hard_labels.unsqueeze(-1) >= 0) & ~unknown.gather(-1, label)
    target = torch.where(usable, label, teacher_logits.argmax(dim=-1, keepdim=True))
    return torch.zeros_like(unknown).scatter(-1, target, True)


def at_target(values: Tensor, target: Tensor) -> Tensor:
    """The value at each row's target, [batch]."""
    # Not values[target]: indexing by a mask waits for the device.
    return values.masked_fill(~target, 0.0).sum(dim=-1)
