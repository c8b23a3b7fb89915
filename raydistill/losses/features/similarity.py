"""Which rows of a batch excite the same features."""

from __future__ import annotations

from torch import Tensor

from raydistill.losses.geometry import rescaled, unit
from raydistill.losses.numerics import exact, matrix_product


def _similarities(features: Tensor) -> Tensor:
    """Products of all pairs of rows, [batch, batch], each row of them of length 1."""
    scaled = rescaled(features, 0, 1)
    return unit(matrix_product(scaled, scaled.T), 1)


def similarity_preserving(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared distance between the row-normalised matrices of the rows' inner products.

        batch · (1 / batch²) · ‖ G_s − G_t ‖²_F,   G = (X Xᵀ) with each row scaled to length 1

    Channels need not agree. Every row is compared with itself too, as in the paper, so that the value shrinks as
    the batch grows.

    Source: Tung and Mori, "Similarity-Preserving Knowledge Distillation" (2019), section 3.1.

    Use it when student and teacher differ in width and kind and the batch is large enough to hold several rows of a
    class; features should not be centred, as the products are not.

    Args:
        student: [batch, channels_s].
        teacher: [batch, channels_t].

    Returns:
        A scalar: batch × the value over the batch at hand, so that the caller can divide by a count of rows.
    """
    difference = _similarities(exact(student)) - _similarities(exact(teacher))
    return difference.square().sum() / max(1, len(student))
