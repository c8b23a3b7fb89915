"""Several teachers trained at once, each as a Ray task."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from raydistill.config.models import Config, PlacementConfig
from raydistill.data.dataset import Prepared, load_task_data
from raydistill.errors import TeacherError
from raydistill.side_by_side import Job, run_side_by_side
from raydistill.teachers.pool.placement import placement_options
from raydistill.teachers.teach import train_teacher

Say = Callable[[str], None]


def placements(config: Config, names: list[str], num_cpus: float, num_gpus: float) -> dict[str, PlacementConfig]:
    """What each of these teachers takes while it trains: what the config says, or an equal share of the cores.

    A share is two cores at least, where there are two: one alone would leave the slowest teacher crawling on it
    while the others idle.

    Args:
        num_cpus, num_gpus: of the cluster's largest node.
    """
    share = min(num_cpus, max(2.0, num_cpus // len(names)))
    equal = PlacementConfig(num_cpus=share, num_gpus=1.0 if num_gpus >= 1 else 0.0)
    settings = {name: config.teachers[name].train for name in names}
    return {name: (train and train.placement) or equal for name, train in settings.items()}


def train_side_by_side(
    config: Config,
    prepared: Mapping[str, Prepared],
    placed: dict[str, PlacementConfig],
    progress: Say,
    say: Say,
    again: bool = False,
) -> dict[str, str]:
    """Train teachers as Ray tasks and wait for all.

    Args:
        prepared: by task, the data that the command has.
        placed: by teacher, what it takes; `placements` proposes.
        progress: hears passing messages.
        say: hears those to keep.

    Returns:
        By teacher, the name of the node that trained it.

    Raises:
        TeacherError: one failed; the others are stopped, and go on from their last evaluation next time.
    """
    jobs = {
        f"teacher {name!r}": Job(
            _train,
            (config, name, prepared.get(config.teachers[name].task), placement, again),
            placement_options(placement),
        )
        for name, placement in placed.items()
    }

    def hear(job: str, message: tuple[bool, str]) -> None:
        lasting, text = message
        (say if lasting else progress)(text)

    nodes = run_side_by_side(jobs, hear, say, config.ray.wait_s, TeacherError)
    return dict(zip(placed, nodes.values(), strict=True))


def _train(
    config: Config,
    name: str,
    prepared: Prepared | None,
    placement: PlacementConfig,
    again: bool,
    post: Callable[[tuple[bool, str]], None],
) -> str:
    torch.set_num_threads(max(1, int(placement.num_cpus)))
    task = config.teachers[name].task
    data = load_task_data(task, config.tasks[task], Path(config.cache_dir).expanduser(), prepared=prepared)
    train_teacher(
        config, name, data, progress=lambda text: post((False, text)), say=lambda text: post((True, text)), again=again
    )
    return socket.gethostname()
