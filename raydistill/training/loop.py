"""The loop that a worker runs: draw, ask the teachers, step, now and then validate and save."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from raydistill.data.dataset import TaskData
from raydistill.precision import autocast, use_bf16
from raydistill.schedule import learning_rate_at
from raydistill.soft_labels.source import SoftTargetSource
from raydistill.student.model import Student
from raydistill.training.batches import BatchMaker, plan_rows
from raydistill.training.checkpoint import BEST, TrainingState, load_state, save_atomically, save_state
from raydistill.training.metrics_log import MetricsLog
from raydistill.training.plan import TrainingPlan
from raydistill.training.step import Weights, distillation_loss
from raydistill.training.validation import validate

LOG_EVERY = 20  # steps; reading the metrics waits for the device


def train_student(
    plan: TrainingPlan,
    data: dict[str, TaskData],
    rank: int = 0,
    num_ranks: int = 1,
    device: torch.device | None = None,
    wrap: Callable[[nn.Module], nn.Module] = lambda module: module,
    on_log: Callable[[dict[str, Any]], None] = lambda line: None,
) -> TrainingState:
    """Train one arm from its last checkpoint, or from its start, to its end.

    Args:
        plan: what to train.
        data: by task.
        rank, num_ranks: this worker's place. All ranks step together; rank 0 validates, logs and saves.
        device: default CPU.
        wrap: makes the student data-parallel.
        on_log: hears every line of metrics.jsonl (rank 0).

    Returns:
        The final state; the student to use is in `best.pt`.
    """
    config, training = plan.config, plan.config.training
    device = device or torch.device("cpu")
    bf16 = use_bf16(training.precision, device)
    student = Student.from_pretrained(str(plan.initial_student)).to(device)
    optimizer = torch.optim.AdamW(
        parameter_groups(student, training.weight_decay), lr=training.learning_rate, betas=(0.9, 0.98), fused=True
    )
    state = load_state(plan.folder) or TrainingState()
    if state.step:
        student.load_state_dict(state.model)
        optimizer.load_state_dict(state.optimizer)
        state.resumed_at = state.step
    model = wrap(student)
    maker = BatchMaker(plan_rows(config, data, plan.arm, plan.seed, num_ranks), data, student, rank, num_ranks)
    weights = Weights(config.distill.temperature, config.distill.hard_weight, config.distill.task_weights)
    source = plan.open_source() if plan.open_source else None
    log = MetricsLog(plan.folder, plan.name, plan.tensorboard, state.step, on_log) if rank == 0 else None
    start = Meter(state, source)
    student.train()
    try:
        micro_per_step = training.gradient_accumulation
        first = state.step * micro_per_step
        views = maker.views(range(first, training.num_steps * micro_per_step))
        stream = source.stream(views) if source else ((view, {}) for view in views)
        for step in range(state.step, training.num_steps):
            micro_steps = range(step * micro_per_step, (step + 1) * micro_per_step)
            counts = maker.counts(micro_steps)
            # Seeded by the step, not carried along: dropout after a resume is dropout without one.
            torch.manual_seed(hash((plan.seed, step, rank)) & 0x7FFF_FFFF_FFFF_FFFF)
            shares: list[dict[str, torch.Tensor]] = []
            for micro_step in micro_steps:
                step_views, soft_targets = next(stream)
                batches = maker.task_batches(step_views, soft_targets, counts, device)
                last = micro_step == micro_steps[-1]
                with no_sync(model, unless=last), autocast(device, bf16):
                    total_loss, metrics = distillation_loss(model, student.tasks, batches, weights)
                shares.append(metrics)
                # DDP averages gradients over ranks; the counts are global, so the sum is what is wanted.
                (total_loss * num_ranks).backward()
                state.student_samples += sum(rows for rows, _ in counts.values()) // micro_per_step
            rate = learning_rate_at(step, training.learning_rate, training.num_steps, training.warmup_fraction)
            for group in optimizer.param_groups:
                group["lr"] = rate
            nn.utils.clip_grad_norm_(student.parameters(), training.clip_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            state.step = step + 1
            validating = state.step % training.evaluate_every == 0 or state.step == training.num_steps
            if validating:
                start.settle(state, device)
            if validating or state.step % LOG_EVERY == 0:
                values = whole_step(shares)
            if log and (validating or state.step % LOG_EVERY == 0):
                log.write(state.step, {**values, "learning_rate": rate, **start.rates(state)})
                if validating:
                    scores = validate(student, data, plan.ensemble_accuracy, bf16)
                    state.curve.append({"step": state.step, "train_loss": values["total_loss"], **scores})
                    log.write_validation(state.step, scores)
                    keep(state, student, optimizer, plan, scores["retention"])
    finally:
        if source:
            source.close()
        if log:
            log.close()
    return state


def whole_step(shares: list[dict[str, torch.Tensor]]) -> dict[str, float]:
    """The losses of a step from the shares of its micro-batches, on this rank and on all others."""
    names = list(shares[0])
    total = torch.stack([torch.stack([share[name].float() for name in names]) for share in shares]).sum(dim=0)
    if torch.distributed.is_initialized():
        torch.distributed.all_reduce(total)
    return dict(zip(names, total.tolist(), strict=True))


def keep(
    state: TrainingState,
    student: Student,
    optimizer: torch.optim.Optimizer,
    plan: TrainingPlan,
    score: float,
) -> None:
    """Save what a resume needs, and the student itself where it is the best so far."""
    state.model, state.optimizer = student.state_dict(), optimizer.state_dict()
    if score > state.best_score:
        state.best_score, state.best_step = score, state.step
        save_atomically(state.model, plan.folder / BEST)
    save_state(state, plan.folder)


def parameter_groups(student: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay for matrices, none for biases, norms and embeddings."""
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in student.named_parameters():
        (decayed if parameter.ndim > 1 and "embedding" not in name else plain).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]


def no_sync(model: nn.Module, unless: bool) -> contextlib.AbstractContextManager[Any]:
    """Ranks exchange gradients once a step, in the backward of its last micro-batch."""
    if unless or not isinstance(model, nn.parallel.DistributedDataParallel):
        return contextlib.nullcontext()
    return model.no_sync()


class Meter:
    """Time, rates and teacher cost since this process took over, added to what earlier ones left."""

    def __init__(self, state: TrainingState, source: SoftTargetSource | None) -> None:
        self.source = source
        self.began = time.perf_counter()
        self.before = (state.wall_s, state.teacher_samples, state.teacher_samples_cached, state.teacher_busy_s)
        self.samples_before = state.student_samples
        self.step_before = state.step

    def rates(self, state: TrainingState) -> dict[str, float]:
        """Steps and student samples per second since the start of this process."""
        seconds = max(1e-9, time.perf_counter() - self.began)
        return {
            "steps_per_s": (state.step - self.step_before) / seconds,
            "samples_per_s": (state.student_samples - self.samples_before) / seconds,
        }

    def settle(self, state: TrainingState, device: torch.device) -> None:
        """Bring the state's totals up to now. All ranks call it together: each asks for its own rows only."""
        state.wall_s = self.before[0] + time.perf_counter() - self.began
        if self.source:
            cost = self.source.cost()
            totals = torch.tensor([cost.samples, cost.samples_cached, cost.busy_s], dtype=torch.float64, device=device)
            if torch.distributed.is_initialized():
                torch.distributed.all_reduce(totals)
            samples, cached, busy_s = totals.tolist()
            state.teacher_samples = self.before[1] + int(samples)
            state.teacher_samples_cached = self.before[2] + int(cached)
            state.teacher_busy_s = self.before[3] + busy_s
