"""What one student's training needs to know: plain, picklable, the same for every worker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from raydistill.config.models import Config
from raydistill.fusion.standing import Standing
from raydistill.soft_labels.source import SoftTargetSource

Arm = Literal["alone", "distilled"]
ARMS: tuple[Arm, ...] = ("alone", "distilled")


@dataclass(frozen=True)
class TrainingPlan:
    """One arm of the comparison at one seed.

    Attributes:
        arm: `alone` draws labelled rows only and hears no teacher; `distilled` draws all rows and hears all.
        seed: of the shuffling, dropout and hidden labels; the initial weights come with `initial_student`.
        initial_student: folder of `Student.save_pretrained`: both arms start from the same one.
        folder: holds latest.pt, best.pt and metrics.jsonl.
        tensorboard: folder of this arm's event files.
        ensemble_accuracy: by task, the teachers' on the validation split: what retention is measured against.
        standings: by task, of its teachers, in the order of the config: what fusing them needs to know.
        feature_shapes: of teachers' layers, by name of a feature loss.
        open_source: called in the worker; None for the arm without teachers.
    """

    config: Config
    arm: Arm
    seed: int
    initial_student: Path
    folder: Path
    tensorboard: Path
    ensemble_accuracy: dict[str, float]
    standings: dict[str, tuple[Standing, ...]]
    open_source: Callable[[], SoftTargetSource] | None
    feature_shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """As in the report's curves: `distilled-seed0`."""
        return f"{self.arm}-seed{self.seed}"
