"""The loop that a worker runs: draw, ask the teachers, step, now and then validate and save."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from raydistill.config.models import Config
from raydistill.data.dataset import TaskData
from raydistill.errors import RaydistillError, first_line
from raydistill.fusion.fuser import make_fuser
from raydistill.precision import autocast, use_bf16
from raydistill.schedule import learning_rate_at
from raydistill.student.model import Student
from raydistill.training.balance import Balance, Measured
from raydistill.training.batches import BatchMaker, num_parts, plan_rows
from raydistill.training.checkpoint import BEST, TrainingState, load_state, save_atomically, save_state
from raydistill.training.costs import write_costs
from raydistill.training.events import Event, append_events
from raydistill.training.features import features_of, make_matchers
from raydistill.training.meter import Meter
from raydistill.training.metrics_log import MetricsLog
from raydistill.training.notices import LEAVING, Notice, Notices
from raydistill.training.plan import TrainingPlan
from raydistill.training.step import Objective, TaskBatch
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
    leaving: Callable[[], Notice | None] | None = None,
) -> TrainingState:
    """Train one arm from its last checkpoint, or from its start, to its end.

    Args:
        plan: what to train.
        data: by task.
        rank, num_ranks: this worker's place. All ranks step together; rank 0 validates, logs and saves. Fewer ranks
            than the config's workers learn the same, each from several parts of a micro-batch.
        device: default CPU.
        wrap: makes the student data-parallel.
        on_log: hears every line of metrics.jsonl (rank 0).
        leaving: whether nodes are about to go, if any may; all ranks ask together; a checkpoint is written in time.

    Returns:
        The final state; the student to use is in `best.pt`.
    """
    config, training = plan.config, plan.config.training
    device = device or torch.device("cpu")
    bf16 = use_bf16(training.precision, device)
    student = Student.from_pretrained(str(plan.initial_student)).to(device)
    distill, micro_per_step = config.distill, training.gradient_accumulation
    parts = range(rank, num_parts(config), num_ranks)
    assert parts, "there are more ranks than workers in the config"
    fusers = {
        name: make_fuser(distill, name, standings, len(student.tasks[name].label_names))
        for name, standings in plan.standings.items()
        if plan.open_source and standings
    }
    torch.manual_seed(plan.seed)  # of projectors: the student itself comes with its weights
    some = {name: task.train.views(range(2)) for name, task in data.items()}
    matchers = make_matchers(config, student, some, plan.feature_shapes) if plan.open_source else {}
    objective = Objective(student, student.tasks, distill, fusers, matchers).to(device)
    most_parts = -(-num_parts(config) // num_ranks)
    balance = Balance(distill, objective, micro_per_step * most_parts, num_ranks, plan.seed)
    groups = parameter_groups(student, training.weight_decay)
    groups.append({"params": [*objective.beside.parameters(), *balance.parameters], "weight_decay": 0.0})
    optimizer = torch.optim.AdamW(groups, lr=training.learning_rate, betas=(0.9, 0.98), fused=True)
    state = load_state(plan.folder) or TrainingState()
    if state.step:
        try:
            student.load_state_dict(state.model)
            objective.beside.load_state_dict(state.beside)
            balance.restore(state.balancing)
            optimizer.load_state_dict(state.optimizer)
        except (KeyError, RuntimeError, ValueError) as error:
            raise RaydistillError(
                f"the checkpoint in {plan.folder} is of another version or setting ({first_line(error)}); run with "
                "--again to start over"
            ) from error
    if state.num_threads:
        torch.set_num_threads(state.num_threads)
    state.num_threads = torch.get_num_threads()
    model = wrap(objective)
    rows = plan_rows(config, data, plan.arm, plan.seed)
    features = {name: features_of(config, name) for name in config.tasks}
    maker = BatchMaker(rows, data, student, teacher_names(plan), features, parts, num_parts(config))
    source = plan.open_source() if plan.open_source else None
    log = MetricsLog(plan.folder, plan.name, plan.tensorboard, state.step, on_log) if rank == 0 else None
    meter, names = Meter(state, source, plan.folder), loss_names(config, source is not None)
    notices = Notices(leaving, device, state.step)
    objective.train()
    if state.step and rank == 0:
        workers = f" with {num_ranks} of {num_parts(config)} workers" if num_parts(config) > 1 else ""
        hand_on([(time.time(), f"went on from step {state.step}{workers}")], plan, on_log)
    try:
        first = state.step * micro_per_step
        views = maker.views(range(first, training.num_steps * micro_per_step))
        stream = source.stream(views) if source else ((view, {}) for view in views)
        for step in range(state.step, training.num_steps):
            micro_steps = range(step * micro_per_step, (step + 1) * micro_per_step)
            counts = maker.counts(micro_steps)
            shares: list[dict[str, torch.Tensor]] = []
            seen: list[dict[str, TaskBatch]] = []
            together = balance.begin(step)
            for micro_step, part in itertools.product(micro_steps, parts):
                # Seeded by place, not carried along: dropout after a resume, or on other ranks, is dropout without.
                torch.manual_seed(hash((plan.seed, micro_step, part)) & 0x7FFF_FFFF_FFFF_FFFF)
                step_views, soft_targets = next(stream)
                batches = maker.task_batches(step_views, soft_targets, counts, device)
                last = (micro_step, part) == (micro_steps[-1], parts[-1])
                with no_sync(model, unless=last and together):
                    with autocast(device, bf16):
                        by_task, beside, metrics = model(batches)
                    balance.backward(by_task, beside, step)
                shares.append(metrics)
                if balance.looks_again:
                    seen.append(batches)
            state.student_samples += sum(rows for rows, _ in counts.values())
            rate = learning_rate_at(step, training.learning_rate, training.num_steps, training.warmup_fraction)
            for group in optimizer.param_groups:
                group["lr"] = rate
            measured = balance.finish(step)
            nn.utils.clip_grad_norm_(student.parameters(), training.clip_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            state.step = step + 1
            balance.learn(state.step, partial(look_again, objective, seen, device, bf16))
            if measured and state.step % config.distill.balancing_options.measure_every == 0:
                state.balance.append({"step": state.step, **measured})
                if log:
                    log.write(state.step, flattened(measured))
            validating = state.step % training.evaluate_every == 0 or state.step == training.num_steps
            warned = notices.look(state.step)
            logging = validating or warned or state.step % LOG_EVERY == 0
            if (validating or warned) and source:
                source.flush()  # on all ranks, before rank 0 saves: they meet in `settle`
            if logging:
                meter.settle(state, device)
                values = whole_step(shares, names)
                hand_on(source.events() if source else [], plan, on_log if rank == 0 else None)
                if log:
                    write_costs(state, plan.folder)
                    log.write(state.step, {**values, "learning_rate": rate, **meter.rates(state)})
            if log and validating:
                scores = validate(student, data, plan.ensemble_accuracy, bf16)
                state.curve.append({"step": state.step, "train_loss": values["total_loss"], **scores})
                log.write_validation(state.step, scores)
                keep_best(state, student, plan, scores["retention"])
            if log and (validating or warned):
                state.model, state.optimizer = student.state_dict(), optimizer.state_dict()
                state.beside, state.balancing = objective.beside.state_dict(), balance.state()
                state.trust = {name: fuser.trust() for name, fuser in fusers.items() if len(fuser.teachers) > 1}
                save_state(state, plan.folder)
                meter.skip()
            if warned:
                told = f"{LEAVING}: checkpoint at step {state.step}"
                hand_on([(time.time(), told)] if rank == 0 else [], plan, on_log)
    finally:
        try:
            if source:
                source.close()
        finally:
            hand_on(source.events() if source else [], plan, on_log if rank == 0 else None)
            if log:
                log.close()
    return state


def loss_names(config: Config, with_teachers: bool) -> list[str]:
    """What a step is logged by: the same on every rank, whatever befell a teacher of one of them."""
    soft = [f"{name}/soft_loss" for name in config.tasks if with_teachers and config.teachers_of(name)]
    if with_teachers:
        soft += [f"{task}/{name}" for task in config.tasks for name in features_of(config, task)]
    return [*soft, *(f"{name}/hard_loss" for name in config.tasks), "total_loss"]


def teacher_names(plan: TrainingPlan) -> dict[str, list[str]]:
    """By task, in the order in which their logits are stacked."""
    return {task: [each.teacher for each in standings] for task, standings in plan.standings.items()}


@torch.no_grad()
def look_again(
    objective: Objective, seen: list[dict[str, TaskBatch]], device: torch.device, bf16: bool
) -> torch.Tensor:
    """The losses [tasks] of a step's micro-batches by the student as it is now."""
    with autocast(device, bf16):
        return torch.stack([torch.stack(list(objective(batches)[0].values())) for batches in seen]).sum(dim=0)


def flattened(measured: Measured) -> dict[str, float]:
    """As the log names it: `balance/cosine/a~b`."""
    return {f"balance/{kind}/{name}": value for kind, by in measured.items() for name, value in by.items()}


def whole_step(shares: list[dict[str, torch.Tensor]], names: list[str]) -> dict[str, float]:
    """The losses of a step from the shares of its micro-batches, on this rank and on all others."""
    nothing = torch.zeros_like(shares[0]["total_loss"], dtype=torch.float32)
    rows = [torch.stack([share.get(name, nothing).float() for name in names]) for share in shares]
    total = torch.stack(rows).sum(dim=0)
    if torch.distributed.is_initialized():
        torch.distributed.all_reduce(total)
    return dict(zip(names, total.tolist(), strict=True))


def hand_on(events: list[Event], plan: TrainingPlan, on_log: Callable[[dict[str, Any]], None] | None) -> None:
    """Tell what happened: to the run's report, and to whoever watches."""
    append_events(plan.folder, events, plan.events_file)
    if on_log:
        for at, what in events:
            on_log({"event": what, "at": at})


def keep_best(state: TrainingState, student: Student, plan: TrainingPlan, score: float) -> None:
    """Save the student itself where it is the best so far."""
    if score > state.best_score:
        state.best_score, state.best_step = score, state.step
        save_atomically(student.state_dict(), plan.folder / BEST)


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
