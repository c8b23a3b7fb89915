"""Where in the input the features are strong."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

from raydistill.errors import ConfigError
from raydistill.losses.geometry import unit
from raydistill.losses.numerics import exact


def attention_transfer(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared distance between the normalised maps of squared activations.

        Σ_rows ‖ Q_s / ‖Q_s‖₂ − Q_t / ‖Q_t‖₂ ‖²₂,   Q[position] = mean_channels activation²

    Channels need not agree, positions must: see `resample_positions`. Between 0 and 2 a row, whatever the number of
    positions. A map that is 0 everywhere has no direction and no gradient.

    Source: Zagoruyko and Komodakis, "Paying More Attention to Attention" (2017), section 3.1, equation 2, with the
    distance squared as in their code.

    Use it when student and teacher have a spatial or temporal layout in common (convolutions, patches, frames); with
    few positions, or tokens of different tokenizers, it says nothing.

    Args:
        student: [batch, positions, channels_s].
        teacher: [batch, positions, channels_t].

    Returns:
        A scalar: batch × the mean over rows, so that the caller can divide by a count of rows.
    """
    assert student.shape[:2] == teacher.shape[:2]
    student_map = unit(exact(student).square().mean(dim=-1), 1)
    teacher_map = unit(exact(teacher).square().mean(dim=-1), 1)
    return (student_map - teacher_map).square().sum()


def resample_positions(features: Tensor, num_positions: int, square: bool) -> Tensor:
    """Features at another number of positions, by adaptive average pooling: [batch, num_positions, channels].

    Args:
        features: [batch, positions, channels].
        num_positions: wanted; more than there are repeats some.
        square: positions are the rows of a square picture (both counts are square numbers) and not a sequence.

    Raises:
        ConfigError: `square`, and a count of positions is no square number.
    """
    channels_first = exact(features).transpose(1, 2)
    if not square:
        return F.adaptive_avg_pool1d(channels_first, num_positions).transpose(1, 2)
    side, wanted_side = math.isqrt(features.shape[1]), math.isqrt(num_positions)
    if side**2 != features.shape[1] or wanted_side**2 != num_positions:
        raise ConfigError(f"a square picture of {features.shape[1]} positions cannot be resampled to {num_positions}")
    picture = channels_first.unflatten(2, (side, side))
    return F.adaptive_avg_pool2d(picture, wanted_side).flatten(2).transpose(1, 2)
