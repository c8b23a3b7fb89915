"""Ways to train the synthetic task's student on a device: by hand, and with raydistill's own loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from peers.synthetic import TASK, Synthetic
from torch import Tensor

from raydistill.config.models import Config
from raydistill.fusion.standing import Standing
from raydistill.precision import autocast, use_bf16
from raydistill.schedule import learning_rate_at
from raydistill.soft_labels.source import SoftTargetSource
from raydistill.student.model import Student
from raydistill.teachers.teacher import Teacher
from raydistill.training.loop import parameter_groups, train_student
from raydistill.training.plan import TrainingPlan
from raydistill.training.sampler import TaskSampler


@dataclass(frozen=True)
class Trained:
    """Attributes:
    seconds: from loading the student to the end of the last step.
    losses: of the steps that were recorded, by step (1 = the first).
    """

    seconds: float
    losses: dict[int, float]


def with_raydistill(
    given: Synthetic, config: Config, device: torch.device, folder: Path,
    open_source: Callable[[], SoftTargetSource] | None,
) -> Trained:  # fmt: skip
    """Its own loop, with its log, checkpoint and validation.

    Args:
        folder: for them; empty.
        open_source: None: without a teacher.
    """
    lines: list[dict[str, Any]] = []
    plan = TrainingPlan(
        config=config, arm="distilled", seed=config.seed, initial_student=given.student_folder, folder=folder,
        tensorboard=folder, ensemble_accuracy={TASK: 1.0},
        standings={TASK: tuple(Standing(name, 1.0, 1.0) for name in config.teachers)}, open_source=open_source,
    )  # fmt: skip
    began = time.perf_counter()
    train_student(plan, {TASK: given.data}, device=device, on_log=lines.append)
    synchronize(device)
    seconds = time.perf_counter() - began
    return Trained(seconds, {int(line["step"]): float(line["total_loss"]) for line in lines if "total_loss" in line})


def by_hand(given: Synthetic, device: torch.device, teacher: Teacher | None, num_steps: int) -> Trained:
    """A plain loop with the teacher in the same process, asked in every step; without it on the labels alone."""
    training, distill, seed = given.config.training, given.config.distill, given.config.seed
    bf16 = use_bf16(training.precision, device)
    began = time.perf_counter()
    student = Student.from_pretrained(str(given.student_folder)).to(device)
    student.train()
    groups = parameter_groups(student, training.weight_decay)
    optimizer = torch.optim.AdamW(groups, lr=training.learning_rate, betas=(0.9, 0.98), fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: learning_rate_at(step, 1.0, num_steps, training.warmup_fraction)
    )
    losses: list[Tensor] = []
    for pixels, labels in batches(given, num_steps):
        inputs, hard_labels = pixels.to(device), labels.to(device)
        # Dropout as in raydistill's own loop: the two then differ in their arithmetic only.
        torch.manual_seed(hash((seed, len(losses), 0)) & 0x7FFF_FFFF_FFFF_FFFF)
        with autocast(device, bf16):
            student_logits = student({TASK: {"pixel_values": inputs}})[TASK].float()
            loss = F.cross_entropy(student_logits, hard_labels)
        if teacher is not None:
            teacher_logits = forward(teacher, inputs if device_of(teacher) == device else pixels).to(device)
            log_p = F.log_softmax(teacher_logits / distill.temperature, dim=-1)
            log_q = F.log_softmax(student_logits / distill.temperature, dim=-1)
            soft_loss = F.kl_div(log_q, log_p, reduction="batchmean", log_target=True) * distill.temperature**2
            loss = distill.hard_weight * loss + (1.0 - distill.hard_weight) * soft_loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), training.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        losses.append(loss.detach())
    synchronize(device)
    seconds = time.perf_counter() - began
    return Trained(seconds, {step: float(loss) for step, loss in enumerate(losses, start=1)})


def teacher_epoch_s(given: Synthetic, teacher: Teacher) -> float:
    """Seconds of its forward passes in an epoch: the prepared pictures are the student's too."""
    device, seconds = device_of(teacher), 0.0
    for pixels, _ in batches(given, given.steps_per_epoch):
        inputs = pixels.to(device)
        synchronize(device)
        began = time.perf_counter()
        forward(teacher, inputs)
        synchronize(device)
        seconds += time.perf_counter() - began
    return seconds


def batches(given: Synthetic, num_steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Prepared pixels and labels, in the order in which raydistill's own loop draws rows."""
    config, rows = given.config, np.arange(len(given.data.train))
    sampler = TaskSampler(config.seed, TASK, rows, config.training.batch_size, config.tasks[TASK].num_views)
    for step in range(num_steps):
        drawn = sampler.micro_batch(step)
        views = given.data.train.views(drawn.rows, drawn.view)
        yield given.prepare(views)["pixel_values"], torch.from_numpy(views.labels)


@torch.inference_mode()
def forward(teacher: Teacher, pixels: Tensor) -> Tensor:
    """Logits float32 [batch, num_classes] on its device; pixels float32 [batch, 3, height, width], prepared."""
    device = device_of(teacher)
    with autocast(device, teacher.bf16):
        return teacher.network.logits({"pixel_values": pixels.to(device)}).float()


def device_of(teacher: Teacher) -> torch.device:
    return next(teacher.network.module.parameters()).device


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
