"""Directions and correlations of vectors that may be constant or zero: value and gradient stay finite there."""

from __future__ import annotations

import torch
from torch import Tensor

# Below these, a spread or a length is rounding, and a gradient through it would be that rounding divided by itself.
_ROUNDING = 64
_SMALLEST = 1e8


def _largest(values: Tensor, dims: tuple[int, ...]) -> Tensor:
    """The largest magnitude along `dims`, each kept as a dimension of 1; 0 where they are empty."""
    magnitude = values.detach().abs()
    return magnitude.amax(dims, keepdim=True) if values.numel() else magnitude.sum(dims, keepdim=True)


def rescaled(values: Tensor, *dims: int) -> Tensor:
    """Values over their largest magnitude along `dims`, which counts as a constant; values that are all 0 stay.

    For what does not depend on size: no square or product of the result over- or underflows.
    """
    size = _largest(values, dims)
    absent = size <= _SMALLEST * torch.finfo(values.dtype).tiny
    return values.masked_fill(absent, 0.0) / size.masked_fill(absent, 1.0)


def centred(values: Tensor, dim: int, excluded: Tensor | None = None, smallest: float = 0.0) -> Tensor:
    """Values less their mean along `dim`; excluded entries and constant vectors become 0, without gradient.

    Args:
        values: float32 or float64, any shape.
        dim: the dimension that the mean runs over.
        excluded: bool, the shape of `values`: entries that do not count.
        smallest: a vector that is nowhere further from its mean counts as constant, as does one within rounding.
    """
    if excluded is None:
        excluded = torch.zeros_like(values, dtype=torch.bool)
    kept = values.masked_fill(excluded, 0.0)
    num_kept = (~excluded).sum(dim, keepdim=True).clamp_min(1)
    rest = (kept - kept.sum(dim, keepdim=True) / num_kept).masked_fill(excluded, 0.0)
    rounding = _ROUNDING * torch.finfo(values.dtype).eps * _largest(kept, (dim,))
    constant = _largest(rest, (dim,)) <= rounding.clamp_min(smallest)
    return rest.masked_fill(constant, 0.0)


def unit(values: Tensor, dim: int) -> Tensor:
    """Vectors along `dim` scaled to length 1; a zero vector stays 0, without gradient."""
    scaled = rescaled(values, dim)
    square = (scaled * scaled).sum(dim, keepdim=True)
    return scaled / square.masked_fill(square == 0.0, 1.0).sqrt()


def cosine(left: Tensor, right: Tensor, dim: int) -> Tensor:
    """Cosine of the angle between vectors along `dim`, which is removed.

    0 where one of the two is zero and 1 where both are: they agree then. The gradient is 0 in both cases.
    """
    left_unit, right_unit = unit(left, dim), unit(right, dim)
    both_zero = ~(left_unit.any(dim) | right_unit.any(dim))
    return (left_unit * right_unit).sum(dim) + both_zero


def pearson(left: Tensor, right: Tensor, dim: int, excluded: Tensor | None = None) -> Tensor:
    """Pearson's correlation along `dim`, which is removed: the cosine of the centred vectors.

    0 where one of the two is constant and 1 where both are, without gradient: see `cosine`.

    Args:
        left: float32 or float64, any shape.
        right: the same shape.
        dim: the dimension that is correlated over.
        excluded: bool, the same shape: entries that do not count.
    """
    return cosine(centred(left, dim, excluded), centred(right, dim, excluded), dim)
