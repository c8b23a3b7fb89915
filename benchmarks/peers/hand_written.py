"""The loop that one writes by hand: teacher in the same process, asked in every step."""

from __future__ import annotations

import time

import torch
import torch.nn.functional as F
from peers.setting import CPU, Networks, Outcome, Setting

from raydistill.precision import autocast


def train(setting: Setting, with_teacher: bool = True) -> Outcome:
    """Train the student; without the teacher on the labels alone: what the steps themselves cost."""
    temperature, hard_weight = setting.config.distill.temperature, setting.config.distill.hard_weight
    began = time.perf_counter()
    networks = Networks(setting)
    student, teacher = networks.student, networks.teacher
    optimizer = setting.optimizer(student)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, setting.learning_rate_factor)
    losses: list[torch.Tensor] = []
    student.train()
    for epoch in range(setting.num_epochs):
        for drawn in setting.epoch(epoch):
            pixels, labels = setting.batch(drawn)
            setting.seed_step(len(losses))
            with autocast(CPU, setting.bf16):
                student_logits = student(pixels)
                loss = F.cross_entropy(student_logits, labels)
                if with_teacher:
                    with torch.inference_mode():
                        log_p = F.log_softmax(teacher(pixels) / temperature, dim=-1)
                    log_q = F.log_softmax(student_logits / temperature, dim=-1)
                    soft_loss = F.kl_div(log_q, log_p, reduction="batchmean", log_target=True) * temperature**2
                    loss = hard_weight * loss + (1.0 - hard_weight) * soft_loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(student.parameters(), setting.config.training.clip_norm)
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            losses.append(loss.detach())
    seconds = time.perf_counter() - began
    asked = setting.num_steps * setting.config.training.batch_size if with_teacher else 0
    by_step = {step: float(loss) for step, loss in enumerate(losses, start=1)}
    return Outcome(seconds, by_step, setting.accuracy(networks.whole_student), asked)


def teacher_epoch_s(setting: Setting, num_epochs: int = 2) -> float:
    """Seconds that the teacher computes for one epoch: its forward passes only, the views are the student's too."""
    teacher = Networks(setting).teacher
    seconds = 0.0
    with torch.inference_mode(), autocast(CPU, setting.bf16):
        teacher(setting.batch(next(setting.epoch(0)))[0])  # the first call sets up the kernels
        for epoch in range(num_epochs):
            for drawn in setting.epoch(epoch):
                pixels, _ = setting.batch(drawn)
                began = time.perf_counter()
                teacher(pixels)
                seconds += time.perf_counter() - began
    return seconds / num_epochs
