"""Make the teachers that are not there yet."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from filelock import FileLock

from raydistill.config.models import Config
from raydistill.data.dataset import TaskData
from raydistill.errors import TeacherError
from raydistill.teachers.checkpoints import save_teacher, teacher_folder
from raydistill.teachers.fit import fit
from raydistill.teachers.models import build

Say = Callable[[str], None]


def untrained(config: Config, again: bool = False) -> list[str]:
    """The teachers that have to be trained before they can teach.

    Args:
        again: those of the cache too. A checkpoint that the config names is never touched.

    Raises:
        TeacherError: a named checkpoint is missing, or a teacher has neither a checkpoint nor a `train` section.
    """
    names = []
    for name, teacher in config.teachers.items():
        folder = teacher_folder(config, name)
        if teacher.checkpoint is not None:
            if not folder.exists():
                raise TeacherError(f"teacher {name!r}: no checkpoint at {folder}; mend teachers.{name}.checkpoint")
        elif again or not folder.exists():
            if teacher.train is None:
                raise TeacherError(
                    f"teacher {name!r} has neither checkpoint nor train; set teachers.{name}.checkpoint to its "
                    f"weights, or teachers.{name}.train to train it"
                )
            names.append(name)
    return names


def train_teacher(config: Config, name: str, data: TaskData, progress: Say, say: Say) -> None:
    """Train one teacher into its place in the cache; another process that does the same is waited for.

    Args:
        data: of its task.
        progress: hears passing messages.
        say: hears those to keep.
    """
    teacher, folder = config.teachers[name], teacher_folder(config, name)
    assert teacher.train is not None
    folder.parent.mkdir(parents=True, exist_ok=True)
    before = _made_at(folder)
    with FileLock(folder.with_name(f"{folder.name}.lock")):
        if _made_at(folder) != before:
            say(f"{name}: trained by another process")
            return
        torch.manual_seed(config.seed)
        network = build(name, teacher, data.domain, data.settings, len(data.label_names), None)
        unfinished = folder.with_name(f"{folder.name}.unfinished")
        outcome = fit(network, data, teacher.train, unfinished, config.seed, lambda text: progress(f"{name}: {text}"))
        card = {
            "name": name,
            "task": teacher.task,
            "loader": teacher.loader,
            "model": teacher.model,
            "options": teacher.options,
            "label_names": list(data.label_names),
            **outcome,
        }
        save_teacher(network, folder, card)
        shutil.rmtree(unfinished, ignore_errors=True)
    say(f"{name}: trained, validation accuracy {outcome['validation_accuracy']:.3f}, {outcome['seconds']:.0f} s")


def _made_at(folder: Path) -> int | None:
    return folder.stat().st_mtime_ns if folder.exists() else None
