"""Layers of the student that learn from a teacher's layers."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from raydistill.config.distill import FeatureConfig
from raydistill.config.models import Config
from raydistill.data.batch import ViewBatch
from raydistill.data.preparing import prepared
from raydistill.errors import ConfigError
from raydistill.losses.features.attention import resample_positions
from raydistill.losses.features.registry import FEATURE_LOSSES
from raydistill.losses.numerics import exact
from raydistill.student.model import Student

FeatureShapes = dict[str, tuple[int, ...]]
"""By name of a feature loss: the teacher's, without the batch; found by asking it about two rows."""


@dataclass(frozen=True)
class Heard:
    """A layer's tokens for one task: [batch, positions, channels], and which are real, [batch, positions] or None."""

    tokens: Tensor
    mask: Tensor | None

    def pooled(self) -> Tensor:
        """[batch, channels], in float32 at least."""
        tokens = exact(self.tokens)
        if tokens.ndim == 2 or self.mask is None or self.mask.shape != tokens.shape[:2]:
            return tokens if tokens.ndim == 2 else tokens.mean(dim=1)
        weight = self.mask.to(tokens.dtype).unsqueeze(-1)
        return (tokens * weight).sum(dim=1) / weight.sum(dim=1).clamp_min(1.0)


class StudentTaps:
    """Hears modules of a student, for each task that passes them.

    Args:
        layers: names of modules.
    """

    def __init__(self, student: Student, layers: set[str]) -> None:
        self._student, self._layers = student, layers
        self.heard: dict[tuple[str, str], Heard] = {}

    @contextlib.contextmanager
    def listening(self) -> Iterator[dict[tuple[str, str], Heard]]:
        """By (task, layer), what was heard while the student was called."""
        self.heard, modules = {}, dict(self._student.named_modules())
        with contextlib.ExitStack() as hooks:
            for layer in self._layers:
                hook = modules[layer].register_forward_hook(self._hook(layer))
                hooks.callback(hook.remove)
            yield self.heard

    def _hook(self, layer: str) -> Any:
        def hear(module: nn.Module, inputs: Any, output: Any) -> None:
            assert self._student.passing is not None
            task, mask = self._student.passing
            tokens = output
            if isinstance(output, tuple) and len(output) == 2 and getattr(output[1], "dtype", None) == torch.bool:
                tokens, mask = output  # of a stem
            while isinstance(tokens, tuple):
                tokens = tokens[0]
            self.heard[task, layer] = Heard(tokens, mask)

        return hear


class FeatureMatcher(nn.Module):
    """One layer of the student against one of a teacher.

    Args:
        config: which layers, and the loss.
        student_channels: of the student's layer.
        teacher_shape: (channels,) or (positions, channels).
        square: positions are a square picture's.
    """

    def __init__(
        self, config: FeatureConfig, student_channels: int, teacher_shape: tuple[int, ...], square: bool
    ) -> None:
        super().__init__()
        self.config, self.loss, self.square = config, FEATURE_LOSSES[config.loss], square
        self.projector = nn.Linear(student_channels, teacher_shape[-1]) if self.loss.projected else None

    def forward(self, heard: Heard, teacher: Tensor) -> Tensor:
        """The loss, summed over rows.

        Args:
            teacher: [batch, channels] or [batch, positions, channels].
        """
        if self.loss.positions:
            student = exact(heard.tokens)
            teacher = resample_positions(exact(teacher), student.shape[1], self.square)
            return self.loss.function(student, teacher)
        pooled = heard.pooled()
        if self.projector is not None:
            with torch.autocast(pooled.device.type, enabled=False):
                pooled = self.projector(pooled.to(self.projector.weight.dtype))
        return self.loss.function(pooled, exact(teacher))


def make_matchers(
    config: Config, student: Student, views: Mapping[str, ViewBatch], shapes: FeatureShapes
) -> dict[str, FeatureMatcher]:
    """A matcher for each feature loss, sized by what the student's layers give for some rows.

    Args:
        views: by task, two rows or more.
        shapes: of the teachers' features.

    Raises:
        ConfigError: the student has no such layer, or two layers cannot be held against each other; names both.
    """
    matchers = {}
    for name, feature in config.distill.features.items():
        task = config.teachers[feature.teacher].task
        heard = hear_layer(name, feature, student, task, views[task])
        where = (
            f"distill.features.{name}: student layer {feature.student_layer!r} {list(heard.tokens.shape[1:])} and "
            f"layer {feature.teacher_layer!r} of teacher {feature.teacher!r} {list(shapes[name])}"
        )
        domain = config.tasks[task].domain
        square = domain == "vision"
        if FEATURE_LOSSES[feature.loss].positions:
            if domain == "text":
                raise ConfigError(f"{where}: words of two tokenizers have no common positions; take another loss")
            positions = {"student": heard.tokens.shape[1], "teacher": shapes[name][0]}
            odd = [side for side, count in positions.items() if square and round(count**0.5) ** 2 != count]
            if odd:
                raise ConfigError(
                    f"{where}: {positions[odd[0]]} positions of the {odd[0]} are no square picture (a class token, "
                    "perhaps); name other layers, or take another loss than attention"
                )
        matchers[name] = FeatureMatcher(feature, heard.tokens.shape[-1], shapes[name], square)
    return matchers


@torch.no_grad()
def hear_layer(name: str, feature: FeatureConfig, student: Student, task: str, views: ViewBatch) -> Heard:
    """What the student's layer gives for some rows.

    Args:
        name: of the feature loss.

    Raises:
        ConfigError: the student has no such layer, does not pass it for the task, or it gives no features.
    """
    modules = [each for each, _ in student.named_modules() if each]
    if feature.student_layer not in modules:
        near = difflib.get_close_matches(feature.student_layer, modules, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}?" if near else f"among them are {', '.join(modules[:8])}"
        raise ConfigError(f"distill.features.{name}: the student has no layer {feature.student_layer!r}; {hint}")
    taps = StudentTaps(student, {feature.student_layer})
    with taps.listening() as heard:
        device = next(student.parameters()).device
        student({task: prepared(student.preparer(task), views, device)})
    found = heard.get((task, feature.student_layer))
    if found is None:
        raise ConfigError(
            f"distill.features.{name}: task {task!r} does not pass the student's layer {feature.student_layer!r}; name "
            "one that it passes"
        )
    wanted = (3,) if FEATURE_LOSSES[feature.loss].positions else (2, 3)
    tokens = found.tokens
    if not isinstance(tokens, Tensor) or tokens.ndim not in wanted or len(tokens) != len(views):
        shape = list(tokens.shape) if isinstance(tokens, Tensor) else type(tokens).__name__
        raise ConfigError(
            f"distill.features.{name}: the student's layer {feature.student_layer!r} gives {shape} for {len(views)} "
            "rows, and [batch, positions, channels] is wanted; name another one"
        )
    return found


def features_of(config: Config, task: str) -> dict[str, FeatureConfig]:
    """The feature losses of one task, by name."""
    features = config.distill.features
    return {name: each for name, each in features.items() if config.teachers[each.teacher].task == task}
