"""How much there is to do: rows of the data, and those whose soft labels are there already."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from raydistill.config.models import Config


@dataclass(frozen=True)
class TaskSize:
    """Rows of each split, and distinct views of a training row."""

    train: int
    validation: int
    test: int
    views: int = 1


@dataclass(frozen=True)
class TeacherSize:
    """What there is to do for a teacher.

    Attributes:
        known: training rows, each counted once a view, that the store has.
        known_plain: rows of validation and test that it has.
        always: it is asked in every step, whatever the store has: for features that are not kept.
        lessons: steps of its own training, none where it is trained; `exams`: rows that it answers meanwhile.
    """

    known: int = 0
    known_plain: int = 0
    always: bool = False
    lessons: int = 0
    exams: int = 0


@dataclass(frozen=True)
class Sizes:
    """Of a run's data and of what is there already."""

    tasks: Mapping[str, TaskSize]
    teachers: Mapping[str, TeacherSize]

    def missing(self, config: Config) -> dict[str, float]:
        """By teacher, the share of its training rows that it has yet to be asked about; those without any left out."""
        shares = {}
        for name, size in self.teachers.items():
            of = self.total(config, name)
            share = 1.0 if size.always or not keeps(config) else 1 - min(size.known, of) / of
            if share > 0:
                shares[name] = share
        return shares

    def total(self, config: Config, teacher: str) -> int:
        """Training rows, once a view."""
        task = self.tasks[config.teachers[teacher].task]
        return task.train * max(1, task.views)


def keeps(config: Config) -> bool:
    """Whether what a teacher has said once is read from then on."""
    return config.store.fill or config.distill.soft_labels == "stored"
