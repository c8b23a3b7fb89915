"""The lines that matter: what the student learns from one micro-batch of every task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from raydistill.balancing.plain import PLAIN, fixed
from raydistill.config.distill import DistillConfig
from raydistill.fusion.fuser import Fuser
from raydistill.losses.choice import SoftLossChoice
from raydistill.student.model import Student
from raydistill.tasks import Task
from raydistill.training.features import FeatureMatcher, StudentTaps


@dataclass(frozen=True)
class TaskBatch:
    """One task's part of a micro-batch, on the student's device.

    `hard_labels` [batch] int64, −1 where the student may not see one; of other kinds [batch, labels], NaN where it may
    not. `teacher_logits` [teachers, batch, num_classes], NaN where one said nothing, or None for a student alone.
    `heard` [batch] bool: rows that a teacher spoke on; None: all. `features` by name of a feature loss: the teacher's,
    [batch, channels] or [batch, positions, channels]. The counts are those of the whole optimizer step: all
    micro-batches, all ranks.
    """

    inputs: dict[str, Tensor]
    hard_labels: Tensor
    teacher_logits: Tensor | None
    num_rows: int
    num_labelled: int
    heard: Tensor | None = None
    features: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Losses:
    """Of a micro-batch: its share of the losses of the step.

    Attributes:
        by_task: weighted, each with a graph of its own, so that tasks' gradients can be told apart.
        beside: of what is learned beside the student and does not touch it; None: nothing.
        metrics: detached scalars for the log: no host sync here.
    """

    by_task: dict[str, Tensor]
    beside: Tensor | None
    metrics: dict[str, Tensor]


class Objective(nn.Module):
    """The student with all that is learned beside it, as one module: what is data-parallel is this.

    Args:
        student: to learn.
        tasks: its tasks.
        distill: temperatures, weights and losses.
        fusers: by task, of its teachers; none for a student alone.
        matchers: by name, of its feature losses.
    """

    def __init__(
        self,
        student: Student,
        tasks: Mapping[str, Task],
        distill: DistillConfig,
        fusers: Mapping[str, Fuser],
        matchers: Mapping[str, FeatureMatcher] | None = None,
    ) -> None:
        super().__init__()
        self.matchers = dict(matchers or {})
        self.taps = StudentTaps(student, {each.config.student_layer for each in self.matchers.values()})
        self.student, self.tasks, self.distill = student, tasks, distill
        self.choices = {name: SoftLossChoice.of(distill, name) for name in tasks}
        self.task_weights = PLAIN.get(distill.balancing, fixed)(distill.task_weights)
        # Prefixed: a task may be called `train` or `type`, a module's child may not.
        self.of_tasks = frozenset(f"features_{name}" for name in self.matchers)
        self.beside = nn.ModuleDict(
            {f"fuser_{name}": fuser for name, fuser in fusers.items()}
            | {f"features_{name}": matcher for name, matcher in self.matchers.items()}
        )

    def forward(self, batches: Mapping[str, TaskBatch]) -> tuple[dict[str, Tensor], Tensor | None, dict[str, Tensor]]:
        """This micro-batch's share of

            L_task = w_task · [ hard_weight · hard_loss + (1 − hard_weight) · soft_loss + Σ weight · feature_loss ]

        with soft_loss as the config names it, against the fused word of the task's teachers, averaged over all rows of
        the step, and hard_loss averaged over its labelled rows. A task without teacher logits, and a row that no
        teacher spoke on, has its hard loss alone.

        Returns:
            The parts of `Losses`: plain containers, which data parallelism can look through.
        """
        with self.taps.listening() as heard_inside:
            outputs = self.student({name: batch.inputs for name, batch in batches.items()})
        # What balances experts is of this micro-batch as a whole: it counts by its part of the step's rows.
        auxiliary = self.student.take_auxiliary()
        share = sum(len(each.hard_labels) for each in batches.values()) / sum(b.num_rows for b in batches.values())
        by_task: dict[str, Tensor] = {}
        beside: Tensor | None = None
        metrics: dict[str, Tensor] = {}
        hard_weight = self.distill.hard_weight
        for name, batch in batches.items():
            task, output = self.tasks[name], outputs[name]
            # Global counts: per-rank means would up-weight the labels of ranks that happen to see few.
            hard_loss = task.hard_loss(output, batch.hard_labels) / max(1, batch.num_labelled)
            task_loss = hard_loss
            if batch.teacher_logits is not None:
                heard: slice | Tensor = slice(None) if batch.heard is None else batch.heard
                output_heard, labels_heard = output[heard], batch.hard_labels[heard]
                fused = self.beside[f"fuser_{name}"](
                    batch.teacher_logits[:, heard], self.choices[name].temperature, output_heard, labels_heard
                )
                soft_loss = task.soft_loss(output_heard, fused.logits.detach(), labels_heard, self.choices[name])
                soft_loss = soft_loss / batch.num_rows
                task_loss = hard_weight * hard_loss + (1.0 - hard_weight) * soft_loss
                if batch.heard is not None:
                    unheard = task.hard_loss(output[~batch.heard], batch.hard_labels[~batch.heard])
                    task_loss = task_loss + (1.0 - hard_weight) * unheard / max(1, batch.num_labelled)
                if fused.gate_loss is not None:
                    gate_loss = fused.gate_loss / max(1, batch.num_labelled)
                    beside = gate_loss if beside is None else beside + gate_loss
                metrics[f"{name}/soft_loss"] = soft_loss.detach()
            for feature, said in batch.features.items():
                matcher = self.matchers[feature]
                feature_loss = matcher(heard_inside[name, matcher.config.student_layer], said) / batch.num_rows
                task_loss = task_loss + matcher.config.weight * feature_loss
                metrics[f"{name}/{feature}"] = feature_loss.detach()
            by_task[name] = self.task_weights.get(name, 1.0) * task_loss
            if name in auxiliary:
                by_task[name] = by_task[name] + share * auxiliary[name]
            metrics[f"{name}/hard_loss"] = hard_loss.detach()
        idle = [parameter.sum() for parameter in self.beside.parameters()]
        if idle:
            # Data parallelism waits for every parameter's gradient, also where a lost teacher leaves one without.
            nothing = 0.0 * torch.stack(idle).sum()
            beside = nothing if beside is None else beside + nothing
        metrics["total_loss"] = sum(loss.detach() for loss in by_task.values())  # type: ignore[assignment]
        return by_task, beside, metrics
