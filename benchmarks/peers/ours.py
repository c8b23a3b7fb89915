"""raydistill's own training loop: the teacher in this process fills a store, and later epochs read it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from peers.setting import TASK, TEACHER, Outcome, Setting

from raydistill.fusion.standing import Standing
from raydistill.soft_labels.source import total_cost
from raydistill.soft_labels.stream import LabelStream
from raydistill.soft_labels.tables import RunTables, TaughtSplit
from raydistill.teachers.labelling import training_views
from raydistill.teachers.local import LocalTeachers
from raydistill.training.loop import train_student
from raydistill.training.plan import TrainingPlan


def train(setting: Setting, folder: Path) -> Outcome:
    """Train the student.

    Args:
        folder: empty; for the store, which is thus empty at the start, for checkpoints and logs.
    """
    store = setting.config.store.model_copy(update={"path": str(folder / "store")})
    config = setting.config.model_copy(update={"store": store})
    lines: list[dict[str, Any]] = []
    began = time.perf_counter()
    teacher = setting.load_teacher()
    split = setting.data.train
    taught = TaughtSplit(
        teacher.fingerprint, TASK, split.name, split.fingerprint, len(split), len(setting.data.label_names),
        tuple(training_views(config.tasks[TASK])),
    )  # fmt: skip
    source = LabelStream(
        config, config.teachers, LocalTeachers({TEACHER: teacher}), RunTables(config, {TEACHER: taught})
    )
    plan = TrainingPlan(
        config=config, arm="distilled", seed=config.seed, initial_student=setting.student_folder, folder=folder / "run",
        tensorboard=folder / "run", ensemble_accuracy={TASK: 1.0},
        standings={TASK: tuple(Standing(name, 1.0, 1.0) for name in config.teachers)}, open_source=lambda: source,
    )  # fmt: skip
    state = train_student(plan, {TASK: setting.data}, on_log=lines.append)
    seconds = time.perf_counter() - began
    cost = total_cost(source.cost().values())
    losses = {int(line["step"]): float(line["total_loss"]) for line in lines if "total_loss" in line}
    return Outcome(seconds, losses, state.curve[-1]["validation"][TASK], cost.samples, cost.samples_cached)
