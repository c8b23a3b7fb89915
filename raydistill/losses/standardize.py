"""Logits without their scale."""

from __future__ import annotations

import torch
from torch import Tensor

from raydistill.losses.geometry import centred, unit
from raydistill.losses.numerics import exact, unknown_classes

# In nats. A row flatter than this is uniform for every purpose, and its z-score's gradient (1 / σ) without bound.
_FLAT = 1e-4


def standardize(logits: Tensor) -> Tensor:
    """Z-score of each row's logits; a soft loss is then taken of student and teacher so standardised.

        z_c = (logit_c − mean) / σ,   σ² = mean_c (logit_c − mean)²

    The student need not reach the size of the teacher's logits, only their pattern: the temperature becomes one in
    units of a row's own spread. A row that is constant to 1e-4 becomes 0, without gradient. Unknown classes keep their
    value and do not count.

    Source: Sun, Ren, Li, Wang, Cao, "Logit Standardization in Knowledge Distillation" (2024), section 4.

    Use it when teachers of one task differ in how sharp their logits are, or the student is much smaller than they;
    search the temperature anew (2 is usual), and expect a student that is less well calibrated.

    Args:
        logits: [batch, num_classes], raw; of a student, after `numerics.mask_unknown`.

    Returns:
        [batch, num_classes], at least float32.
    """
    unknown = unknown_classes(logits)
    num_known = (~unknown).sum(dim=-1, keepdim=True)
    values = exact(logits)
    # A unit vector of n entries has a standard deviation of n^-½.
    scores = unit(centred(values, -1, unknown, smallest=_FLAT), -1) * num_known.to(values.dtype).sqrt()
    return torch.where(unknown, values, scores)
