"""Classifiers of torchvision and transformers, by name and options: teachers are built so, and one-task students."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from torch import Tensor, nn

from raydistill.config.basics import Domain

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Parts of a body that only a head uses, or only pretraining: checkpoints often come without.
NEW_WITH_THE_HEAD = ("pooler.", "masked_spec_embed", "mask_token", "layernorm.")
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class TorchvisionClassifier(nn.Module):
    """A torchvision architecture under the keyword that preparers give; `num_channels` is what it sees."""

    def __init__(self, network: nn.Module, num_channels: int = 3) -> None:
        super().__init__()
        self.network, self.num_channels = network, num_channels

    def forward(self, pixel_values: Tensor) -> Tensor:
        """pixel_values [batch, channels, height, width] -> logits [batch, num_classes]."""
        logits: Tensor = self.network(pixel_values)
        return logits


def torchvision_classifier(
    model: str, options: dict[str, Any], grayscale: bool, num_classes: int
) -> TorchvisionClassifier:
    """An untrained one.

    Args:
        model: an architecture of torchvision; with `layers` among the options a ResNet of that many blocks a stage.
        options: of the architecture, and `num_channels`, `small_images` (ResNets), `layers`.
        grayscale: the pictures have one channel.

    Raises:
        ValueError, TypeError, KeyError: there is no such architecture, or it does not take these options.
    """
    import torchvision

    options = dict(options)
    num_channels = int(options.pop("num_channels", 1 if grayscale else 3))
    small_images = bool(options.pop("small_images", False))
    layers = options.pop("layers", None)
    if layers is not None:
        block = torchvision.models.resnet.BasicBlock
        network: nn.Module = torchvision.models.ResNet(block, list(layers), num_classes=num_classes, **options)
    else:
        network = torchvision.models.get_model(model, weights=None, num_classes=num_classes, **options)
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
    return TorchvisionClassifier(network, num_channels)


def transformers_class(domain: Domain) -> Any:
    """The Auto class of a domain's classifiers."""
    import transformers

    classes: dict[Domain, Any] = {
        "vision": transformers.AutoModelForImageClassification,
        "text": transformers.AutoModelForSequenceClassification,
        "speech": transformers.AutoModelForAudioClassification,
    }
    return classes[domain]


def transformers_config(source: str, options: dict[str, Any], num_classes: int, own_folder: bool = False) -> Any:
    """The config of a model type (`options` are its own), or of a folder or hub name (`options` change it).

    Args:
        own_folder: `source` is a checkpoint of ours, which has the options already.

    Raises:
        ValueError: see `check_plain`; and as transformers does.
    """
    import transformers

    check_plain(options)
    if not own_folder and source in transformers.CONFIG_MAPPING:
        return transformers.AutoConfig.for_model(source, **options, num_labels=num_classes)
    settings = transformers.AutoConfig.from_pretrained(
        source, trust_remote_code=False, **({} if own_folder else options)
    )
    check_plain({"attn_implementation": settings._attn_implementation, **settings.to_dict()}, whose=source)
    settings.num_labels = num_classes
    return settings


def check_plain(settings: Any, whose: str = "options") -> None:
    """A config is data: one that names code to load, of its own or a kernel from the hub, is refused.

    Raises:
        ValueError: names the key.
    """
    if isinstance(settings, dict):
        for key, value in settings.items():
            name = str(key)
            kernel = name.endswith("_implementation") and "/" in json.dumps(value, default=str)
            # `auto_map` of a model that transformers knows is there for others, and left alone.
            if kernel or (name == "trust_remote_code" and value):
                raise ValueError(
                    f"{whose}: {name} {value!r} would run code from the hub, which is not done here; leave it out, or "
                    "wrap the model in a `python` teacher of your own"
                )
            check_plain(value, whose)
    elif isinstance(settings, list | tuple):
        for value in settings:
            check_plain(value, whose)


@contextlib.contextmanager
def tensors_only() -> Iterator[None]:
    """Weights in the older format are unpickled as tensors and plain data; with more in them they are refused.

    Raises:
        ValueError: they hold more.
    """
    try:
        yield
    except pickle.UnpicklingError as error:
        raise ValueError("its weights are a pickle of more than tensors, not read: take safetensors") from error


def is_model_type(source: str) -> bool:
    """Not a folder or hub name: there are no weights to fetch."""
    import transformers

    return source in transformers.CONFIG_MAPPING


def from_transformers(module: nn.Module) -> TypeGuard[PreTrainedModel]:
    """Whether it is one of its models; where none was made, nobody waits seconds for their import."""
    models = sys.modules.get("transformers.modeling_utils")
    return models is not None and isinstance(module, models.PreTrainedModel)


def pretrained_classifier(domain: Domain, source: str, settings: Any) -> nn.Module:
    """A pretrained body under a new head. A body with a random layer would be a silent disaster: it is an error.

    Raises:
        ValueError: the weights lack some of the body's.
    """
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    with tensors_only():
        module, info = transformers_class(domain).from_pretrained(
            source, config=settings, ignore_mismatched_sizes=True, output_loading_info=True, trust_remote_code=False
        )
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
