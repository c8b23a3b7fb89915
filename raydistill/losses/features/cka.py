"""Centred kernel alignment."""

from __future__ import annotations

from torch import Tensor

from raydistill.losses.geometry import centred, cosine, rescaled
from raydistill.losses.numerics import exact, matrix_product


def _gram(features: Tensor) -> Tensor:
    """Products of all pairs of centred rows, flat."""
    rows = rescaled(centred(features, 0), 0, 1)
    return matrix_product(rows, rows.T).flatten()


def cka(student: Tensor, teacher: Tensor) -> Tensor:
    """One minus the linear centred kernel alignment of the batch's features.

        batch · ( 1 − ‖ Yᵀ X ‖²_F / ( ‖ Xᵀ X ‖_F · ‖ Yᵀ Y ‖_F ) ),   X, Y: features less their mean over the batch

    Blind to rotation and size of either's features; channels need not agree. Features that do not vary in the batch
    agree if that is so for both, and are unrelated if for one; without gradient, so that a batch of one adds 0.

    Source: Kornblith, Norouzi, Lee, Hinton, "Similarity of Neural Network Representations Revisited" (2019),
    section 3.

    Use it when student and teacher are of different architectures and widths and no projector is wanted; the batch
    should be larger than a few dozen rows, as the alignment of few rows in many channels is biased towards 1.

    Args:
        student: [batch, channels_s].
        teacher: [batch, channels_t].

    Returns:
        A scalar: batch × the value over the batch at hand, so that the caller can divide by a count of rows.
    """
    return len(student) * (1.0 - cosine(_gram(exact(student)), _gram(exact(teacher)), 0))
