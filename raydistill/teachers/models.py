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
from raydistill.config.data import DataConfig
from raydistill.config.models import TeacherConfig
from raydistill.data.preparing import Preparer, TextPreparer, VisionPreparer, WaveformPreparer
from raydistill.errors import TeacherError

# Parts of a body that only a head uses, or only pretraining: checkpoints often come without.
NEW_WITH_THE_HEAD = ("pooler.", "masked_spec_embed", "mask_token", "layernorm.")
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


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


class TorchvisionClassifier(nn.Module):
    """A torchvision architecture under the keyword that preparers give."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixel_values: Tensor) -> Tensor:
        """pixel_values [batch, channels, height, width] -> logits [batch, num_classes]."""
        logits: Tensor = self.network(pixel_values)
        return logits


def build(
    name: str, config: TeacherConfig, domain: Domain, data: DataConfig, num_classes: int, folder: Path | None
) -> Network:
    """An untrained (or, for a pretrained `model`, half trained) network with its preparation.

    Args:
        folder: a checkpoint's, whose own config and tokenizer are then used; None when there is none yet.

    Raises:
        TeacherError: unknown architecture, options that it does not take, a folder that is not there.
    """
    try:
        if config.loader == "torchvision":
            return _torchvision(config, data, num_classes)
        if config.loader == "transformers":
            return _transformers(config, domain, data, num_classes, folder)
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
    import torchvision

    options = dict(config.options)
    num_channels = int(options.pop("num_channels", 1 if data.grayscale else 3))
    small_images = bool(options.pop("small_images", False))
    layers = options.pop("layers", None)
    if layers is not None:
        block = torchvision.models.resnet.BasicBlock
        network: nn.Module = torchvision.models.ResNet(block, list(layers), num_classes=num_classes, **options)
    else:
        network = torchvision.models.get_model(config.model, weights=None, num_classes=num_classes, **options)
    if isinstance(network, torchvision.models.ResNet):
        width = network.conv1.out_channels
        if small_images:
            # A 7×7 stride-2 stem and a max-pool leave too little of a 28-pixel picture.
            network.conv1 = nn.Conv2d(num_channels, width, 3, stride=2, padding=1, bias=False)
            network.maxpool = nn.Identity()
        elif num_channels != 3:
            network.conv1 = nn.Conv2d(num_channels, width, 7, stride=2, padding=3, bias=False)
    elif num_channels != 3:
        raise ValueError(f"num_channels {num_channels} is for ResNets only; leave out data.grayscale")
    return Network(TorchvisionClassifier(network), _vision_preparer(config, data, num_channels))


def _transformers(
    config: TeacherConfig, domain: Domain, data: DataConfig, num_classes: int, folder: Path | None
) -> Network:
    import transformers

    classes: dict[Domain, Any] = {
        "vision": transformers.AutoModelForImageClassification,
        "text": transformers.AutoModelForSequenceClassification,
        "speech": transformers.AutoModelForAudioClassification,
    }
    source = str(folder) if folder else resolve_model(config.model)
    bare = folder is None and source in transformers.CONFIG_MAPPING
    if bare:
        settings = transformers.AutoConfig.for_model(source, **config.options, num_labels=num_classes)
    else:
        settings = transformers.AutoConfig.from_pretrained(source, **({} if folder else config.options))
        settings.num_labels = num_classes
    kind = classes[domain]
    module = kind.from_config(settings) if folder or bare else _pretrained(kind, source, settings)
    prepare: Preparer
    if domain == "text":
        tokenizer = transformers.AutoTokenizer.from_pretrained(source)
        prepare = TextPreparer(tokenizer, config.max_length)
    elif domain == "speech":
        prepare = WaveformPreparer(config.sample_rate or data.sample_rate, data.max_seconds)
    else:
        prepare = _vision_preparer(config, data, getattr(settings, "num_channels", 3))
    return Network(module, prepare)


def _pretrained(kind: Any, source: str, settings: Any) -> nn.Module:
    """A pretrained body under a new head. A body with a random layer would be a silent disaster: it is an error."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    module, info = kind.from_pretrained(source, config=settings, ignore_mismatched_sizes=True, output_loading_info=True)
    body = f"{module.base_model_prefix}."
    missing = [
        key
        for key in info["missing_keys"]
        if key.startswith(body) and not key.removeprefix(body).startswith(NEW_WITH_THE_HEAD)
    ]
    if missing:
        raise ValueError(f"its weights lack {len(missing)} of the body's ({', '.join(sorted(missing)[:3])}, …)")
    result: nn.Module = module
    return result


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


def resolve_model(model: str) -> str:
    """`package:FOLDER` (as `some_package:model`) becomes the folder inside the installed package."""
    if not model.startswith("package:"):
        return str(Path(model).expanduser()) if model.startswith(("~", "/", ".")) else model
    package, _, inside = model.removeprefix("package:").partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(
            f"the Python package {package!r} is not installed (pip install 'raydistill[demo]' has the demo's)"
        )
    return str(Path(next(iter(spec.submodule_search_locations))) / inside)


def count_parameters(module: torch.nn.Module) -> int:
    """All of them."""
    return sum(parameter.numel() for parameter in module.parameters())
