"""What a teacher is asked about a micro-batch, and which of its rows are this stream's to ask."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from raydistill.config.models import TeacherConfig
from raydistill.data.batch import ViewBatch
from raydistill.soft_labels.layers import Features
from raydistill.soft_labels.source import Pending
from raydistill.soft_labels.store import LabelTable
from raydistill.soft_labels.targets import SoftTargets


@dataclass
class Question:
    """What one teacher is asked about one micro-batch.

    Attributes:
        table: None where nothing is kept.
        asked: positions in the batch that this stream has the teacher compute.
        pending: their answer, on its way.
        computed: rows that the teacher has computed for it.
    """

    teacher: str
    views: ViewBatch
    table: LabelTable | None
    asked: NDArray[np.int64]
    pending: Pending | None = None
    computed: int = 0
    logits: NDArray[np.float16] | None = None
    features: Features = field(default_factory=dict)


def claim(table: LabelTable, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Positions of the rows that are now ours to have computed, in the order of the batch, none twice."""
    table.refresh()
    unique, first = np.unique(rows, return_index=True)
    missing = ~table.known(unique)
    if not missing.any():
        return np.empty(0, dtype=np.int64)
    ours = table.claim(unique[missing])
    return np.sort(first[missing][ours])


def soft_targets(questions: Iterable[Question], teachers: Mapping[str, TeacherConfig]) -> dict[str, SoftTargets]:
    """The answers by task. A lost teacher of which nothing is known leaves its task to the others, or to the labels."""
    targets: dict[str, SoftTargets] = {}
    for question in questions:
        if question.logits is not None and not np.isnan(question.logits[:, 0]).all():
            said = targets.setdefault(teachers[question.teacher].task, SoftTargets({}))
            said.logits[question.teacher] = question.logits
            if question.features:
                said.features[question.teacher] = question.features
    return targets
