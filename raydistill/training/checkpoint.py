"""What a run resumes from: one file, replaced atomically, beside the best student so far."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from raydistill.atomic import reason, replacing
from raydistill.errors import RaydistillError
from raydistill.training.places import BEST, LATEST

__all__ = ["BEST", "LATEST", "TrainingState", "load_state", "load_tensors", "save_atomically", "save_state"]


@dataclass
class TrainingState:
    """Where a student's training stands after `step` optimizer steps.

    There is no scheduler, sampler or random state to carry: the learning rate, the rows, their views and the
    dropout masks of a step are functions of (seed, step) alone.
    """

    step: int = 0
    model: dict[str, Any] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    curve: list[dict[str, Any]] = field(default_factory=list)
    best_score: float = float("-inf")
    best_step: int = 0
    wall_s: float = 0.0
    student_samples: int = 0
    teacher_costs: dict[str, dict[str, float]] = field(default_factory=dict)  # by teacher: the figures of TeacherCost
    beside: dict[str, Any] = field(default_factory=dict)  # what is learned beside the student, and who was trusted
    balancing: dict[str, Any] = field(default_factory=dict)
    balance: list[dict[str, Any]] = field(default_factory=list)  # how far the tasks agreed, now and then
    trust: dict[str, dict[str, list[float]]] = field(default_factory=dict)  # by task and teacher, of each class
    num_threads: int = 0  # of the CPU: another number adds in another order


def save_atomically(value: Any, path: Path) -> None:
    """A reader sees the old file or the new one, never half of one.

    Raises:
        RaydistillError: it cannot be written.
    """
    try:
        with replacing(path) as temporary:
            torch.save(value, temporary)
    except OSError as error:
        raise RaydistillError(
            f"cannot write the checkpoint {path} ({reason(error)}); free some space and run the same command to go on"
        ) from error


def save_state(state: TrainingState, folder: Path) -> None:
    """Replace the folder's latest checkpoint."""
    save_atomically(vars(state), folder / LATEST)


def load_state(folder: Path) -> TrainingState | None:
    """The latest checkpoint; None where there is none. A torn one is an error that names the file."""
    path = folder / LATEST
    return TrainingState(**load_tensors(path)) if path.is_file() else None


def load_tensors(path: Path) -> dict[str, Any]:
    """Tensors and plain data only, whatever the file would run if it were unpickled.

    Raises:
        RaydistillError: it is damaged, or holds something else.
    """
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return content
    except Exception as error:  # torch raises many kinds for a damaged file; each means the same to the user
        raise RaydistillError(
            f"the checkpoint {path} cannot be read ({type(error).__name__}); delete it, or run with "
            "--again to start over"
        ) from error
