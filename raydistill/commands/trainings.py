"""Train the students of a comparison: one after the other, or side by side where cores would idle."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from raydistill.commands.cluster import largest_node, needs_ray
from raydistill.commands.progress import Progress
from raydistill.config.models import Config
from raydistill.data.dataset import TaskData, load_task_data
from raydistill.evaluation.terminal import TEACHER_BOUND
from raydistill.side_by_side import Job, run_side_by_side
from raydistill.training.checkpoint import TrainingState, load_state
from raydistill.training.events import read_events
from raydistill.training.launch import launch
from raydistill.training.plan import TrainingPlan


def train_all(
    plans: list[TrainingPlan],
    data: dict[str, TaskData],
    progress: Progress,
    stored: bool,
    on_stored: Callable[[], None] = lambda: None,
) -> list[TrainingState]:
    """The final states without their weights, in the order of the plans.

    A small student keeps one core busy and not many more, so trainings that need nothing but a CPU (local mode,
    stored soft labels) run as Ray tasks, each with an equal share of the cores. All others have the machine, or the
    cluster, to themselves in turn.

    Args:
        stored: no teacher is asked any more.
        on_stored: called when that comes true while students train.
    """

    def show(plan: TrainingPlan, line: dict[str, Any]) -> None:
        if line.get("from_store_only"):
            on_stored()
        _show(progress, plan, line)

    share = _share(plans) if stored else None
    if share is None:
        states = [_without_weights(launch(plan, data, partial(show, plan))) for plan in plans]
    else:
        by_name = {plan.name: plan for plan in plans}
        jobs = {name: Job(_train, (plan, share), {"num_cpus": share}) for name, plan in by_name.items()}
        found = run_side_by_side(
            jobs, lambda name, line: show(by_name[name], line), progress.say, plans[0].config.ray.wait_s
        )
        states = list(found.values())
    for plan, state in zip(plans, states, strict=True):
        for at, what in read_events(plan.folder):
            progress.happened(at, f"{_title(plan)}: {what}")
        progress.say(
            f"{_title(plan)}: trained in {state.wall_s:.0f} s, best validation retention {state.best_score:.3f} "
            f"at step {state.best_step}"
        )
    return states


def _share(plans: list[TrainingPlan]) -> int | None:
    """Cores for each training, or None where they run in turn.

    Counted over all plans, finished ones too: a resumed run must add its numbers with as many threads as before.
    """
    config: Config = plans[0].config
    alone = config.training.num_workers == 0 and config.ray.address is None and needs_ray(config)
    if not alone or len(plans) < 2 or torch.cuda.is_available():
        return None
    # Ray's count knows of the limits of a container; a user may have told it of more cores than there are.
    cores = min(int(largest_node("CPU")), os.cpu_count() or 1)
    share = max(1, cores // len(plans))
    begun = [state for state in (load_state(plan.folder) for plan in plans) if state is not None]
    if any(state.step < config.training.num_steps and state.num_threads != share for state in begun):
        return None  # begun in turn, before the store was full: they end as they would have ended then
    return share if cores > 1 else None


def _train(plan: TrainingPlan, num_threads: int, post: Callable[[dict[str, Any]], None]) -> TrainingState:
    torch.set_num_threads(num_threads)
    cache_dir = Path(plan.config.cache_dir).expanduser()
    data = {
        name: load_task_data(name, task, cache_dir, prepared=plan.prepared.get(name))
        for name, task in plan.config.tasks.items()
    }
    return _without_weights(launch(plan, data, post))


def _without_weights(state: TrainingState) -> TrainingState:
    """They lie in the plan's folder: they need not travel, nor stay on a GPU while the next student trains."""
    return dataclasses.replace(state, model={}, optimizer={}, beside={})


def _title(plan: TrainingPlan) -> str:
    return f"student {plan.arm}, seed {plan.seed}"


def _show(progress: Progress, plan: TrainingPlan, line: dict[str, Any]) -> None:
    num_steps = plan.config.training.num_steps
    if "event" in line:
        progress.say(f"{_title(plan)}: {line['event']}")
    if "total_loss" in line:
        left = (num_steps - line["step"]) / max(1e-9, line["steps_per_s"])
        progress(
            f"{_title(plan)}: step {line['step']}/{num_steps}, loss {line['total_loss']:.3f}, "
            f"{line['samples_per_s']:,.0f} samples/s, {left:.0f} s left{_verdict(line)}"
        )


def _verdict(line: dict[str, Any]) -> str:
    """Who holds up the student, if anyone does: `, teacher-bound (minilm 62%)`."""
    waiting = {key.removeprefix("waiting/"): value for key, value in line.items() if key.startswith("waiting/")}
    if not waiting:
        return ""
    if sum(waiting.values()) < TEACHER_BOUND:
        return f", student-bound ({line['store_share']:.0%} from the store)"
    starving = max(waiting, key=lambda name: waiting[name])
    return f", teacher-bound ({starving} {waiting[starving]:.0%})"
