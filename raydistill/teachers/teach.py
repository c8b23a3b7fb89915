"""Make the teachers that are not there yet."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from filelock import FileLock

from raydistill.config.models import Config
from raydistill.data.dataset import TaskData
from raydistill.errors import TeacherError, first_line
from raydistill.tasks import task_of
from raydistill.tasks.regression import Regression
from raydistill.teachers.checkpoints import CARD, save_teacher, teacher_folder
from raydistill.teachers.fit import fit
from raydistill.teachers.models import build

Say = Callable[[str], None]


def untrained(config: Config, data: dict[str, TaskData], again: bool = False) -> list[str]:
    """The teachers that have to be trained before they can teach: those that are not there, or learned from other data.

    Args:
        data: by task.
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
        elif again or not _learned_from(folder, data[teacher.task]):
            if teacher.train is None:
                raise TeacherError(
                    f"teacher {name!r} has neither checkpoint nor train; set teachers.{name}.checkpoint to its "
                    f"weights, or teachers.{name}.train to train it"
                )
            names.append(name)
    return names


def train_teacher(config: Config, name: str, data: TaskData, progress: Say, say: Say, again: bool = False) -> None:
    """Train one teacher into its place in the cache; another process that does the same is waited for.

    Args:
        data: of its task.
        again: also where it is there.
        progress: hears passing messages.
        say: hears those to keep.
    """
    teacher, folder = config.teachers[name], teacher_folder(config, name)
    assert teacher.train is not None
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f"{folder.name}.lock")):
        if not again and _learned_from(folder, data):
            say(f"{name}: trained by another process")
            return
        seed = config.seed if teacher.train.seed is None else teacher.train.seed
        torch.manual_seed(seed)
        label_names = teacher.label_names or data.label_names
        network = build(name, teacher, data.domain, data.settings, len(label_names), None, data.kind)
        unfinished = folder.with_name(f"{folder.name}.{data.learning_fingerprint[:8]}.unfinished")
        try:
            outcome = fit(
                network, data, teacher.train, unfinished, seed, lambda text: progress(f"{name}: {text}"),
                label_names,
            )  # fmt: skip
        except (RuntimeError, TypeError, ValueError, LookupError) as error:  # of a network that its inputs do not fit
            raise TeacherError(f"teacher {name!r}: training failed: {first_line(error)}") from error
        task = task_of(data, label_names)
        card = {
            "name": name,
            "task": teacher.task,
            "loader": teacher.loader,
            "model": teacher.model,
            "options": teacher.options,
            "label_names": list(label_names),
            "learned_from": data.learning_fingerprint,
            **outcome,
        }
        if isinstance(task, Regression):
            card["label_scales"] = dict(zip(task.label_names, task.scales, strict=True))
        save_teacher(network, folder, card)
        shutil.rmtree(unfinished, ignore_errors=True)
    score = f"{task.metric_name} {outcome['validation_accuracy']:.3f}"
    say(f"{name}: trained, validation {score}, {outcome['seconds']:.0f} s")


def _learned_from(folder: Path, data: TaskData) -> bool:
    card = folder / CARD
    if not card.is_file():
        return False
    known: dict[str, object] = json.loads(card.read_text(encoding="utf-8"))
    return known.get("learned_from") == data.learning_fingerprint
