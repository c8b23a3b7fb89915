"""What one student's training needs to know: plain, picklable, the same for every worker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from raydistill.config.models import Config
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
        open_source: called in the worker; None for the arm without teachers.
    """

    config: Config
    arm: Arm
    seed: int
    initial_student: Path
    folder: Path
    tensorboard: Path
    ensemble_accuracy: dict[str, float]
    open_source: Callable[[], SoftTargetSource] | None

    @property
    def name(self) -> str:
        """As in the report's curves: `distilled-seed0`."""
        return f"{self.arm}-seed{self.seed}"
