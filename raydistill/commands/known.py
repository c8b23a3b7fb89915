"""What is known of the teachers once they have been asked, and where a training finds their soft labels then."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from raydistill.commands.labels import training_jobs
from raydistill.config.models import Config
from raydistill.data.dataset import TaskData
from raydistill.soft_labels.source import Labeller
from raydistill.soft_labels.tables import RunTables
from raydistill.teachers.sources import SourcePlan


@dataclass(frozen=True)
class KnownTeachers:
    """What a student's training has to know of its teachers. Travels to workers.

    Attributes:
        descriptions: by name: fingerprint, num_parameters, size_bytes.
        ensemble_accuracy: by task, on the validation split: what retention is measured against.
        ways: how to reach them, see `SourcePlan`; empty: the store knows everything.
        why_one_way: where there is only one.
    """

    descriptions: dict[str, dict[str, Any]]
    ensemble_accuracy: dict[str, float]
    ways: Mapping[str, Callable[[], Labeller]]
    why_one_way: str = ""


def source_plan(config: Config, data: dict[str, TaskData], known: KnownTeachers) -> SourcePlan:
    """Where the distilled students' soft labels will come from."""
    taught = {job.teacher: job.taught for job in training_jobs(config, data, known.descriptions)}
    mode = config.distill.soft_labels
    ways = {way: reach for way, reach in known.ways.items() if mode in ("auto", way)}
    tables = RunTables(config, taught) if config.store.fill or mode == "stored" else None
    return SourcePlan(config, ways, tables, known.why_one_way)
