"""From rows to what the step eats: views of every task, their visible labels, counts over all ranks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from raydistill.config.distill import FeatureConfig
from raydistill.config.models import Config
from raydistill.data.dataset import TaskData
from raydistill.data.preparing import prepared
from raydistill.devices import sent
from raydistill.soft_labels.layers import layer_of
from raydistill.soft_labels.source import StepViews
from raydistill.soft_labels.targets import SoftTargets
from raydistill.student.model import Student
from raydistill.tasks import Task, task_of
from raydistill.training.plan import Arm
from raydistill.training.sampler import TaskSampler, labelled_rows
from raydistill.training.step import TaskBatch


@dataclass(frozen=True)
class TaskRows:
    """A task's sampler and the labels that the student may see, of all rows; the others are hidden."""

    task: Task
    sampler: TaskSampler
    visible_labels: NDArray[Any]


def num_parts(config: Config) -> int:
    """Into how many parts the rows of a micro-step are cut: one for each worker that there can be. Fewer workers do
    several parts each, so that their number changes nothing but the order of additions."""
    return max(1, config.training.num_workers)


def plan_rows(config: Config, data: dict[str, TaskData], arm: Arm, seed: int) -> dict[str, TaskRows]:
    """By task: which rows this arm draws from, and which labels it sees. Both arms see the same labels.

    `num_views` bounds what teachers are asked. The student alone asks nobody and gets a new view every epoch: a
    baseline that is held back proves nothing.
    """
    planned = {}
    for name, task in config.tasks.items():
        labels, of = data[name].train.labels, task_of(data[name])
        shown = labelled_rows(labels, config.training.label_fraction, of, seed)
        rows = shown if arm == "alone" else np.arange(len(labels))
        batch_size = config.training.task_batch_size.get(name, config.training.batch_size)
        num_views = None if arm == "alone" and task.num_views else task.num_views
        sampler = TaskSampler(seed, name, rows, batch_size * num_parts(config), num_views, data[name].train.lengths)
        planned[name] = TaskRows(of, sampler, of.hide(labels, shown))
    return planned


class BatchMaker:
    """Makes one rank's micro-batches.

    Args:
        parts: of each micro-step, those that are this rank's.
        num_parts: in all.
        teachers: by task, in the order in which their logits are stacked.
        features: by task, its feature losses.
    """

    def __init__(
        self,
        rows: dict[str, TaskRows],
        data: dict[str, TaskData],
        student: Student,
        teachers: Mapping[str, Sequence[str]],
        features: Mapping[str, Mapping[str, FeatureConfig]],
        parts: Sequence[int],
        num_parts: int,
    ) -> None:
        self.teachers, self.features = teachers, features
        self.rows, self.data = rows, data
        self.parts, self.num_parts = parts, num_parts
        self.preparers = {name: student.preparer(name) for name in rows}

    def views(self, micro_steps: range) -> Iterator[StepViews]:
        """One micro-batch of every task for each part of each micro-step."""
        for micro_step in micro_steps:
            for part in self.parts:
                step_views: StepViews = {}
                for name, task_rows in self.rows.items():
                    drawn = task_rows.sampler.micro_batch(micro_step)
                    own = drawn.part(part, self.num_parts)
                    step_views[name] = self.data[name].train.views(own, drawn.view)
                yield step_views

    def counts(self, micro_steps: range) -> dict[str, tuple[int, int]]:
        """By task: rows and visible labels of these micro-steps over all ranks.

        Every rank computes them from the sampler, so no all-reduce is needed.
        """
        totals = {}
        for name, task_rows in self.rows.items():
            drawn = np.concatenate([task_rows.sampler.micro_batch(step).rows for step in micro_steps])
            totals[name] = (len(drawn), task_rows.task.count_labelled(task_rows.visible_labels[drawn]))
        return totals

    def task_batches(
        self,
        step_views: StepViews,
        soft_targets: dict[str, SoftTargets],
        counts: dict[str, tuple[int, int]],
        device: torch.device,
    ) -> dict[str, TaskBatch]:
        """The student's own preparation of the views, with labels and soft labels beside it."""
        batches = {}
        for name, views in step_views.items():
            hard_labels = self.rows[name].visible_labels[views.sample_ids]
            targets = soft_targets.get(name)
            said = None if targets is None else torch.from_numpy(targets.stacked(self.teachers[name]))
            heard = None if said is None or not (silent := said[..., 0].isnan().all(dim=0)).any() else ~silent
            batches[name] = TaskBatch(
                inputs=prepared(self.preparers[name], views, device),
                hard_labels=sent(torch.from_numpy(hard_labels), device),
                teacher_logits=None if said is None else sent(said, device),
                heard=None if heard is None else sent(heard, device),
                num_rows=counts[name][0],
                num_labelled=counts[name][1],
                features={} if targets is None else self._features(name, targets, device),
            )
        return batches

    def _features(self, task: str, targets: SoftTargets, device: torch.device) -> dict[str, torch.Tensor]:
        """By name of a feature loss, what its teacher's layer said; not of a teacher that is lost."""
        return {
            name: sent(torch.from_numpy(targets.features[feature.teacher][layer_of(feature)]), device)
            for name, feature in self.features[task].items()
            if feature.teacher in targets.features
        }
