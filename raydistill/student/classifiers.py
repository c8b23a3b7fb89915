"""A plain classifier of torchvision or transformers as the whole student of one task."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from raydistill.config.student import ClassifierConfig
from raydistill.data.preparing import Preparer, TextPreparer, VisionPreparer, WaveformPreparer
from raydistill.errors import ConfigError
from raydistill.networks import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    TorchvisionClassifier,
    check_plain,
    is_model_type,
    pretrained_classifier,
    resolve_model,
    torchvision_classifier,
    transformers_class,
    transformers_config,
)
from raydistill.student.shape import TaskShape

FAILURES = (OSError, ValueError, TypeError, LookupError, AttributeError, ImportError, RuntimeError)
PASSING = frozenset({"transformers_version", "architectures", "dtype", "torch_dtype", "_name_or_path"})


def classifier_config(config: ClassifierConfig, task: TaskShape, vocab_size: int, pad_token_id: int) -> dict[str, Any]:
    """Plain data from which `make_classifier` builds the network without looking anything up.

    Args:
        task: of whose pictures one without weights of its own takes size and channels.
        vocab_size, pad_token_id: of the student's tokenizer, for a text classifier without weights of its own.

    Raises:
        ConfigError: there is no such model, or it is for pictures only.
    """
    domain, num_classes = task.domain, len(task.label_names)
    try:
        if config.loader == "torchvision":
            if domain != "vision":
                raise ValueError(f"torchvision is for pictures, the task's domain is {domain}")
            return {"loader": config.loader, "model": config.model, "options": config.options}
        source, options = resolve_model(config.model), dict(config.options)
        if is_model_type(source) and domain == "text":
            options = {"vocab_size": vocab_size, "pad_token_id": pad_token_id, **options}
        if is_model_type(source) and domain == "vision":
            own = transformers_config(source, {}, num_classes)
            pictures = {"image_size": task.image_size, "num_channels": 1 if task.grayscale else 3}
            options = {name: value for name, value in pictures.items() if hasattr(own, name)} | options
        if domain == "speech":
            # Masks of ten frames do not fit a short clip, and a masked frame's vector is there in some steps only.
            options.setdefault("apply_spec_augment", False)
        values: dict[str, Any] = transformers_config(source, options, num_classes).to_diff_dict()
        model_type = transformers_config(source, options, num_classes).model_type
    except FAILURES as error:
        raise _cannot(config.model, error) from error
    kept = {key: value for key, value in values.items() if key not in PASSING and key not in ("id2label", "label2id")}
    return {"loader": config.loader, "config": {**kept, "model_type": model_type}}


def make_classifier(options: dict[str, Any], task: TaskShape) -> nn.Module:
    """The untrained network of `classifier_config`.

    Raises:
        ConfigError: it does not take these options.
    """
    import transformers

    num_classes = len(task.label_names)
    name = str(options.get("model") or options["config"]["model_type"])
    try:
        if options["loader"] == "torchvision":
            return torchvision_classifier(name, options["options"], task.grayscale, num_classes)
        own = {key: value for key, value in options["config"].items() if key != "model_type"}
        check_plain(own, whose="its config")
        settings = transformers.AutoConfig.for_model(options["config"]["model_type"], **own, num_labels=num_classes)
        module: nn.Module = transformers_class(task.domain).from_config(settings, trust_remote_code=False)
    except FAILURES as error:
        raise _cannot(name, error) from error
    for key, parameter in module.named_parameters():
        if key.endswith("masked_spec_embed"):
            parameter.requires_grad_(False)  # see apply_spec_augment
    return module


def load_pretrained(classifier: nn.Module, config: ClassifierConfig, task: TaskShape) -> None:
    """The weights of the folder or hub name that `config` names, if it names one; the head stays new.

    Raises:
        ConfigError: they are not there, or lack some of the body's.
    """
    if config.loader != "transformers" or is_model_type(resolve_model(config.model)):
        return
    try:
        loaded = pretrained_classifier(task.domain, resolve_model(config.model), classifier.config)
        classifier.load_state_dict(loaded.float().state_dict())
    except FAILURES as error:
        raise _cannot(config.model, error) from error


def answer(classifier: nn.Module, prepared: dict[str, Tensor]) -> Tensor:
    """Logits [batch, num_classes]."""
    output = classifier(**prepared)
    logits: Tensor = output if isinstance(output, Tensor) else output.logits
    return logits


def classifier_preparer(
    classifier: nn.Module, task: TaskShape, tokenizer: PreTrainedTokenizerFast | None, max_length: int
) -> Preparer:
    """As a teacher of the same kind prepares its views."""
    if task.domain == "text":
        if tokenizer is None:
            raise ConfigError("the student has no tokenizer; load it with from_pretrained")
        return TextPreparer(tokenizer, max_length)
    if task.domain == "speech":
        return WaveformPreparer(task.sample_rate, task.max_seconds)
    of: Any = classifier if isinstance(classifier, TorchvisionClassifier) else classifier.config
    num_channels = getattr(of, "num_channels", 3)
    mean, std = (IMAGENET_MEAN, IMAGENET_STD) if num_channels == 3 else ((0.5,), (0.5,))
    return VisionPreparer(task.image_size, mean, std, num_channels)


def _cannot(model: str, error: BaseException) -> ConfigError:
    why = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return ConfigError(f"student.classifier: cannot build {model!r}: {why}; check student.classifier")
