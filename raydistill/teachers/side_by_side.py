"""Several teachers trained at once: a Ray task each, as many together as the cluster's CPUs and GPUs allow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
import torch
from ray.exceptions import RayError, RayTaskError

from raydistill.config.models import Config, PlacementConfig
from raydistill.data.dataset import load_task_data
from raydistill.errors import RaydistillError, TeacherError
from raydistill.teachers.replica import placement_options
from raydistill.teachers.teach import train_teacher

Say = Callable[[str], None]


class Mailbox:
    """Carries the tasks' progress to whoever waits for them."""

    def __init__(self) -> None:
        self._messages: list[tuple[bool, str]] = []

    def post(self, lasting: bool, text: str) -> None:
        """From a task. Only the last few passing messages are worth keeping."""
        self._messages = [*self._messages[-50:], (lasting, text)]

    def collect(self) -> list[tuple[bool, str]]:
        """All since the last call."""
        messages, self._messages = self._messages, []
        return messages


def placements(config: Config, names: list[str], num_cpus: float, num_gpus: float) -> dict[str, PlacementConfig]:
    """What each of these teachers takes while it trains: what the config says, or an equal share of the cores.

    A share is two cores at least, where there are two: one alone would leave the slowest teacher crawling on it
    while the others idle.

    Args:
        num_cpus, num_gpus: of the cluster.
    """
    share = min(num_cpus, max(2.0, num_cpus // len(names)))
    equal = PlacementConfig(num_cpus=share, num_gpus=1.0 if num_gpus >= 1 else 0.0)
    settings = {name: config.teachers[name].train for name in names}
    return {name: (train and train.placement) or equal for name, train in settings.items()}


def _task(config: Config, name: str, placement: PlacementConfig, mailbox: Any) -> None:
    torch.set_num_threads(max(1, int(placement.num_cpus)))
    task = config.teachers[name].task
    data = load_task_data(task, config.tasks[task], Path(config.cache_dir).expanduser())
    train_teacher(
        config, name, data,
        progress=lambda text: mailbox.post.remote(False, text),
        say=lambda text: mailbox.post.remote(True, text),
    )  # fmt: skip


def train_side_by_side(config: Config, placed: dict[str, PlacementConfig], progress: Say, say: Say) -> None:
    """Train teachers as Ray tasks and wait for all.

    Args:
        placed: by teacher, what it takes; `placements` proposes.
        progress: hears passing messages.
        say: hears those to keep.

    Raises:
        TeacherError: one failed; the others are stopped, and go on from their last evaluation next time.
    """
    mailbox: Any = ray.remote(Mailbox).options(num_cpus=0).remote()
    pending = {}
    try:
        for name, placement in placed.items():
            # A retry would go on from the last evaluation; so does the user's next call, who then knows of it.
            options = {**placement_options(placement), "max_retries": 0}
            pending[ray.remote(_task).options(**options).remote(config, name, placement, mailbox)] = name
        while pending:
            finished, _ = ray.wait(list(pending), num_returns=1, timeout=0.5)
            for lasting, text in ray.get(mailbox.collect.remote(), timeout=60):
                (say if lasting else progress)(text)
            for reference in finished:
                _raise_own(pending.pop(reference), reference)
        for lasting, text in ray.get(mailbox.collect.remote(), timeout=60):
            if lasting:
                say(text)
    finally:
        for reference in pending:
            ray.cancel(reference, force=True)
        ray.kill(mailbox)


def _raise_own(name: str, reference: Any) -> None:
    try:
        ray.get(reference)
    except RayTaskError as error:
        if isinstance(error.cause, RaydistillError):
            raise type(error.cause)(str(error.cause)) from error
        raise TeacherError(
            f"teacher {name!r}: training failed: {type(error.cause).__name__}: {str(error.cause).splitlines()[0]}"
        ) from error
    except RayError as error:
        raise TeacherError(
            f"teacher {name!r}: its training process ended ({str(error).strip().splitlines()[0][:160]}); run the same "
            "command to go on from its last evaluation"
        ) from error
