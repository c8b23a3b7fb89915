"""What an encoder of transformers is built from: its whole config as plain data; and what can go wrong with one."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterator
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError

from raydistill.errors import ConfigError
from raydistill.networks import is_model_type, resolve_model

FAILURES = (
    OSError, ValueError, TypeError, LookupError, AttributeError, ImportError, RuntimeError, AssertionError,
    StrictDataclassError,
)  # fmt: skip
# What a model calls its dropout, of those that have one of this name.
DROPOUTS = (
    "hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout", "embedding_dropout",
    "mlp_dropout", "hidden_dropout",
)  # fmt: skip
PASSING = frozenset({"transformers_version", "architectures", "dtype", "torch_dtype", "_name_or_path"})


def encoder_config(
    model: str, options: dict[str, Any], width: int, depth: int, num_heads: int, dropout: float
) -> dict[str, Any]:
    """The whole config of an encoder, plain data from which `EncoderTrunk` builds it without looking anything up.

    Args:
        model: a model type, whose measures are the student's where `options` does not say otherwise; or a folder or
            hub name, whose config is then read (its weights: `EncoderTrunk.load_pretrained`).

    Raises:
        ConfigError: no such model, or an option that its config does not have.
    """
    import transformers

    try:
        if not is_model_type(model):
            settings = transformers.AutoConfig.from_pretrained(resolve_model(model), trust_remote_code=False)
            _check_options(model, options, type(settings), settings)
            settings.update(options)
        else:
            kind = transformers.CONFIG_MAPPING[model]
            plain = kind()
            _check_options(model, options, kind, plain)
            measures = {
                "hidden_size": width, "num_hidden_layers": depth, "num_attention_heads": num_heads,
                "intermediate_size": 4 * width, **{name: dropout for name in DROPOUTS if hasattr(plain, name)},
            }  # fmt: skip
            names = kind.attribute_map
            given = {names.get(name, name) for name in options}
            own = {name: value for name, value in measures.items() if names.get(name, name) not in given}
            settings = transformers.AutoConfig.for_model(model, **own, **options)
        # To JSON and back: a config holds what JSON does not, such as integer keys.
        values: dict[str, Any] = settings.to_diff_dict()
    except FAILURES as error:
        raise cannot(model, reason(error)) from error
    return {key: value for key, value in values.items() if key not in PASSING} | {"model_type": settings.model_type}


def _check_options(model: str, options: dict[str, Any], kind: Any, settings: Any) -> None:
    """A config of transformers takes any word, and drops it silently."""
    known = {*settings.to_dict(), *kind.attribute_map}
    for name in options:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise ValueError(f"its config has no {name!r}" + (f", did you mean {near[0]!r}?" if near else ""))


def reason(error: BaseException) -> str:
    """Its first line, or two where the first only announces the second."""
    lines = [line.strip() for line in str(error).strip().splitlines()] or [type(error).__name__]
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]


def cannot(model: str, why: str) -> ConfigError:
    """The error of a model that is no trunk."""
    return ConfigError(
        f"student.encoder: {model!r} cannot be a trunk: {why}; choose another model, or change its options"
    )


@contextlib.contextmanager
def undrawn() -> Iterator[None]:
    """What is drawn inside on the CPU, the random numbers outside do not notice."""
    with torch.random.fork_rng(devices=[]):
        yield


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """transformers without its remarks."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
