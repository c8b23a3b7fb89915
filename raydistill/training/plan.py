"""What one student's training needs to know: plain, picklable, the same for every worker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from raydistill.config.models import Config
from raydistill.data.dataset import Prepared
from raydistill.fusion.standing import Standing
from raydistill.remote.files import Remote
from raydistill.soft_labels.source import SoftTargetSource
from raydistill.training.events import EVENTS_FILE

Arm = Literal["alone", "distilled"]
ARMS: tuple[Arm, ...] = ("alone", "distilled")


@dataclass(frozen=True)
class RunPlace:
    """Where the run of a training lies for all who work on it.

    Attributes:
        url: of the run.
        key: where the user said it.
        owner: id of the command that owns the run.
        root: its folder of the run.
    """

    url: str
    key: str
    owner: str
    root: Path

    def remote(self) -> Remote:
        """The URL."""
        return Remote(self.url, self.key)

    def place_of(self, path: Path) -> str:
        """Where a file or folder of the command lies at the URL."""
        return str(path.relative_to(self.root))

    def moved(self, plan: TrainingPlan, root: Path) -> TrainingPlan:
        """The plan with the run's folder elsewhere."""
        return replace(
            plan,
            initial_student=root / self.place_of(plan.initial_student),
            folder=root / self.place_of(plan.folder),
            tensorboard=root / self.place_of(plan.tensorboard),
            at_url=replace(self, root=root),
        )


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
        prepared: by task: the data that the command has, for workers to find or to compare.
        at_url: of a run at a URL whose workers are elsewhere: `folder` and the others are the command's then.
        events_file: in `folder`, of what happens.
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
    prepared: dict[str, Prepared] = field(default_factory=dict)
    at_url: RunPlace | None = None
    events_file: str = EVENTS_FILE

    @property
    def name(self) -> str:
        """As in the report's curves: `distilled-seed0`."""
        return f"{self.arm}-seed{self.seed}"

    @property
    def ray_train(self) -> Path:
        """Where Ray Train keeps its own files while workers run."""
        return self.folder / "ray_train"

    @property
    def beat(self) -> Path:
        """A file that changes for as long as a worker lives."""
        return (self.ray_train if self.at_url is None else self.folder) / "alive"
