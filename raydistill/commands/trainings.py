"""Train the students of a comparison: one after the other, or side by side where cores would idle."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from raydistill.commands.cluster import largest_node
from raydistill.commands.progress import Progress
from raydistill.config.models import Config
from raydistill.data.dataset import TaskData, load_task_data
from raydistill.side_by_side import Job, run_side_by_side
from raydistill.training.checkpoint import TrainingState
from raydistill.training.launch import launch
from raydistill.training.plan import TrainingPlan


def train_all(plans: list[TrainingPlan], data: dict[str, TaskData], progress: Progress) -> list[TrainingState]:
    """The final states, in the order of the plans.

    A small student keeps one core busy and not many more, so trainings that need nothing but a CPU (local mode,
    stored soft labels) run as Ray tasks, each with an equal share of the cores. All others have the machine, or the
    cluster, to themselves in turn.
    """
    share = _share(plans)
    if share is None:
        states = [launch(plan, data, partial(_show, progress, plan)) for plan in plans]
    else:
        by_name = {plan.name: plan for plan in plans}
        jobs = {name: Job(_train, (plan, share), {"num_cpus": share}) for name, plan in by_name.items()}
        found = run_side_by_side(jobs, lambda name, line: _show(progress, by_name[name], line))
        states = list(found.values())
    for plan, state in zip(plans, states, strict=True):
        if state.resumed_at:
            progress.event(f"{_title(plan)}: went on from step {state.resumed_at}")
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
    alone = config.training.num_workers == 0 and config.distill.soft_labels == "stored" and config.ray.address is None
    if not alone or len(plans) < 2 or torch.cuda.is_available():
        return None
    cores = int(largest_node("CPU"))  # Ray's count: it knows of the limits of a container
    return max(1, cores // len(plans)) if cores > 1 else None


def _train(plan: TrainingPlan, num_threads: int, post: Callable[[dict[str, Any]], None]) -> TrainingState:
    torch.set_num_threads(num_threads)
    cache_dir = Path(plan.config.cache_dir).expanduser()
    data = {name: load_task_data(name, task, cache_dir) for name, task in plan.config.tasks.items()}
    state = launch(plan, data, post)
    # The weights lie in the plan's folder; they need not travel.
    state.model, state.optimizer = {}, {}
    return state


def _title(plan: TrainingPlan) -> str:
    return f"student {plan.arm}, seed {plan.seed}"


def _show(progress: Progress, plan: TrainingPlan, line: dict[str, Any]) -> None:
    num_steps = plan.config.training.num_steps
    if "total_loss" in line:
        left = (num_steps - line["step"]) / max(1e-9, line["steps_per_s"])
        progress(
            f"{_title(plan)}: step {line['step']}/{num_steps}, loss {line['total_loss']:.3f}, "
            f"{line['samples_per_s']:,.0f} samples/s, {left:.0f} s left"
        )
