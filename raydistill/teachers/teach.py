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


def teach(
    config: Config, data: dict[str, TaskData], progress: Callable[[str], None], again: bool = False
) -> dict[str, Path]:
    """Train every teacher whose checkpoint is missing, one after the other on all cores.

    Args:
        data: by task.
        again: train those of the cache anew. A checkpoint that the config names is never touched.

    Returns:
        The teachers' checkpoints by name.

    Raises:
        TeacherError: a named checkpoint is missing, or a teacher has neither a checkpoint nor a `train` section.
    """
    folders = {name: teacher_folder(config, name) for name in config.teachers}
    for name, teacher in config.teachers.items():
        if folders[name].exists():
            continue
        if teacher.checkpoint is not None:
            raise TeacherError(f"teacher {name!r}: no checkpoint at {folders[name]}; mend teachers.{name}.checkpoint")
        if teacher.train is None:
            raise TeacherError(
                f"teacher {name!r} has neither checkpoint nor train; set teachers.{name}.checkpoint to its weights, or "
                f"teachers.{name}.train to train it"
            )
    for name, teacher in config.teachers.items():
        folder = folders[name]
        if teacher.checkpoint is not None or (folder.exists() and not again):
            progress(f"{name}: already there")
            continue
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f"{folder.name}.lock")):
            if folder.exists() and not again:
                continue
            _train(config, name, data[teacher.task], folder, progress)
    return folders


def _train(config: Config, name: str, data: TaskData, folder: Path, progress: Callable[[str], None]) -> None:
    teacher = config.teachers[name]
    assert teacher.train is not None
    torch.manual_seed(config.seed)
    network = build(name, teacher, data.domain, data.settings, len(data.label_names), None)
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    outcome = fit(name, network, data, teacher.train, unfinished, config.seed, lambda text: progress(f"{name}: {text}"))
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
    progress(f"{name}: trained, validation accuracy {outcome['validation_accuracy']:.3f}, {outcome['seconds']:.0f} s")
