"""The config, as data: frozen pydantic models, the only place where defaults live.

Nothing here imports torch or ray, so that `raydistill --help` and config errors come at once.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from raydistill.config.basics import Frozen, Name, Precision
from raydistill.config.data import TaskConfig
from raydistill.config.distill import DistillConfig
from raydistill.config.kinds import check_kinds
from raydistill.config.student import StudentConfig as StudentConfig
from raydistill.remote import is_url


class PlacementConfig(Frozen):
    """What an actor or a worker asks of Ray. Fractions share scheduling, not memory."""

    num_cpus: float = Field(1.0, ge=0.0)
    num_gpus: float = Field(0.0, ge=0.0, description="above 1 a whole number")
    resources: dict[str, PositiveFloat] = Field({}, description="of one's own making, as `ray start --resources` names")
    label_selector: dict[str, str] = Field({})
    accelerator_type: str | None = None
    strategy: Literal["pack", "spread"] = Field("pack", description="onto few nodes, or onto as many as there are")

    @model_validator(mode="after")
    def _ray_understands_it(self) -> PlacementConfig:
        for name, amount in {"num_gpus": self.num_gpus, **self.resources}.items():
            if amount > 1 and amount != int(amount):
                raise ValueError(f"{name} is {amount:g}; above 1 Ray takes whole ones only")
        for name in self.resources:
            if name in ("CPU", "GPU", "memory", "object_store_memory"):
                raise ValueError(f"resources names {name!r}, which is Ray's own; write num_cpus and num_gpus instead")
        return self


class TeachConfig(Frozen):
    """How a teacher without a checkpoint is trained or fine-tuned."""

    num_epochs: float = Field(3.0, gt=0.0)
    batch_size: PositiveInt = 32
    learning_rate: float = Field(1e-3, gt=0.0)
    weight_decay: float = Field(0.01, ge=0.0)
    warmup_fraction: float = Field(0.1, ge=0.0, lt=1.0)
    label_smoothing: float = Field(0.0, ge=0.0, lt=1.0)
    evaluations_per_epoch: PositiveInt = 1
    patience: PositiveInt = Field(3, description="evaluations without a better one before it stops")
    precision: Precision = "auto"
    seed: int | None = Field(None, ge=0, description="of weights and order; default: the config's seed")
    placement: PlacementConfig | None = Field(None, description="default: an equal share of the cores; a GPU, if any")


class TeacherConfig(Frozen):
    """An expert: what it is, where its weights are, where it runs.

    `loader`: `torchvision` (`model` is an architecture), `transformers` (`model` is a local folder, a hub name or
    `package:FOLDER-in-an-installed-package`; or a model type with `options` as its config), or `python` (`model`
    is `module:callable`, called with `options`).
    """

    task: str
    loader: Literal["torchvision", "transformers", "python"]
    model: str
    checkpoint: str | None = Field(
        None, description="folder, safetensors file or `hub:OWNER/NAME`; without it `teach` makes one"
    )
    options: dict[str, Any] = Field({})
    train: TeachConfig | None = None
    label_names: tuple[str, ...] | None = Field(
        None, description="the checkpoint's order, where it does not say; of a teacher to train: the classes it learns"
    )
    partial_labels: bool = Field(False, description="it may know some of the task's classes only, or others beside")
    image_size: PositiveInt | None = Field(None, description="resolution this teacher sees; default: the view's")
    image_mean: tuple[float, ...] | None = None
    image_std: tuple[PositiveFloat, ...] | None = None
    sample_rate: PositiveInt | None = Field(None, description="rate this teacher hears; default: the view's")
    max_length: PositiveInt = Field(128, description="tokens a text teacher reads")
    precision: Precision = "auto"
    placement: PlacementConfig = PlacementConfig()
    batch_size: PositiveInt = Field(64, description="rows of one forward pass when labelling or evaluating")
    window: PositiveInt = Field(4, description="micro-batches that a student asks ahead")
    min_replicas: PositiveInt = Field(1, description="actors that serve this teacher, at least")
    max_replicas: PositiveInt | None = Field(
        None, description="at most: more are started while students wait for it; default: min_replicas"
    )
    max_batch_size: PositiveInt | None = Field(
        None, description="rows up to which a replica merges waiting requests into one forward pass; default: none"
    )
    max_wait_ms: float = Field(2.0, ge=0.0, description="how long a replica waits for requests to merge")
    hedge_s: float | None = Field(
        None,
        gt=0.0,
        description="ask a second replica after this long; default: 5 usual answers, 1 s at least",
    )
    timeout_s: float = Field(120.0, gt=0.0, description="a replica that does not answer for this long is replaced")
    allow_chance_level: bool = False

    @field_validator("checkpoint")
    @classmethod
    def _is_a_path(cls, value: str | None) -> str | None:
        if value is not None and is_url(value):
            raise ValueError("a checkpoint is a path that the teacher's nodes see, or hub:OWNER/NAME, and not a URL")
        return value

    @model_validator(mode="after")
    def _replicas_in_order(self) -> TeacherConfig:
        if self.max_replicas is not None and self.max_replicas < self.min_replicas:
            raise ValueError(f"max_replicas {self.max_replicas} is less than min_replicas {self.min_replicas}")
        return self


class StoreConfig(Frozen):
    """Where teachers' answers are kept, and how closely."""

    path: str | None = Field(
        None, min_length=1, description="folder or fsspec URL (s3://…); default: soft_labels in cache_dir"
    )
    top_k: PositiveInt | dict[str, PositiveInt] | None = Field(
        None, description="logits kept of a row of classes, or by task; default: all up to 1,024, above the best 32"
    )
    fill: bool = Field(True, description="keep what teachers answer while a student trains")
    features: bool = Field(
        False,
        description="keep what feature losses hear, too: [channels] of each row, float16; with `attention` all "
        "positions",
    )

    def top_k_of(self, task: str) -> int | None:
        """Logits kept of a row of this task; None: by its number of classes."""
        return self.top_k.get(task) if isinstance(self.top_k, dict) else self.top_k


class TrainingConfig(Frozen):
    """How long, how fast and where the student trains."""

    num_steps: PositiveInt = 1_000
    batch_size: PositiveInt = Field(32, description="rows of each task, per worker and micro-batch")
    task_batch_size: dict[str, PositiveInt] = Field({})
    gradient_accumulation: PositiveInt = 1
    learning_rate: float = Field(1e-3, gt=0.0)
    weight_decay: float = Field(0.05, ge=0.0)
    warmup_fraction: float = Field(0.1, ge=0.0, lt=1.0)
    clip_norm: float = Field(1.0, gt=0.0)
    precision: Precision = "auto"
    label_fraction: float = Field(1.0, gt=0.0, le=1.0, description="share of training rows whose label is shown")
    evaluate_every: PositiveInt = Field(200, description="steps between validations; each writes a checkpoint")
    num_workers: int = Field(0, ge=0, description="0: in this process; more: Ray Train workers with DDP")
    min_workers: PositiveInt | None = Field(
        None, description="so many are enough, to begin with and after a loss; the student stays the same one"
    )
    max_failures: int = Field(2, ge=0, description="worker failures to survive, from the last checkpoint on")
    placement: PlacementConfig = PlacementConfig()

    @model_validator(mode="after")
    def _workers_in_order(self) -> TrainingConfig:
        if self.min_workers is not None and self.min_workers > max(1, self.num_workers):
            raise ValueError(
                f"min_workers {self.min_workers} is more than num_workers {self.num_workers}; lower it, or raise the "
                "other"
            )
        return self

    @property
    def fewest_workers(self) -> int:
        """That it can begin with."""
        return min(self.num_workers, self.min_workers or self.num_workers)


class RayConfig(Frozen):
    """Which Ray to use: without an address the one that runs on this machine, else one of the command's own."""

    address: str | None = Field(None, description="`auto` or host:port of a running cluster")
    num_cpus: PositiveInt | None = None
    num_gpus: int | None = Field(None, ge=0)
    wait_s: float = Field(600.0, gt=0.0, description="for room in the cluster; then the command ends with exit code 2")
    autoscales: bool = Field(
        False, description="an autoscaler adds nodes: what does not fit yet is waited for, not refused"
    )
    lease_s: float = Field(30.0, ge=5.0, description="a run that dies gives back shared teachers after this long")


class Config(Frozen):
    """A whole distillation. One resolved YAML of it lies in every run folder."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    description: str = ""
    seed: int = Field(0, ge=0)
    num_seeds: PositiveInt = Field(1, description="students of each arm, of seeds `seed`, `seed` + 1, …")
    cache_dir: str = Field(
        "~/.cache/raydistill", description="data sets, teachers, soft labels, and what is worked on of runs at URLs"
    )
    tasks: dict[Name, TaskConfig] = Field(min_length=1)
    teachers: dict[Name, TeacherConfig] = Field({})
    student: StudentConfig = StudentConfig()
    distill: DistillConfig = DistillConfig()
    store: StoreConfig = StoreConfig()
    training: TrainingConfig = TrainingConfig()
    ray: RayConfig = RayConfig()

    @field_validator("cache_dir")
    @classmethod
    def _is_a_folder(cls, value: str) -> str:
        if is_url(value):
            raise ValueError(
                "the cache is a folder that each node works in; store.path, --out and tasks.NAME.data.path may be URLs"
            )
        return value

    @model_validator(mode="after")
    def _teachers_fit_tasks(self) -> Config:
        for name, teacher in self.teachers.items():
            if teacher.task not in self.tasks:
                raise ValueError(f"teachers.{name}.task is {teacher.task!r}; tasks are {sorted(self.tasks)}")
        for place, names in (
            ("distill.task_temperatures", self.distill.task_temperatures),
            ("distill.task_weights", self.distill.task_weights),
            ("distill.task_losses", self.distill.task_losses),
            ("distill.task_fusions", self.distill.task_fusions),
            ("training.task_batch_size", self.training.task_batch_size),
            ("store.top_k", self.store.top_k if isinstance(self.store.top_k, dict) else {}),
        ):
            for name in names:
                if name not in self.tasks:
                    raise ValueError(f"{place} names {name!r}; tasks are {sorted(self.tasks)}")
        self.distill.check_around(self.tasks, {name: teacher.task for name, teacher in self.teachers.items()})
        self.student.check_around(self.tasks, self.teachers)
        check_kinds(self)
        return self

    @property
    def seeds(self) -> tuple[int, ...]:
        """One pair of students, alone and distilled, for each."""
        return tuple(range(self.seed, self.seed + self.num_seeds))

    def teachers_of(self, task: str) -> dict[str, TeacherConfig]:
        """The teachers of one task, by name."""
        return {name: teacher for name, teacher in self.teachers.items() if teacher.task == task}
