"""What teachers did for one student's training, counted over all the processes that it took.

A run that is cut off goes on from its last checkpoint, and finds in the store what teachers computed since: that was
their work all the same. So the figures are written more often than checkpoints, in a file of their own.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, replace
from pathlib import Path

from raydistill.atomic import replacing
from raydistill.soft_labels.source import Costs, TeacherCost
from raydistill.training.checkpoint import TrainingState

COSTS_FILE = "costs.json"


def costs_of(state: TrainingState) -> dict[str, TeacherCost]:
    """As the state's last look found them, by teacher."""
    found = {name: TeacherCost.of(figures) for name, figures in state.teacher_costs.items()}
    # Without a store, what was computed again after a checkpoint is more than the student heard.
    return {name: replace(cost, samples_cached=max(0, cost.samples_cached)) for name, cost in found.items()}


def costs_so_far(state: TrainingState, folder: Path) -> dict[str, TeacherCost]:
    """What a training that goes on adds to: the work of all earlier processes; what else the student heard up to its
    checkpoint came from the store."""
    at_checkpoint = {name: TeacherCost.of(figures) for name, figures in state.teacher_costs.items()}
    done = at_checkpoint | {
        # The file is written more often, unless the disk was full.
        name: cost
        for name, cost in read_costs(folder / COSTS_FILE).items()
        if cost.samples >= at_checkpoint.get(name, cost).samples
    }
    heard = {name: cost.samples + cost.samples_cached for name, cost in at_checkpoint.items()}
    return {name: replace(cost, samples_cached=heard.get(name, 0) - cost.samples) for name, cost in done.items()}


def write_costs(state: TrainingState, folder: Path) -> None:
    """Keep the state's figures. Where the disk is full, the next checkpoint says so."""
    with contextlib.suppress(OSError), replacing(folder / COSTS_FILE) as temporary:
        temporary.write_text(json.dumps(state.teacher_costs), encoding="utf-8")


def read_costs(path: Path) -> dict[str, TeacherCost]:
    """By teacher, as a file has them; nothing where nothing was written."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {name: TeacherCost.of(figures) for name, figures in content.items()}
    except (FileNotFoundError, ValueError, TypeError, AttributeError):
        return {}


def to_state(costs: Costs) -> dict[str, dict[str, float]]:
    """Plain, as a state carries them."""
    return {name: asdict(cost) for name, cost in costs.items()}
