"""Telling a row's own teacher features from those of the other rows."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from raydistill.losses.geometry import unit
from raydistill.losses.numerics import exact, matrix_product


def contrastive(student: Tensor, teacher: Tensor, temperature: float = 0.1) -> Tensor:
    """Cross-entropy of finding each student row's teacher row among the batch, and the reverse (InfoNCE), in nats.

        Σ_rows − ½ log softmax_j(⟨ŝ_i, t̂_j⟩ / τ)_i − ½ log softmax_j(⟨t̂_i, ŝ_j⟩ / τ)_i,   x̂ = x / ‖x‖

    The other rows of the batch are the negatives, in place of the paper's memory of the whole training set; both
    directions, as there, averaged. At chance it is log(batch) a row, so that a batch of one teaches nothing.

    Source: Tian, Krishnan, Isola, "Contrastive Representation Distillation" (2020), section 3; the estimate is of
    van den Oord, Li, Vinyals, "Representation Learning with Contrastive Predictive Coding" (2018), equation 4.

    Use it when batches are large (64 rows or more) and classes many: rows of one class are negatives of each other
    here, which with few classes works against the task.

    Args:
        student: [batch, channels], projected.
        teacher: [batch, channels].
        temperature: τ > 0, of the cosines; not the temperature of the soft loss.

    Returns:
        A scalar: batch × the mean over rows, so that the caller can divide by a count of rows.
    """
    assert student.shape == teacher.shape
    cosines = matrix_product(unit(exact(student), 1), unit(exact(teacher), 1).T) / temperature
    own = torch.arange(len(cosines), device=cosines.device)
    return 0.5 * (F.cross_entropy(cosines, own, reduction="sum") + F.cross_entropy(cosines.T, own, reduction="sum"))
