"""Relational knowledge distillation: the shape of a batch's cloud of points."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from raydistill.losses.geometry import rescaled, unit
from raydistill.losses.numerics import exact, matrix_product


def _distances(points: Tensor) -> Tensor:
    """Distances of all pairs over their mean, [batch, batch]; all 0 where the points coincide."""
    num_points = len(points)
    # Not by products: ‖a‖² + ‖b‖² − 2ab loses all digits of a small distance, and its root's gradient explodes.
    scaled = rescaled(points, 0, 1)
    distance = torch.cdist(scaled, scaled, compute_mode="donot_use_mm_for_euclid_dist")
    mean = distance.sum() / max(1, num_points * (num_points - 1))
    return distance / mean.masked_fill(mean == 0.0, 1.0)


def _cosines(points: Tensor) -> Tensor:
    """[vertex, batch, batch]: the cosine of the angle at the vertex between the ways to two other points."""
    directions = unit(points.unsqueeze(0) - points.unsqueeze(1), 2)
    return matrix_product(directions, directions.transpose(1, 2))


def rkd_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Huber loss between the distances of all pairs of rows, each in units of their mean.

        batch · mean_{i ≠ j} ℓ( ‖s_i − s_j‖ / μ_s,  ‖t_i − t_j‖ / μ_t ),   μ = mean_{i ≠ j} ‖x_i − x_j‖,
        ℓ(x, y) = ½ (x − y)² if |x − y| ≤ 1, else |x − y| − ½

    Only the shape of the cloud counts: not its place, rotation or size, and channels need not agree. 0 for a single
    row.

    Source: Park, Kim, Lu, Cho, "Relational Knowledge Distillation" (2019), section 3.2.1.

    Use it when features are used as an embedding (retrieval, nearest neighbours) and channels differ, usually
    together with `rkd_angle` (the paper gives that one twice the weight); few rows a batch give noisy relations.

    Args:
        student: [batch, channels_s].
        teacher: [batch, channels_t].

    Returns:
        A scalar: batch × the value over the batch at hand, so that the caller can divide by a count of rows.
    """
    each = F.smooth_l1_loss(_distances(exact(student)), _distances(exact(teacher)), reduction="sum")
    return each / max(1, len(student) - 1)


def rkd_angle(student: Tensor, teacher: Tensor) -> Tensor:
    """Huber loss between the cosines of the angles of all triples of rows.

        batch · mean_{i ≠ j ≠ k ≠ i} ℓ( cos ∠ s_i s_j s_k,  cos ∠ t_i t_j t_k )

    with ℓ as in `rkd_distance`. Memory grows with batch² · channels and work with batch³ · channels. 0 for fewer than
    three rows.

    Source: Park, Kim, Lu, Cho, "Relational Knowledge Distillation" (2019), section 3.2.2.

    Use it when features are used as an embedding, with or without `rkd_distance`; it is dear above some 256 rows a
    micro-batch.

    Args:
        student: [batch, channels_s].
        teacher: [batch, channels_t].

    Returns:
        A scalar: batch × the value over the batch at hand, so that the caller can divide by a count of rows.
    """
    num_rows = len(student)
    # i = k: an angle of 0 for both, but of a pair of equal rows the cosine is undefined.
    same = torch.eye(num_rows, dtype=torch.bool, device=student.device)
    each = F.smooth_l1_loss(_cosines(exact(student)), _cosines(exact(teacher)), reduction="none")
    return each.masked_fill(same, 0.0).sum() / max(1, (num_rows - 1) * (num_rows - 2))
