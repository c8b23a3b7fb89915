"""The teachers at hand for the length of a command: in this process, or in pools of Ray actors."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from raydistill.commands.progress import Progress
from raydistill.config.models import Config
from raydistill.data.batch import ViewBatch
from raydistill.soft_labels.source import Labeller
from raydistill.teachers.local import LocalTeachers, load_teachers

LabelNames = dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class Experts:
    """Loaded teachers.

    Attributes:
        descriptions: by name: fingerprint, num_parameters, size_bytes.
        labeller: asks them from this process; safe in threads, closed with the block.
        ways: how a training worker reaches them: see `SourcePlan`.
        why_one_way: where there is only one.
        latency_ms: of a teacher on some views, per row.
        remote: whether they run elsewhere.
    """

    descriptions: dict[str, dict[str, Any]]
    labeller: Labeller
    ways: dict[str, Callable[[], Labeller]]
    why_one_way: str
    latency_ms: Callable[[str, ViewBatch], float]
    remote: bool


@contextlib.contextmanager
def experts(
    config: Config, label_names: LabelNames, progress: Progress, students_elsewhere: bool = False
) -> Iterator[Experts]:
    """Load every teacher, or join the pools that serve them; let them go at the end of the block.

    Args:
        students_elsewhere: they train in other processes, even in local mode.

    Raises:
        TeacherError: one cannot be loaded.
    """
    if config.distill.soft_labels == "local":
        yield _in_this_process(config, label_names, progress, students_elsewhere)
        return
    from raydistill.teachers.pool.opening import open_pools

    with open_pools(config, label_names, progress) as pools:
        ways: dict[str, Callable[[], Labeller]] = {"remote": pools.client}
        why = _why_not_local(config)
        if not why:
            ways["local"] = partial(_load, config, label_names)
        yield Experts(pools.descriptions, pools.labeller, ways, why, pools.latency_ms, remote=True)


def _in_this_process(config: Config, label_names: LabelNames, progress: Progress, students_elsewhere: bool) -> Experts:
    progress.say("teachers: loading in this process")
    teachers = load_teachers(config, label_names)
    # A student in this process uses what is loaded; another process loads its own.
    elsewhere = students_elsewhere or config.training.num_workers > 0
    own = partial(_load, config, label_names) if elsewhere else partial(LocalTeachers, teachers)
    return Experts(
        descriptions={name: teacher.describe() for name, teacher in teachers.items()},
        labeller=LocalTeachers(teachers),
        ways={"local": own},
        why_one_way="",
        latency_ms=lambda name, views: teachers[name].latency_ms(views),
        remote=False,
    )


def _why_not_local(config: Config) -> str:
    """What speaks against teachers in the student's own process; empty where both ways are to be tried."""
    if config.training.num_workers:
        return "every worker would hold all teachers"
    if any(teacher.placement.num_gpus for teacher in config.teachers.values()):
        return "teachers have devices of their own"
    return ""


def _load(config: Config, label_names: LabelNames) -> Labeller:
    return LocalTeachers(load_teachers(config, label_names))
