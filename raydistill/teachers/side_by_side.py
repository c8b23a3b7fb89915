"""Several teachers trained at once: a Ray task each, as many together as the cluster's CPUs and GPUs allow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
import torch
from ray.exceptions import RayError, RayTaskError

from raydistill.config.models import Config
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


def _task(config: Config, name: str, mailbox: Any) -> None:
    train = config.teachers[name].train
    assert train is not None
    torch.set_num_threads(max(1, int(train.placement.num_cpus)))
    task = config.teachers[name].task
    data = load_task_data(task, config.tasks[task], Path(config.cache_dir).expanduser())
    train_teacher(
        config, name, data,
        progress=lambda text: mailbox.post.remote(False, text),
        say=lambda text: mailbox.post.remote(True, text),
    )  # fmt: skip


def train_side_by_side(config: Config, names: list[str], progress: Say, say: Say) -> None:
    """Train the named teachers as Ray tasks and wait for all.

    Args:
        progress: hears passing messages.
        say: hears those to keep.

    Raises:
        TeacherError: one failed; the others are stopped, and go on from their last evaluation next time.
    """
    mailbox = ray.remote(Mailbox).options(num_cpus=0).remote()
    pending = {}
    try:
        for name in names:
            train = config.teachers[name].train
            assert train is not None
            # A retry on our side would start from the last evaluation; so does the user's next call.
            options = {**placement_options(train.placement), "max_retries": 0}
            pending[ray.remote(_task).options(**options).remote(config, name, mailbox)] = name
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
