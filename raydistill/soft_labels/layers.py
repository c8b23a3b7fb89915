"""Layers of teachers whose features travel beside their answers; they are computed anew each time, and never stored."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raydistill.config.distill import DistillConfig, FeatureConfig

WITH_POSITIONS = frozenset({"attention"})  # losses that compare where, not what


@dataclass(frozen=True)
class Layer:
    """A layer of a teacher whose features are wanted beside its answer.

    Attributes:
        name: of the module.
        positions: keep them, as [batch, positions, channels]; otherwise their mean, [batch, channels].
    """

    name: str
    positions: bool = False


Layers = tuple[Layer, ...]
Features = dict[Layer, NDArray[np.float16]]
NO_LAYERS: Layers = ()


def layer_of(feature: FeatureConfig) -> Layer:
    """What a feature loss wants to hear."""
    return Layer(feature.teacher_layer, feature.loss in WITH_POSITIONS)


def layers_asked(distill: DistillConfig) -> dict[str, Layers]:
    """By teacher, each layer once."""
    asked: dict[str, dict[Layer, None]] = {}
    for feature in distill.features.values():
        asked.setdefault(feature.teacher, {})[layer_of(feature)] = None
    return {teacher: tuple(layers) for teacher, layers in asked.items()}
