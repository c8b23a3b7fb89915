"""Several long jobs at once: a Ray task each, as many together as the cluster's CPUs and GPUs allow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from raydistill.errors import RaydistillError, first_line
from raydistill.patience import Patience, free_of

BEGUN = "raydistill: begun"  # a job's first message


@dataclass(frozen=True)
class Job:
    """A call of `function(*arguments, post)`, where `post(message)` sends something to the waiting side.

    Attributes:
        options: what the Ray task asks for.
    """

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    options: dict[str, Any]


class Mailbox:
    """Carries the jobs' messages to whoever waits for them."""

    def __init__(self) -> None:
        self._messages: list[tuple[str, Any]] = []

    def post(self, job: str, message: Any) -> None:
        """From a job."""
        self._messages.append((job, message))

    def collect(self) -> list[tuple[str, Any]]:
        """All since the last call."""
        messages, self._messages = self._messages, []
        return messages


def _run(job: Job, name: str, mailbox: Any) -> Any:
    mailbox.post.remote(name, BEGUN)
    return job.function(*job.arguments, lambda message: mailbox.post.remote(name, message))


def run_side_by_side(
    jobs: dict[str, Job],
    on_message: Callable[[str, Any], None],
    say: Callable[[str], None],
    wait_s: float,
    failure: type[RaydistillError] = RaydistillError,
) -> dict[str, Any]:
    """Run all jobs and wait for them.

    Args:
        jobs: by name.
        on_message: hears (name, message) of what they post.
        say: hears what is waited for, where the cluster has no room for any of them.
        wait_s: for room; see `Patience`.
        failure: what a job's death, or an error that is not ours, becomes.

    Returns:
        Their results by name.

    Raises:
        RaydistillError: a job failed; the others are stopped. An error of ours arrives as it was raised.
        ConfigError: no room came in time.
    """
    mailbox: Any = ray.remote(Mailbox).options(num_cpus=0).remote()
    pending: dict[Any, str] = {}
    results: dict[str, Any] = {}
    begun: set[str] = set()
    patience = Patience(lambda: _waiting(jobs, set(pending.values())), say, wait_s)

    def deliver() -> None:
        for name, message in ray.get(mailbox.collect.remote(), timeout=60):
            if isinstance(message, str) and message == BEGUN:
                begun.add(name)
            else:
                on_message(name, message)

    try:
        for name, job in jobs.items():
            # No retries: what a job has saved, it goes on from when the user calls again, who then knows of it.
            task = ray.remote(_run).options(max_retries=0, **job.options)
            pending[task.remote(job, name, mailbox)] = name
        while pending:
            finished, _ = ray.wait(list(pending), num_returns=1, timeout=0.5)
            deliver()
            for reference in finished:
                name = pending.pop(reference)
                results[name] = _result(name, reference, failure)
            patience.look(bool(finished or begun.intersection(pending.values())))
        deliver()
    finally:
        for reference in pending:
            ray.cancel(reference, force=True)
        ray.kill(mailbox)
    return {name: results[name] for name in jobs}


def _waiting(jobs: dict[str, Job], names: set[str]) -> str:
    options = [jobs[name].options for name in sorted(names)]
    asked = {"CPU": options[0].get("num_cpus", 1), "GPU": options[0].get("num_gpus", 0)}
    asked = {name: amount for name, amount in (asked | options[0].get("resources", {})).items() if amount}
    labels = options[0].get("label_selector") or {}
    each = ", ".join(
        [f"{name} {amount:g}" for name, amount in asked.items()]
        + [f"label {key}={value}" for key, value in labels.items()]
    )
    return f"{', '.join(sorted(names))} ({each} each; {free_of(asked)})"


def _result(name: str, reference: Any, failure: type[RaydistillError]) -> Any:
    try:
        return ray.get(reference)
    except RayTaskError as error:
        if isinstance(error.cause, RaydistillError):
            raise type(error.cause)(str(error.cause)) from error
        raise failure(f"{name} failed: {first_line(error.cause)}") from error
    except RayError as error:
        raise failure(
            f"{name}: its process ended ({first_line(error)}); the same command goes on from its last checkpoint"
        ) from error
