"""The lines that matter: what the student learns from one micro-batch of every task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from raydistill.tasks import Task


@dataclass(frozen=True)
class TaskBatch:
    """One task's part of a micro-batch, on the student's device.

    `hard_labels` [batch] int64, −1 where the student may not see one. `teacher_logits` [batch, num_classes], or
    None for a student alone. `heard` [batch] bool: rows that a teacher spoke on; None: all. The counts are those of
    the whole optimizer step: all micro-batches, all ranks.
    """

    inputs: dict[str, Tensor]
    hard_labels: Tensor
    teacher_logits: Tensor | None
    num_rows: int
    num_labelled: int
    heard: Tensor | None = None


@dataclass(frozen=True)
class Weights:
    """How much the labels, and each task, count for; `task_temperatures` is of single tasks, instead of the one."""

    temperature: float
    hard_weight: float
    task_weights: Mapping[str, float]
    task_temperatures: Mapping[str, float] = field(default_factory=dict)

    def temperature_of(self, task: str) -> float:
        """Its own, or the one of all."""
        return self.task_temperatures.get(task, self.temperature)


def distillation_loss(
    student: nn.Module, tasks: Mapping[str, Task], batches: Mapping[str, TaskBatch], weights: Weights
) -> tuple[Tensor, dict[str, Tensor]]:
    """This micro-batch's share of

        total = Σ_task  w_task · [ hard_weight · hard_loss + (1 − hard_weight) · soft_loss ]

    with soft_loss = T² KL(teacher ‖ student) at the task's temperature T, averaged over all rows of the step, and
    hard_loss the cross-entropy averaged over its labelled rows. A task without teacher logits, and a row that no
    teacher spoke on, has its hard loss alone.

    Returns:
        The scalar to call `backward` on, and detached scalars for the log: no host sync here.
    """
    outputs = student({name: batch.inputs for name, batch in batches.items()})
    total_loss = torch.zeros((), device=next(student.parameters()).device)
    metrics: dict[str, Tensor] = {}
    for name, batch in batches.items():
        task, output = tasks[name], outputs[name]
        # Global counts: per-rank means would up-weight the labels of ranks that happen to see few.
        hard_loss = task.hard_loss(output, batch.hard_labels) / max(1, batch.num_labelled)
        task_loss = hard_loss
        if batch.teacher_logits is not None:
            heard: slice | Tensor = slice(None) if batch.heard is None else batch.heard
            temperature = weights.temperature_of(name)
            soft_loss = task.soft_loss(output[heard], batch.teacher_logits[heard], temperature) / batch.num_rows
            task_loss = weights.hard_weight * hard_loss + (1.0 - weights.hard_weight) * soft_loss
            if batch.heard is not None:
                unheard = task.hard_loss(output[~batch.heard], batch.hard_labels[~batch.heard])
                task_loss = task_loss + (1.0 - weights.hard_weight) * unheard / max(1, batch.num_labelled)
            metrics[f"{name}/soft_loss"] = soft_loss.detach()
        total_loss = total_loss + weights.task_weights.get(name, 1.0) * task_loss
        metrics[f"{name}/hard_loss"] = hard_loss.detach()
    metrics["total_loss"] = total_loss.detach()
    return total_loss, metrics
