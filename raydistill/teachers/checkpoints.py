"""A teacher's weights on disk: where they are, saved whole, loaded strictly, labels matched by name."""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from raydistill.atomic import as_others, reason, replacing
from raydistill.config.data import LabelScales
from raydistill.config.models import Config
from raydistill.data.preparing import TextPreparer
from raydistill.errors import TeacherError, first_line
from raydistill.networks import from_transformers
from raydistill.teachers.models import Network

NOT_THE_BODY = {"_name_or_path", "transformers_version", "id2label", "label2id", "dtype", "architectures"}
HUB = "hub:"
WEIGHTS, CARD = "model.safetensors", "teacher.json"


def teacher_folder(config: Config, name: str) -> Path:
    """The teacher's checkpoint: the one that the config names, or its place in the cache."""
    teacher = config.teachers[name]
    if teacher.checkpoint is not None and teacher.checkpoint.startswith(HUB):
        return _from_hub(name, teacher.checkpoint.removeprefix(HUB))
    if teacher.checkpoint is not None:
        return Path(teacher.checkpoint).expanduser()
    # Whatever changes the weights; not where it runs or how it is asked.
    recipe = teacher.model_dump(
        include={"task", "loader", "model", "options", "image_size", "image_mean", "image_std",
                 "sample_rate", "max_length"}
    )  # fmt: skip
    recipe["train"] = None if teacher.train is None else teacher.train.model_dump(exclude={"placement", "seed"})
    if teacher.train is not None and teacher.train.seed is not None:
        recipe["seed"] = teacher.train.seed
    if teacher.label_names is not None:
        recipe["label_names"] = teacher.label_names
    data = config.tasks[teacher.task].content(leave_out=("num_views", "max_bad_fraction"))
    digest = hashlib.sha256(json.dumps([recipe, data], sort_keys=True).encode()).hexdigest()[:12]
    return Path(config.cache_dir).expanduser() / "teachers" / f"{name}-{digest}"


def _from_hub(name: str, repository: str) -> Path:
    """The hub's own cache of a repository, filled where it is not there."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repository, allow_patterns=["*.json", "*.txt", "*.model", WEIGHTS]))
    except (OSError, ValueError) as error:
        raise TeacherError(
            f"teacher {name!r}: cannot fetch {repository!r} from the hub ({first_line(error)}); check "
            f"teachers.{name}.checkpoint and the network"
        ) from error


def save_teacher(network: Network, folder: Path, card: dict[str, Any]) -> None:
    """Write weights, card and whatever `transformers` needs; the folder appears whole or not at all."""
    try:
        with replacing(folder) as temporary:
            temporary.mkdir()
            # Clones: safetensors refuses tensors that share memory, as tied weights do.
            weights = {
                key: value.detach().cpu().contiguous().clone() for key, value in network.module.state_dict().items()
            }
            save_file(weights, temporary / WEIGHTS)
            as_others(temporary / WEIGHTS)
            settings = getattr(network.module, "config", None)
            if settings is not None and hasattr(settings, "save_pretrained"):
                settings.id2label = dict(enumerate(card["label_names"]))
                settings.label2id = {label: index for index, label in enumerate(card["label_names"])}
                settings.save_pretrained(temporary)
            if isinstance(network.prepare, TextPreparer):
                network.prepare.tokenizer.save_pretrained(temporary)
            (temporary / CARD).write_text(json.dumps(card, indent=1), encoding="utf-8")
    except OSError as error:
        raise TeacherError(
            f"cannot write the teacher to {folder} ({reason(error)}); free some space or set cache_dir"
        ) from error


def no_weights(config: Config, name: str, path: Path) -> TeacherError:
    """The error of a process that does not find them: it may run on another node than the command."""
    key = f"teachers.{name}.checkpoint"
    fix = (
        f"train it with `raydistill teach`, set {key}, or put cache_dir, where trained teachers lie, on storage that "
        "every node sees" if config.teachers[name].checkpoint is None else
        f"mend {key}, or put it on storage that every node sees"
    )  # fmt: skip
    return TeacherError(f"teacher {name!r}: no weights at {path} on node {socket.gethostname()}; {fix}")


def load_weights(name: str, module: torch.nn.Module, path: Path) -> None:
    """Strictly: a weight too few or too many is an error, never a silent random layer.

    Args:
        path: a safetensors file, or a folder with `model.safetensors`.
    """
    file = path / WEIGHTS if path.is_dir() else path
    if not file.is_file():
        raise TeacherError(
            f"teacher {name!r}: no weights at {file}; set teachers.{name}.checkpoint or remove it to train"
        )
    try:
        weights = load_file(file)
    except (SafetensorError, OSError) as error:
        raise TeacherError(f"teacher {name!r}: {file} is not a readable safetensors file ({error})") from error
    own = module.state_dict()
    if not set(weights) & set(own):
        # Plain torchvision checkpoints have no wrapper's prefix.
        weights = {f"network.{key}": value for key, value in weights.items()}
    missing, unexpected = sorted(set(own) - set(weights)), sorted(set(weights) - set(own))
    misshapen = [key for key in own if key in weights and own[key].shape != weights[key].shape]
    problems = [
        f"{len(keys)} {what} ({', '.join(keys[:3])}{', …' if len(keys) > 3 else ''})"
        for what, keys in (("missing", missing), ("unexpected", unexpected), ("of another shape", misshapen))
        if keys
    ]
    if problems and path.is_dir() and _load_converted(module, path):
        return
    if problems:
        raise TeacherError(
            f"teacher {name!r}: the weights in {file} do not fit {type(module).__name__}: {'; '.join(problems)}; "
            f"check teachers.{name}.model and options"
        )
    module.load_state_dict(weights, strict=True)


def _load_converted(module: torch.nn.Module, folder: Path) -> bool:
    """Whether `transformers` itself finds every weight: it writes some architectures' under their older names."""
    if not from_transformers(module) or not (folder / "config.json").is_file():
        return False
    try:
        kind: Any = type(module)
        loaded, info = kind.from_pretrained(folder, config=module.config, output_loading_info=True)
    except (OSError, RuntimeError, ValueError):
        return False
    if info["missing_keys"] or info["unexpected_keys"] or info["mismatched_keys"]:
        return False
    module.load_state_dict(loaded.state_dict(), strict=True)
    return True


def checkpoint_labels(path: Path, stated: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """The checkpoint's label order: its card's, its `config.json`'s, or the one that the config states."""
    if stated is not None:
        return stated
    if path.is_dir() and (path / CARD).is_file():
        return tuple(json.loads((path / CARD).read_text(encoding="utf-8"))["label_names"])
    if path.is_dir() and (path / "config.json").is_file():
        id2label = json.loads((path / "config.json").read_text(encoding="utf-8")).get("id2label")
        if id2label:
            return tuple(id2label[key] for key in sorted(id2label, key=int))
    return None


def checkpoint_scales(path: Path, label_names: Sequence[str]) -> LabelScales:
    """What the checkpoint's card says of the units of its numbers; without a card they are the user's own."""
    card = path / CARD
    content = json.loads(card.read_text(encoding="utf-8")) if path.is_dir() and card.is_file() else {}
    scales = content.get("label_scales", {})
    return tuple((float(mean), float(deviation)) for mean, deviation in (scales.get(n, (0, 1)) for n in label_names))


def match_labels(
    name: str,
    task: str,
    teacher_labels: tuple[str, ...] | None,
    task_labels: tuple[str, ...],
    partial: bool = False,
    fewest: int = 2,
) -> NDArray[np.int64]:
    """Columns of the teacher's logits in the task's order; −1 for a class that the teacher does not know.

    Args:
        partial: the names may differ, as long as there are some in common. Classes that the task does not have are
            left out.
        fewest: names in common.

    Raises:
        TeacherError: the names differ (both lists are shown), or the checkpoint does not tell its order.
    """
    if teacher_labels is None:
        raise TeacherError(
            f"teacher {name!r}: its checkpoint does not name its labels; state their order in "
            f"teachers.{name}.label_names (task {task!r} has {list(task_labels)})"
        )
    common = [label for label in task_labels if label in teacher_labels]
    doubled = len(set(teacher_labels)) < len(teacher_labels)
    if doubled or len(common) < fewest or (set(teacher_labels) != set(task_labels) and not partial):
        hint = "" if doubled or partial or len(common) < fewest else (
            f"; if it is meant to teach {common} only, set teachers.{name}.partial_labels=true"
        )  # fmt: skip
        raise TeacherError(
            f"teacher {name!r}: its labels {list(teacher_labels)} are not those of task {task!r} {list(task_labels)}; "
            f"state the right names in teachers.{name}.label_names or tasks.{task}.data.label_names{hint}"
        )
    return np.array(
        [teacher_labels.index(label) if label in teacher_labels else -1 for label in task_labels], dtype=np.int64
    )


def fingerprint(network: Network, columns: NDArray[np.int64], precision: str, units: bytes = b"") -> str:
    """SHA-256 of weights, preparation, label order, number format and units: the teacher's part of a soft label's
    key."""
    digest = hashlib.sha256(columns.tobytes() + precision.encode() + units)
    prepare: Any = network.prepare
    digest.update(json.dumps([type(prepare).__name__, prepare.to_json()], sort_keys=True).encode())
    if isinstance(prepare, TextPreparer):
        backend = getattr(prepare.tokenizer, "backend_tokenizer", None)
        digest.update(
            (backend.to_str() if backend else json.dumps(prepare.tokenizer.get_vocab(), sort_keys=True)).encode()
        )
    # The same weights in another body say something else.
    digest.update(repr(network.module).encode())
    if from_transformers(network.module):
        settings = network.module.config.to_dict()
        known = {key: value for key, value in settings.items() if key not in NOT_THE_BODY}
        digest.update(json.dumps(known, sort_keys=True, default=str).encode())
    for key, value in sorted(network.module.state_dict().items()):
        digest.update(key.encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
