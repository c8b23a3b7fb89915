"""The teachers at hand for the length of a command: in this process, or behind Ray actors."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from raydistill.commands.progress import Progress
from raydistill.config.models import Config
from raydistill.data.batch import ViewBatch
from raydistill.soft_labels.source import SoftTargetSource
from raydistill.teachers.local import LocalSource, open_local
from raydistill.teachers.remote import RemoteSource, start_teachers, stop_teachers, wait

LabelNames = dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class Experts:
    """Loaded teachers.

    Attributes:
        sources: by name, one for each teacher alone.
        descriptions: by name: fingerprint, num_parameters, size_bytes.
        open_source: all of them together, for a training worker; can be sent to one.
        latency_ms: of a teacher on some views, per row.
        remote: whether they run elsewhere.
    """

    sources: dict[str, SoftTargetSource]
    descriptions: dict[str, dict[str, Any]]
    open_source: Callable[[], SoftTargetSource]
    latency_ms: Callable[[str, ViewBatch], float]
    remote: bool


@contextlib.contextmanager
def experts(config: Config, label_names: LabelNames, progress: Progress) -> Iterator[Experts]:
    """Load every teacher; let them go at the end of the block.

    Raises:
        TeacherError: one cannot be loaded.
    """
    if config.distill.soft_labels == "local":
        progress.say("teachers: loading in this process")
        teachers = open_local(config, label_names).teachers
        yield Experts(
            sources={name: LocalSource({name: teacher}) for name, teacher in teachers.items()},
            descriptions={name: teacher.describe() for name, teacher in teachers.items()},
            # In local mode the worker is this process and uses what is loaded; another one loads its own.
            open_source=partial(open_local, config, label_names)
            if config.training.num_workers
            else partial(LocalSource, teachers),
            latency_ms=lambda name, views: teachers[name].latency_ms(views),
            remote=False,
        )
        return
    progress.say(f"teachers: starting an actor for each of {', '.join(config.teachers)}")
    actors, descriptions = start_teachers(config, label_names)
    try:
        yield Experts(
            sources={name: RemoteSource({name: actors[name]}, {name: config.teachers[name]}) for name in actors},
            descriptions=descriptions,
            open_source=partial(RemoteSource, actors, config.teachers),
            latency_ms=lambda name, views: wait(
                name, actors[name].latency_ms.remote(views), config.teachers[name].timeout_s
            ),
            remote=True,
        )
    finally:
        stop_teachers(actors)
