"""Teachers behind Ray actors: a window of requests in flight, answers in order, every wait bounded."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError

from raydistill.config.models import Config, TeacherConfig
from raydistill.errors import RaydistillError, TeacherError, first_line
from raydistill.soft_labels.source import StepViews, TeacherCost
from raydistill.soft_labels.targets import SoftTargets
from raydistill.teachers.replica import start_replica


def start_teachers(
    config: Config, label_names: dict[str, tuple[str, ...]]
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """One actor a teacher, loaded.

    Args:
        label_names: by task.

    Returns:
        Handles and descriptions by name.
    """
    actors = {name: start_replica(config, name, label_names[teacher.task]) for name, teacher in config.teachers.items()}
    try:
        descriptions = {
            name: wait(name, actor.describe.remote(), config.teachers[name].timeout_s) for name, actor in actors.items()
        }
    except BaseException:
        stop_teachers(actors)
        raise
    return actors, descriptions


def stop_teachers(actors: dict[str, Any]) -> None:
    """End the actors' processes."""
    for actor in actors.values():
        ray.kill(actor)


def wait(name: str, reference: Any, timeout_s: float) -> Any:
    """A reply, or a TeacherError that names the teacher."""
    try:
        return ray.get(reference, timeout=timeout_s)
    except GetTimeoutError as error:
        raise TeacherError(
            f"teacher {name!r}: no reply within {timeout_s:g} s; raise teachers.{name}.timeout_s or give it more CPUs"
        ) from error
    except RayTaskError as error:
        if isinstance(error.cause, RaydistillError):
            raise type(error.cause)(str(error.cause)) from error
        raise TeacherError(f"teacher {name!r} failed: {first_line(error.cause)}") from error
    except RayActorError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, RaydistillError):
            raise type(cause)(str(cause)) from error
        text = str(error)
        for line in text.splitlines():
            # A constructor's error arrives as text only.
            if "raydistill.errors." in line:
                raise TeacherError(line.split(":", 1)[1].strip()) from error
        reason = text.strip().splitlines()[-1] if text.strip() else "its process ended"
        raise TeacherError(f"teacher {name!r}: its actor died ({reason[:160]})") from error
    except RayError as error:
        raise TeacherError(f"teacher {name!r}: no answer from Ray: {first_line(error)}") from error


class RemoteSource:
    """Asks actors ahead of need.

    Args:
        actors: handles by teacher.
        teachers: their configs: task, window, time-out.
        owned: whether `close` ends the actors.
    """

    def __init__(self, actors: dict[str, Any], teachers: dict[str, TeacherConfig], owned: bool = False) -> None:
        self._actors, self._teachers, self._owned = actors, teachers, owned
        self._window = min((teacher.window for teacher in teachers.values()), default=1)
        self._samples, self._busy_s = 0, 0.0

    def stream(self, batches: Iterable[StepViews]) -> Iterator[tuple[StepViews, dict[str, SoftTargets]]]:
        """See `SoftTargetSource.stream`. At most `window` micro-batches are in flight."""
        in_flight: deque[tuple[StepViews, dict[str, dict[str, Any]]]] = deque()
        for step_views in batches:
            in_flight.append((step_views, self._ask(step_views)))
            if len(in_flight) >= self._window:
                yield self._answer(*in_flight.popleft())
        while in_flight:
            yield self._answer(*in_flight.popleft())

    def _ask(self, step_views: StepViews) -> dict[str, dict[str, Any]]:
        requests: dict[str, dict[str, Any]] = {}
        for name, teacher in self._teachers.items():
            if teacher.task in step_views:
                reference = self._actors[name].label.remote(step_views[teacher.task])
                requests.setdefault(teacher.task, {})[name] = reference
        return requests

    def _answer(
        self, step_views: StepViews, requests: dict[str, dict[str, Any]]
    ) -> tuple[StepViews, dict[str, SoftTargets]]:
        targets = {}
        for task, references in requests.items():
            logits = {}
            for name, reference in references.items():
                logits[name], busy_s = wait(name, reference, self._teachers[name].timeout_s)
                self._busy_s += busy_s
                self._samples += len(step_views[task])
            targets[task] = SoftTargets(logits)
        return step_views, targets

    def cost(self) -> TeacherCost:
        """See `SoftTargetSource.cost`."""
        return TeacherCost(samples=self._samples, busy_s=self._busy_s)

    def close(self) -> None:
        """Ends the actors where this source owns them."""
        if self._owned:
            stop_teachers(self._actors)
            self._actors = {}
