"""What tests of the loop share: a plan whose teachers know every label and have said so to the store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

from raydistill.commands.students import make_student
from raydistill.config.models import Config
from raydistill.data.dataset import TaskData
from raydistill.fusion.standing import Standing
from raydistill.soft_labels.source import SoftTargetSource
from raydistill.soft_labels.stream import LabelStream
from raydistill.soft_labels.tables import RunTables
from raydistill.teachers.labelling import LabelJob, training_views
from raydistill.training.plan import Arm, TrainingPlan

Data = dict[str, TaskData]
TASKS = tuple(tiny.TASKS)
TRAINING = {
    "num_steps": 40, "batch_size": 6, "learning_rate": 3e-3, "evaluate_every": 10, "precision": "fp32",
    "label_fraction": 0.5,
}  # fmt: skip


@pytest.fixture
def plan_of(make_config: Callable[..., Config], tiny_data: Data, tmp_path: Path) -> Callable[..., TrainingPlan]:
    """A plan in a folder of its own; all plans of a test start from the same student."""
    initial = tmp_path / "initial"

    def make(
        folder: str, arm: Arm = "distilled", seed: int = 0, distill: dict[str, Any] | None = None, each: int = 1,
        student: dict[str, Any] | None = None, **training: Any,
    ) -> TrainingPlan:  # fmt: skip
        config = make_config(
            training={**TRAINING, **training}, distill={"temperature": 2.0, "hard_weight": 0.3, **(distill or {})},
            teachers={
                f"sure-{name}" + f"-{number}" * (number > 0): {
                    "task": name, "loader": "python", "model": "nobody:asks"
                } for name in TASKS for number in range(each)
            },
            store={"path": str(tmp_path / "labels")}, student={**tiny.STUDENT, **(student or {})},
        )  # fmt: skip
        if not initial.exists():
            make_student(config, tiny_data, 0, initial)
        tables = RunTables(config, {
            name: LabelJob(
                name, name, teacher.task, tiny_data[teacher.task].train, len(tiny.LABELS[teacher.task]),
                training_views(config.tasks[teacher.task]),
            ).taught
            for name, teacher in config.teachers.items()
        })  # fmt: skip

        def sure() -> SoftTargetSource:
            """Teachers that know every label, and have said so to the store."""
            for name, teacher in config.teachers.items():
                labels = tiny_data[teacher.task].train.labels
                for view in tables.taught[name].views:
                    logits = 6 * np.eye(len(tiny.LABELS[teacher.task]))[labels]
                    tables.open(name, view).write(np.arange(len(labels)), logits.astype(np.float16))
            return LabelStream(config, config.teachers, None, tables)

        where = tmp_path / folder
        return TrainingPlan(
            config=config, arm=arm, seed=seed, initial_student=initial, folder=where / "arm",
            tensorboard=where / "tensorboard",
            ensemble_accuracy=dict.fromkeys(TASKS, 1.0),
            standings={
                task: tuple(Standing(name, 1.0, 1.0) for name in config.teachers_of(task)) for task in config.tasks
            },
            open_source=sure if arm == "distilled" else None,
        )  # fmt: skip

    return make
