"""Which methods make sense for which kind of task: told with the config, before anything is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

from raydistill.config.data import TaskKind
from raydistill.config.distill import DistillConfig, FusionName, SoftLossName, TaskLossName

if TYPE_CHECKING:
    from raydistill.config.models import Config

LOSSES: dict[TaskKind, tuple[TaskLossName, ...]] = {
    "classification": get_args(SoftLossName),
    "multilabel": ("bce",),
    "regression": ("regression",),
}
WHY_NOT: dict[TaskKind, str] = {
    "classification": "exactly one class holds",
    "multilabel": "each label holds or does not, whatever the others do",
    "regression": "numbers are no distribution",
}
NOT_FOR_NUMBERS: dict[FusionName, str] = {
    "entropy": "a number has no entropy",
    "gate": "it learns from probabilities, and numbers have none",
}


def check_kinds(config: Config) -> None:
    """Refuse what a task's kind leaves no meaning.

    Raises:
        ValueError: names the key, the task, the reason and what would do.
    """
    for name, task in config.tasks.items():
        _check_loss(name, task.kind, config.distill)
        if task.kind == "classification":
            continue
        top_k = config.store.top_k
        if config.store.top_k_of(name) is not None:
            instead = (
                "give it by task (store.top_k.TASK), without this one" if isinstance(top_k, int) else "leave it out"
            )
            raise ValueError(
                f"store.top_k keeps the largest logits of a softmax, and task {name!r} of kind {task.kind} has none: "
                f"{instead}"
            )
        if task.kind == "regression":
            _check_numbers(name, config)


def _check_loss(name: str, kind: TaskKind, distill: DistillConfig) -> None:
    loss = distill.task_losses.get(name)
    if loss is not None and loss not in LOSSES[kind]:
        raise ValueError(
            f"distill.task_losses.{name}: {loss} is not for kind {kind}, where {WHY_NOT[kind]}; take "
            f"{' or '.join(LOSSES[kind])}" + ("" if kind == "classification" else ", or leave it out")
        )


def _check_numbers(name: str, config: Config) -> None:
    teachers, fusion = config.teachers_of(name), config.distill.fusion_of(name)
    if len(teachers) > 1 and fusion in NOT_FOR_NUMBERS:
        key = f"distill.task_fusions.{name}" if name in config.distill.task_fusions else "distill.fusion"
        others = [each for each in get_args(FusionName) if each not in NOT_FOR_NUMBERS]
        raise ValueError(
            f"{key}: {fusion} cannot fuse the teachers of regression task {name!r}: {NOT_FOR_NUMBERS[fusion]}; set "
            f"distill.task_fusions.{name} to one of {', '.join(others)}"
        )
    for teacher, settings in teachers.items():
        if settings.train is not None and settings.train.label_smoothing:
            raise ValueError(
                f"teachers.{teacher}.train.label_smoothing is for classes, and task {name!r} has numbers; leave it out"
            )
