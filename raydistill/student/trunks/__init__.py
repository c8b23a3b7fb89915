"""The shared part of a student, of several kinds. All take tokens and a mask, and give tokens of the same shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import nn

from raydistill.student.trunks.dense import DenseTrunk
from raydistill.student.trunks.experts import ExpertsTrunk
from raydistill.student.trunks.reformer import ReformerTrunk
from raydistill.student.trunks.transformers import EncoderTrunk

if TYPE_CHECKING:
    from raydistill.student.shape import StudentShape

# A new kind is a file beside these, an entry here, and its options in `config/student.py` and `shape.py`.
TRUNKS: dict[str, Callable[..., nn.Module]] = {
    "dense": DenseTrunk,
    "experts": ExpertsTrunk,
    "reformer": ReformerTrunk,
    "transformers": EncoderTrunk,
}


def make_trunk(shape: StudentShape) -> nn.Module:
    """The trunk that a shape describes, with `forward(tokens [batch, length, width], mask [batch, length] or None)`.

    Raises:
        ConfigError: it cannot be built.
    """
    return TRUNKS[shape.trunk](shape.width, shape.depth, shape.num_heads, shape.dropout, **shape.trunk_options)
