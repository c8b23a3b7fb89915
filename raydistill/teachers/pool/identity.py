"""Which runs may share a teacher: an identity that is known before anything is loaded."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
from functools import lru_cache
from pathlib import Path

from raydistill.config.models import Config
from raydistill.errors import TeacherError
from raydistill.teachers.pool.canary import canary_views
from raydistill.teachers.pool.messages import PoolSpec
from raydistill.teachers.pool.names import VERSION

# What a checkpoint's folder may hold besides (optimizers, logs, pictures) does not change an answer.
COUNTED = {".safetensors", ".json", ".txt", ".model"}
ANSWER_FIELDS = {
    "loader", "model", "options", "label_names", "image_size", "image_mean", "image_std", "sample_rate",
    "max_length", "precision",
    "max_batch_size",  # a product of another batch size may round differently
}  # fmt: skip
VIEW_FIELDS = {"image_size", "grayscale", "sample_rate", "max_seconds"}


def pool_id(config: Config, name: str, label_names: tuple[str, ...]) -> str:
    """SHA-256 of all that decides a teacher's answers, as far as a config and files tell it.

    The teacher's own fingerprint covers more (it sees the loaded weights); this one needs no load.

    Args:
        label_names: the task's, in head order.

    Raises:
        TeacherError: its checkpoint is not there.
    """
    # These import torch, which the supervisor must not: it only ever reads an id.
    from raydistill.networks import resolve_model
    from raydistill.teachers.checkpoints import teacher_folder

    teacher = config.teachers[name]
    task = config.tasks[teacher.task]
    checkpoint = teacher_folder(config, name)
    if not checkpoint.exists():
        raise TeacherError(
            f"teacher {name!r}: no weights at {checkpoint}; set teachers.{name}.checkpoint or remove it to train"
        )
    parts: list[object] = [
        VERSION,
        teacher.model_dump(mode="json", include=ANSWER_FIELDS),
        teacher.placement.num_gpus > 0,
        list(label_names),
        task.domain,
        task.data.model_dump(mode="json", include=VIEW_FIELDS),
        content_digest(checkpoint),
    ]
    if task.kind != "classification":
        parts.append([task.kind, task.data.model_dump(mode="json", include={"label_scales"})])
    if teacher.loader == "python":
        parts.append(_source_digest(teacher.model.partition(":")[0]))
    elif teacher.loader == "transformers":
        try:
            model = Path(resolve_model(teacher.model))
        except ValueError as error:
            raise TeacherError(f"teacher {name!r}: {error}; check teachers.{name}.model") from error
        # A local folder gives the body's shape and the tokenizer where the checkpoint is a bare file.
        parts.append(content_digest(model) if model.exists() else None)
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def pool_spec(config: Config, name: str, label_names: tuple[str, ...]) -> PoolSpec:
    """The pool that a run wants for one teacher.

    Raises:
        TeacherError: its checkpoint is not there.
    """
    return PoolSpec(
        id=pool_id(config, name, label_names),
        teacher=name,
        config=config,
        label_names=label_names,
        canary=canary_views(config.tasks[config.teachers[name].task]),
        import_path=tuple(str(Path(path).absolute()) for path in sys.path),
        runtime_env=_runtime_env(),
    )


def content_digest(path: Path) -> str:
    """SHA-256 of a file, or of the files of a folder that can change an answer."""
    files = [path] if path.is_file() else sorted(file for file in path.iterdir() if file.suffix in COUNTED)
    digest = hashlib.sha256()
    for file in files:
        if file.is_file():
            state = file.stat()
            digest.update(file.name.encode() if path.is_dir() else b"")
            digest.update(_file_digest(str(file), state.st_size, state.st_mtime_ns).encode())
    return digest.hexdigest()


# A sweep asks for the same gigabytes once a trial.
@lru_cache(maxsize=256)
def _file_digest(path: str, size_bytes: int, changed_ns: int) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _source_digest(module: str) -> str | None:
    """Of the module's own file; what it imports is not followed. None: the replica will say what is wrong."""
    try:
        found = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    if found is None or found.origin is None or not Path(found.origin).is_file():
        return None
    return hashlib.sha256(Path(found.origin).read_bytes()).hexdigest()


def _runtime_env() -> dict[str, object]:
    import ray

    return dict(ray.get_runtime_context().runtime_env) if ray.is_initialized() else {}
