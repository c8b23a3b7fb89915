"""From predictions to report.json: every number that the report shows."""

from __future__ import annotations

import importlib.metadata
import platform
import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from numpy.typing import NDArray

from raydistill.config.models import Config
from raydistill.data.dataset import TaskData
from raydistill.evaluation.together import balancing_report, fusion_report
from raydistill.fusion.fuser import ensemble
from raydistill.fusion.standing import Standing, asked_about
from raydistill.soft_labels.source import TeacherCost, add_costs, total_cost
from raydistill.tasks import Task, task_of

PACKAGES = ("raydistill", "torch", "ray", "transformers", "torchvision", "torchaudio", "optuna")
CLEAR = 2.0  # standard errors


@dataclass(frozen=True)
class ArmResult:
    """One trained student and what it says on the test rows.

    Attributes:
        arm: `alone` or `distilled`.
        test_logits: by task: [num_test, num_classes], of the best checkpoint.
        num_labelled: by task: training rows whose label it saw.
        curve: validations in the order of steps.
        best_score: validation retention at `best_step`.
        costs: of the teachers, while it trained.
        balance: how far the tasks' gradients agreed, now and then.
        trust: by task and teacher, its mean weight on training rows of each class; of tasks with several teachers.
    """

    arm: str
    seed: int
    test_logits: dict[str, NDArray[np.float32]]
    num_labelled: dict[str, int]
    curve: list[dict[str, Any]]
    best_step: int
    best_score: float
    wall_s: float
    student_samples: int
    costs: dict[str, TeacherCost]
    balance: list[dict[str, Any]] = field(default_factory=list)
    trust: dict[str, dict[str, list[float]]] = field(default_factory=dict)


def assemble_report(
    config: Config,
    data: dict[str, TaskData],
    teacher_logits: dict[str, dict[str, NDArray[np.float16]]],
    standings: dict[str, tuple[Standing, ...]],
    results: list[ArmResult],
    models: dict[str, dict[str, Any]],
    labelling: dict[str, TeacherCost],
    *,
    seconds: float,
    peak_rss_bytes: int,
    events: list[dict[str, Any]],
    student_seed: int,
) -> dict[str, Any]:
    """The content of report.json.

    Args:
        teacher_logits: by task and teacher, on the test split.
        standings: of each task's teachers.
        results: one pair of arms for each seed.
        labelling: what the teachers did before the students trained.
        seconds: the command's wall clock.
        student_seed: whose student is kept.
    """
    tasks = {
        name: _task_report(
            config,
            task_of(task),
            task,
            teacher_logits[name],
            standings[name],
            results,
        )
        for name, task in data.items()
    }
    by_teacher = add_costs(labelling, *(result.costs for result in results))
    cost = total_cost(by_teacher.values())
    # Each of several workers may wait.
    distilling_s = sum(result.wall_s for result in results if result.arm == "distilled")
    distilling_s *= max(1, config.training.num_workers)
    return {
        "name": config.name,
        "description": config.description,
        "tasks": tasks,
        "mean_retention": {
            arm: statistics.mean(_ratio(task[f"student_{arm}"], task["ensemble"]) for task in tasks.values())
            for arm in ("alone", "distilled")
        },
        "models": models,
        "cost": {
            "wall_s": seconds,
            "teacher_samples": cost.samples,
            "teacher_samples_cached": cost.samples_cached,
            "teacher_busy_s": cost.busy_s,
            "student_samples": sum(result.student_samples for result in results),
            "training_s": {
                arm: sum(result.wall_s for result in results if result.arm == arm) for arm in ("alone", "distilled")
            },
            "peak_rss_bytes": peak_rss_bytes,
        },
        "teachers": {
            name: {**asdict(each), "waiting_share": each.waited_s / distilling_s if distilling_s else 0.0}
            for name, each in by_teacher.items()
        },
        "events": events,
        "seeds": list(config.seeds),
        "student_seed": student_seed,
        "settings": {
            "label_fraction": config.training.label_fraction,
            "temperature": config.distill.temperature,
            "task_temperatures": config.distill.task_temperatures,
            "hard_weight": config.distill.hard_weight,
            "loss": config.distill.loss,
            "task_losses": config.distill.task_losses,
            "standardize": config.distill.standardize,
            "num_steps": config.training.num_steps,
            "soft_labels": config.distill.soft_labels,
        },
        "balancing": balancing_report(
            config.distill, [each for result in results if result.arm == "distilled" for each in result.balance]
        ),
        "curves": {f"{result.arm}-seed{result.seed}": result.curve for result in results},
        "versions": _versions(),
        "machine": machine(),
    }


def _task_report(
    config: Config,
    task: Task,
    data: TaskData,
    teacher_logits: dict[str, NDArray[np.float16]],
    standings: tuple[Standing, ...],
    results: list[ArmResult],
) -> dict[str, Any]:
    labels, fused = data.test.labels, ensemble(config.distill, task.name, standings, teacher_logits)
    logits = {arm: [r.test_logits[task.name] for r in results if r.arm == arm] for arm in ("alone", "distilled")}

    by_seed = {f"student_{arm}": [task.metric(each, labels) for each in logits[arm]] for arm in logits}
    means = {student: statistics.mean(values) for student, values in by_seed.items()}
    together = task.metric(fused, labels)
    report: dict[str, Any] = {
        "kind": data.kind,
        "metric": task.metric_name,
        "domain": task.domain,
        "label_names": list(task.label_names),
        "num_train": len(data.train),
        "num_labelled": results[0].num_labelled[task.name],
        "num_test": task.count_labelled(labels),
        "num_skipped": len(data.skipped),
        "chance": task.chance_on(labels),
        "teachers": {name: task.metric(each, asked_about(each, labels)) for name, each in teacher_logits.items()},
        "ensemble": together,
        **means,
        "retention": _ratio(means["student_distilled"], together),
        "by_seed": by_seed,
        "spread": {student: statistics.stdev(v) if len(v) > 1 else 0.0 for student, v in by_seed.items()},
        "gain": _gain(task, labels, logits["alone"], logits["distilled"]),
    }
    details = {arm: [task.details(each, labels) for each in logits[arm]] for arm in logits}
    for name, value in task.details(fused, labels).items():
        means_of = {f"student_{arm}": statistics.mean(each[name] for each in details[arm]) for arm in details}
        report[name] = {"ensemble": value, **means_of}
    if len(teacher_logits) > 1:
        trusted = [result.trust[task.name] for result in results if task.name in result.trust]
        report["fusion"] = fusion_report(config.distill, task, labels, teacher_logits, standings, trusted)
    report["agreement"] = {
        f"student_{arm}": statistics.mean(task.agreement(each, fused) for each in logits[arm]) for arm in logits
    }
    return report


def _ratio(student: float, teachers: float) -> float:
    """Nothing can be retained of teachers that are never right."""
    return student / teachers if teachers else 0.0


def _gain(task: Task, labels: NDArray[Any], alone: list[NDArray[Any]], distilled: list[NDArray[Any]]) -> dict[str, Any]:
    """Distilled minus alone, and whether that is more than chance.

    The standard error has two parts: of the test rows (paired, averaged over seeds), and of the seeds.
    """
    pairs = [
        task.row_scores(after, labels) - task.row_scores(before, labels)
        for before, after in zip(alone, distilled, strict=True)
    ]
    by_row, by_seed = np.mean(pairs, axis=0), [float(pair.mean()) for pair in pairs]
    error = float(by_row.std() ** 2 / len(by_row)) ** 0.5
    if len(by_seed) > 1:
        error = (error**2 + statistics.variance(by_seed) / len(by_seed)) ** 0.5
    gain = statistics.mean(by_seed)
    verdict = "better" if gain > CLEAR * error else "worse" if gain < -CLEAR * error else "no clear difference"
    return {"mean": gain, "standard_error": error, "verdict": verdict}


def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in PACKAGES}}


def machine() -> str:
    """Processor, cores, memory and accelerator, in words."""
    model = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    except OSError:
        pass
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{model}, {psutil.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB, {gpu}"
