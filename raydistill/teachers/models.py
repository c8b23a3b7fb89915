"""How a teacher's network is built: one visible dict from the config's `loader` to a function."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from raydistill.config.basics import Domain
from raydistill.config.data import DataConfig, TaskKind
from raydistill.config.models import TeacherConfig
from raydistill.data.preparing import Preparer, TextPreparer, VisionPreparer, WaveformPreparer
from raydistill.errors import TeacherError
from raydistill.networks import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    is_model_type,
    pretrained_classifier,
    resolve_model,
    torchvision_classifier,
    transformers_class,
    transformers_config,
)

PROBLEM_TYPES: dict[TaskKind, str] = {"multilabel": "multi_label_classification", "regression": "regression"}


@dataclass
class Network:
    """A network and what feeds it: `forward(**prepare(views))` gives logits [batch, num_classes] or an object that
    has them as `logits`."""

    module: nn.Module
    prepare: Preparer

    def logits(self, prepared: dict[str, Tensor]) -> Tensor:
        """Logits [batch, num_classes] of prepared inputs."""
        output = self.module(**prepared)
        logits: Tensor = output if isinstance(output, Tensor) else output.logits
        return logits


def build(
    name: str,
    config: TeacherConfig,
    domain: Domain,
    data: DataConfig,
    num_classes: int,
    folder: Path | None,
    kind: TaskKind = "classification",
) -> Network:
    """An untrained (or, for a pretrained `model`, half trained) network with its preparation.

    Args:
        num_classes: of its outputs, which of other kinds are labels or numbers.
        folder: a checkpoint's, whose own config and tokenizer are then used; None when there is none yet.

    Raises:
        TeacherError: unknown architecture, options that it does not take, a folder that is not there.
    """
    try:
        if config.loader == "torchvision":
            return _torchvision(config, data, num_classes)
        if config.loader == "transformers":
            return _transformers(config, domain, data, num_classes, folder, kind)
        return _python(config, domain, data, num_classes)
    except (OSError, ValueError, TypeError, LookupError, AttributeError, ImportError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise TeacherError(
            f"teacher {name!r}: cannot build {config.loader} model {config.model!r}: {reason}; check teachers.{name}"
        ) from error


def _vision_preparer(config: TeacherConfig, data: DataConfig, num_channels: int) -> VisionPreparer:
    mean, std = (IMAGENET_MEAN, IMAGENET_STD) if num_channels == 3 else ((0.5,), (0.5,))
    return VisionPreparer(
        config.image_size or data.image_size, config.image_mean or mean, config.image_std or std, num_channels
    )


def _torchvision(config: TeacherConfig, data: DataConfig, num_classes: int) -> Network:
    module = torchvision_classifier(config.model, config.options, data.grayscale, num_classes)
    return Network(module, _vision_preparer(config, data, module.num_channels))


def _transformers(
    config: TeacherConfig, domain: Domain, data: DataConfig, num_classes: int, folder: Path | None, kind: TaskKind
) -> Network:
    import transformers

    source = str(folder) if folder else resolve_model(config.model)
    settings = transformers_config(source, config.options, num_classes, own_folder=folder is not None)
    if kind != "classification":  # of one class of many it is the default, and what is there is left as it is
        settings.problem_type = PROBLEM_TYPES[kind]
    untrained = folder is not None or is_model_type(source)
    module = (
        transformers_class(domain).from_config(settings, trust_remote_code=False)
        if untrained
        else pretrained_classifier(domain, source, settings)
    )
    prepare: Preparer
    if domain == "text":
        tokenizer = transformers.AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        prepare = TextPreparer(tokenizer, config.max_length)
    elif domain == "speech":
        prepare = WaveformPreparer(config.sample_rate or data.sample_rate, data.max_seconds)
    else:
        prepare = _vision_preparer(config, data, getattr(settings, "num_channels", 3))
    return Network(module, prepare)


def _python(config: TeacherConfig, domain: Domain, data: DataConfig, num_classes: int) -> Network:
    module_name, _, attribute = config.model.partition(":")
    make: Callable[..., Any] = getattr(importlib.import_module(module_name), attribute)
    made = make(num_classes=num_classes, **config.options)
    if isinstance(made, Network):
        return made
    if domain == "vision":
        return Network(made, _vision_preparer(config, data, 1 if data.grayscale else 3))
    if domain == "speech":
        return Network(made, WaveformPreparer(config.sample_rate or data.sample_rate, data.max_seconds))
    raise ValueError("a text teacher of your own returns a raydistill.teachers.models.Network with its tokenizer")


def count_parameters(module: torch.nn.Module) -> int:
    """All of them."""
    return sum(parameter.numel() for parameter in module.parameters())
