"""What is known of the teachers once they have been asked, and where a training finds their soft labels then."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from raydistill.commands.experts import Experts
from raydistill.commands.labels import Labels, training_jobs
from raydistill.config.models import Config
from raydistill.data.dataset import TaskData
from raydistill.fusion.standing import Standing
from raydistill.soft_labels.layers import layer_of, layers_asked, layers_kept
from raydistill.soft_labels.source import Labeller
from raydistill.soft_labels.tables import RunTables
from raydistill.teachers.sources import SourcePlan


@dataclass(frozen=True)
class KnownTeachers:
    """What a student's training has to know of its teachers. Travels to workers.

    Attributes:
        descriptions: by name: fingerprint, num_parameters, size_bytes.
        ensemble_accuracy: by task, on the validation split: what retention is measured against.
        standings: of each task's teachers.
        feature_shapes: of their layers, by name of a feature loss.
        ways: how to reach them, see `SourcePlan`; empty: the store knows everything.
        why_one_way: where there is only one.
    """

    descriptions: dict[str, dict[str, Any]]
    ensemble_accuracy: dict[str, float]
    standings: dict[str, tuple[Standing, ...]]
    ways: Mapping[str, Callable[[], Labeller]]
    why_one_way: str = ""
    feature_shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)


def known_teachers(config: Config, at_hand: Experts, labels: Labels, data: dict[str, TaskData]) -> KnownTeachers:
    """Of teachers that have been asked about the validation split."""
    return KnownTeachers(
        at_hand.descriptions, labels.ensemble_accuracy(data), labels.by_task(), at_hand.ways, at_hand.why_one_way,
        probe_features(config, at_hand, data),
    )  # fmt: skip


def probe_features(config: Config, at_hand: Experts, data: dict[str, TaskData]) -> dict[str, tuple[int, ...]]:
    """Shapes, without the batch, of the teachers' layers that feature losses name; each teacher is asked two rows.

    Raises:
        TeacherError: there is no such layer, or it gives no features.
    """
    shapes = {}
    for teacher, layers in layers_asked(config.distill).items():
        views = data[config.teachers[teacher].task].validation.views(range(2))
        found = at_hand.labeller.ask(teacher, views, layers).result().features
        for name, feature in config.distill.features.items():
            if feature.teacher == teacher:
                shapes[name] = tuple(found[layer_of(feature)].shape[1:])
    return shapes


def source_plan(config: Config, data: dict[str, TaskData], known: KnownTeachers) -> SourcePlan:
    """Where the distilled students' soft labels will come from."""
    taught = {job.teacher: job.taught for job in training_jobs(config, data, known.descriptions)}
    mode = config.distill.soft_labels
    ways = {way: reach for way, reach in known.ways.items() if mode in ("auto", way)}
    kept = layers_kept(config.distill, known.feature_shapes) if config.store.features else {}
    tables = RunTables(config, taught, kept) if config.store.fill or mode == "stored" else None
    return SourcePlan(config, ways, tables, known.why_one_way)
