"""The paths that a config holds."""

from __future__ import annotations

from pathlib import Path

from raydistill.config.models import Config
from raydistill.remote import is_relative, is_url

HUB = "hub:"


def places_in(config: Config) -> dict[str, str]:
    """Every path of a config by its dotted key. Names of a hub, of architectures and URLs are none."""
    found: dict[str, str | None] = {"cache_dir": config.cache_dir}
    if config.store.path is not None and not is_url(config.store.path):
        found["store.path"] = config.store.path
    for name, task in config.tasks.items():
        if task.data.source != "hub" and not is_url(task.data.path or ""):
            found[f"tasks.{name}.data.path"] = task.data.path
    for name, teacher in config.teachers.items():
        if teacher.checkpoint is not None and not teacher.checkpoint.startswith(HUB):
            found[f"teachers.{name}.checkpoint"] = teacher.checkpoint
        if teacher.loader == "transformers":
            found[f"teachers.{name}.model"] = _if_folder(teacher.model)
    student = config.student
    found["student.tokenizer"] = _if_folder(student.tokenizer)
    found["student.encoder.model"] = _if_folder(student.encoder.model)
    if student.classifier is not None and student.classifier.loader == "transformers":
        found["student.classifier.model"] = _if_folder(student.classifier.model)
    return {key: path for key, path in found.items() if path is not None}


def relative_in(config: Config) -> dict[str, str]:
    """Those of them, and of URLs, that are another place wherever the command is called."""
    urls = {"store.path": config.store.path} | {
        f"tasks.{name}.data.path": t.data.path for name, t in config.tasks.items()
    }
    relative = {key: path for key, path in places_in(config).items() if not path.startswith(("/", "~"))}
    return relative | {key: url for key, url in urls.items() if url is not None and is_url(url) and is_relative(url)}


def _if_folder(name: str) -> str | None:
    """A name that is meant as a folder, as those who load it see it."""
    return name if name.startswith(("/", "~", ".")) or Path(name).is_dir() else None
