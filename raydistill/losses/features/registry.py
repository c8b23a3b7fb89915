"""Every feature loss, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from raydistill.losses.features.attention import attention_transfer
from raydistill.losses.features.cka import cka
from raydistill.losses.features.contrastive import contrastive
from raydistill.losses.features.hint import hint
from raydistill.losses.features.rkd import rkd_angle, rkd_distance
from raydistill.losses.features.similarity import similarity_preserving


@dataclass(frozen=True)
class FeatureLoss:
    """A loss between features of student and teacher, and what it needs.

    Attributes:
        function: (student, teacher, **options) -> scalar, batch × its value.
        projected: both need the same number of channels: the student's go through a projector.
        positions: features keep their positions, [batch, positions, channels]; otherwise they are pooled to
            [batch, channels].
    """

    function: Callable[..., Tensor]
    projected: bool = False
    positions: bool = False


FEATURE_LOSSES: dict[str, FeatureLoss] = {
    "hint": FeatureLoss(hint, projected=True),
    "attention": FeatureLoss(attention_transfer, positions=True),
    "rkd_distance": FeatureLoss(rkd_distance),
    "rkd_angle": FeatureLoss(rkd_angle),
    "similarity": FeatureLoss(similarity_preserving),
    "cka": FeatureLoss(cka),
    "contrastive": FeatureLoss(contrastive, projected=True),
}
