"""Layers of teachers whose features travel beside their answers; kept in the store only where the config says so."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

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


@dataclass(frozen=True)
class KeptLayers:
    """Features that the store keeps beside a teacher's logits, as more columns of the same row.

    Attributes:
        shapes: by layer, without the batch.
    """

    shapes: tuple[tuple[Layer, tuple[int, ...]], ...]

    @cached_property
    def num_columns(self) -> int:
        """Numbers of a row."""
        return sum(math.prod(shape) for _, shape in self.shapes)

    def __str__(self) -> str:
        return ", ".join(f"{layer.name}{' with positions' * layer.positions}" for layer, _ in self.shapes)

    def pack(self, logits: NDArray[np.float16], features: Features) -> NDArray[np.float16]:
        """One row of everything: float16 [batch, num_classes + num_columns]."""
        columns = [features[layer].reshape(len(logits), -1) for layer, _ in self.shapes]
        return np.concatenate([logits, *columns], axis=1)

    def unpack(self, rows: NDArray[np.float16]) -> tuple[NDArray[np.float16], Features]:
        """The other way round."""
        start = rows.shape[1] - self.num_columns
        logits, features = rows[:, :start], {}
        for layer, shape in self.shapes:
            end = start + math.prod(shape)
            features[layer] = rows[:, start:end].reshape(len(rows), *shape)
            start = end
        return logits, features


def layers_kept(distill: DistillConfig, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, KeptLayers]:
    """By teacher, what there is to keep of its layers.

    Args:
        shapes: by name of a feature loss, without the batch.
    """
    found: dict[str, dict[Layer, tuple[int, ...]]] = {}
    for name, feature in distill.features.items():
        found.setdefault(feature.teacher, {})[layer_of(feature)] = shapes[name]
    return {teacher: KeptLayers(tuple(layers.items())) for teacher, layers in found.items()}
