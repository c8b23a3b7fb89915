"""One trial: the same training as in `raydistill distill`, of one student, judged on the validation split."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from raydistill.commands.experts import experts
from raydistill.commands.folders import write_atomically
from raydistill.commands.known import KnownTeachers, known_teachers, source_plan
from raydistill.commands.labels import collect_labels, training_jobs
from raydistill.commands.ledger import Ledger
from raydistill.commands.methods_check import check_methods
from raydistill.commands.preparing import with_scales
from raydistill.commands.progress import Progress
from raydistill.commands.students import make_student
from raydistill.config.loader import dump_config
from raydistill.config.models import Config
from raydistill.data.dataset import Prepared, TaskData, load_task_data
from raydistill.devices import device_given
from raydistill.errors import RaydistillError
from raydistill.evaluation.models import student_models
from raydistill.soft_labels.layers import layer_of
from raydistill.soft_labels.source import total_cost
from raydistill.student.model import Student
from raydistill.training.checkpoint import TrainingState, load_state
from raydistill.training.costs import costs_of
from raydistill.training.launch import OnLog, launch
from raydistill.training.loop import train_student
from raydistill.training.plan import Arm, TrainingPlan
from raydistill.tuning.asked import ASKED
from raydistill.tuning.checking import OF_A_TASK

RESULT, REASON_FILE = "result.json", "failure.txt"
DEVICE = "device"  # in the result: where the student answered, and trained if no workers did
Measures = dict[str, float]


@dataclass(frozen=True)
class Setting:
    """What all trials of a sweep share.

    Attributes:
        config: the base of every candidate.
        known: its teachers. A candidate that changes what they see asks for itself, in the pools that runs share.
        folder: of the sweep.
        num_threads: of a trial's own process.
        prepared: by task, the data of the base.
    """

    config: Config
    known: KnownTeachers
    folder: Path
    num_threads: int
    prepared: Mapping[str, Prepared] = field(default_factory=dict)


def run_arm(setting: Setting, config: Config, arm: Arm, folder: Path, report: Callable[[Measures], None]) -> Measures:
    """Train one student of a candidate, or go on with it, and measure it. What is finished is not trained again.

    Args:
        config: the candidate.
        arm: distilled, or alone for the baseline.
        folder: of this training: result.json is there in the end.
        report: hears the measures after each validation; `step` among them.

    Returns:
        The measures of the best checkpoint.

    Raises:
        RaydistillError: in one line; the loss that became NaN is one.
    """
    began = time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(setting.num_threads)
    with FileLock(folder / ".lock"):  # a sampler may suggest the same twice at once
        if (folder / RESULT).is_file():
            found: Measures = json.loads((folder / RESULT).read_text(encoding="utf-8"))
            found.pop(DEVICE, None)
            report(found)
            return found
        write_atomically(folder / "config.yaml", dump_config(config))
        cache = Path(config.cache_dir).expanduser()
        same = {
            name: each for name, each in setting.prepared.items() if config.tasks[name] == setting.config.tasks[name]
        }
        data = {name: load_task_data(name, task, cache, prepared=same.get(name)) for name, task in config.tasks.items()}
        check_methods(config, {name: len(task.label_names) for name, task in data.items()})
        with _known(setting, config, data, folder) as known:
            initial = _initial_student(setting, config, data)
            student = Student.from_pretrained(str(initial)).eval().to(_device(config))
            shape = student_models(student, data)["student"]
            del student
            measures: Measures = {name: float(shape[name]) for name in ("parameters", "bytes", "latency_ms")}
            measures["teacher_rows"] = float(_teacher_rows(config, data, known)) if arm == "distilled" else 0.0
            earlier = load_state(folder / "checkpoints")
            curve = list(earlier.curve) if earlier else []

            def on_log(line: dict[str, Any]) -> None:
                if math.isnan(line.get("total_loss", 0.0)):
                    raise RaydistillError(f"the loss is no number at step {line['step']}")
                if "validation/retention" in line:
                    scores = {name: line[f"validation/{name}"] for name in config.tasks}
                    curve.append({"retention": line["validation/retention"], "validation": scores})
                    if line["step"] == config.training.num_steps:
                        return  # told below, once all is measured: who stops a trial must not cut that off
                    report({**measures, **_best(curve), "teacher_samples": 0.0, "step": float(line["step"])})

            plan = TrainingPlan(
                config, arm, config.seed, initial, folder / "checkpoints", folder / "tensorboard",
                known.ensemble_accuracy, known.standings if arm == "distilled" else {},
                source_plan(config, data, known) if arm == "distilled" else None, known.feature_shapes,
                {name: task.prepared for name, task in data.items()},
            )  # fmt: skip
            begins = time.perf_counter()
            train = launch if config.training.num_workers else train_here
            state = train(plan, data, on_log)
        ends = time.perf_counter()
        measures |= _best(state.curve) | {
            "teacher_samples": float(total_cost(costs_of(state).values()).samples),
            "step": float(state.step),
            "best_step": float(state.best_step),
            "training_s": state.wall_s,
            "overhead_s": begins - began + time.perf_counter() - ends,
        }
        write_atomically(folder / RESULT, json.dumps({**measures, DEVICE: _device(config).type}, indent=1))
        report(measures)
        return measures


def train_here(plan: TrainingPlan, data: dict[str, TaskData], on_log: OnLog) -> TrainingState:
    """In this process, without Ray Train; what is finished stays so."""
    finished = load_state(plan.folder)
    if finished and finished.step >= plan.config.training.num_steps:
        return finished
    return train_student(plan, data, device=_device(plan.config), on_log=on_log)


def _device(config: Config) -> torch.device:
    """This trial's share of a GPU, where it was given one. Where workers train, they have it."""
    return device_given(0.0 if config.training.num_workers else config.training.placement.num_gpus)


def _teacher_rows(config: Config, data: dict[str, TaskData], known: KnownTeachers) -> int:
    """Views of training rows that the teachers have to answer for, in all; whether the store knew them or not."""
    return sum(len(job.split) * len(job.views) for job in training_jobs(config, data, known.descriptions))


def _best(curve: list[dict[str, Any]]) -> Measures:
    """Of the checkpoint that validated best, the first of equals, as the training keeps it."""
    point = max(curve, key=lambda each: float(each["retention"]))
    of_tasks = {f"{OF_A_TASK}{name}": float(score) for name, score in point["validation"].items()}
    return {"retention": float(point["retention"]), **of_tasks}


@contextlib.contextmanager
def _known(setting: Setting, config: Config, data: dict[str, TaskData], folder: Path) -> Iterator[KnownTeachers]:
    """Of the candidate's teachers; for as long as they may be asked."""
    if seen_by_teachers(config) == seen_by_teachers(setting.config):
        yield setting.known
        return
    with Progress(folder / "log.txt") as progress:
        label_names = {name: task.label_names for name, task in data.items()}
        with experts(with_scales(config, data), label_names, progress) as at_hand:
            ahead = config.distill.soft_labels == "stored"
            labels = collect_labels(config, data, at_hand, progress, Ledger(folder / ASKED), with_train=ahead)
            yield known_teachers(config, at_hand, labels, data)


def seen_by_teachers(config: Config) -> str:
    """Changes with all that decides what teachers are asked and who they are."""
    content = config.model_dump(mode="json", include={"tasks", "teachers", "cache_dir", "store"})
    features = config.distill.features
    layers = {name: [each.teacher, str(layer_of(each))] for name, each in features.items()}
    return digest({**content, "layers": layers} if layers else content)


def digest(content: Mapping[str, Any]) -> str:
    """A short name for some content."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _initial_student(setting: Setting, config: Config, data: dict[str, TaskData]) -> Path:
    """Of its shape and seed; the same for all trials that differ in nothing else."""
    shape = config.model_dump(mode="json", include={"student", "tasks", "seed"})
    path = setting.folder / "initial" / digest(shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        if not path.exists():
            make_student(config, data, config.seed, path)
    return path
