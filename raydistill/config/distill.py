"""What the teachers' word counts for: losses, fusing, balancing, features, and their options."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from raydistill.config.basics import Frozen, Name

SoftLossName = Literal["kl", "reverse_kl", "js", "skew_kl", "dkd", "dist", "nkd", "mse"]
TaskLossName = SoftLossName | Literal["bce", "regression"]  # of one task: other kinds have one of their own
FusionName = Literal["mean_logits", "mean_probabilities", "best", "entropy", "confidence", "aekd", "gate"]
FeatureLossName = Literal[
    "hint", "attention", "rkd_distance", "rkd_angle", "similarity", "cka", "contrastive"
]  # fmt: skip
BalancingName = Literal[
    "fixed", "equal", "uncertainty", "dwa", "rlw", "gls", "famo",
    "pcgrad", "cagrad", "mgda", "nash_mtl", "aligned_mtl", "upgrad",
]  # fmt: skip


class SkewKlOptions(Frozen):
    """Of `skew_kl`."""

    skew: float = Field(0.1, ge=0.0, lt=1.0, description="share of the teacher in what the student is held against")


class DkdOptions(Frozen):
    """Of `dkd`."""

    alpha: float = Field(1.0, ge=0.0, description="of the target class against all others")
    beta: float = Field(
        1.0,
        ge=0.0,
        description="of the other classes among themselves; the paper takes 0.5 (ImageNet) to 8 (CIFAR-100)",
    )


class DistOptions(Frozen):
    """Of `dist`."""

    beta: float = Field(1.0, ge=0.0, description="of the relation between classes of a row")
    gamma: float = Field(1.0, ge=0.0, description="of the relation between rows of a class")


class NkdOptions(Frozen):
    """Of `nkd`."""

    gamma: float = Field(1.5, ge=0.0, description="of the classes that are not the target")


class LossOptions(Frozen):
    """Of soft losses, by name; those of a loss that is not used count for nothing."""

    skew_kl: SkewKlOptions = SkewKlOptions()
    dkd: DkdOptions = DkdOptions()
    dist: DistOptions = DistOptions()
    nkd: NkdOptions = NkdOptions()


class AekdOptions(Frozen):
    """Of `aekd`."""

    most: float = Field(
        0.6, gt=0.0, le=1.0, description="weight of one teacher at most; 1: the common descent direction"
    )


class GateOptions(Frozen):
    """Of `gate`."""

    weight: float = Field(1.0, gt=0.0, description="of the gate's own loss, which no other part of the student feels")


class FusionOptions(Frozen):
    """Of fusing; those of a strategy that is not used count for nothing."""

    normalize_scales: bool = Field(
        True, description="bring all teachers' logits to a common spread first, as measured on the validation split"
    )
    aekd: AekdOptions = AekdOptions()
    gate: GateOptions = GateOptions()


class FeatureConfig(Frozen):
    """A layer of the student that is held against one of a teacher, beside the answers."""

    teacher: str
    teacher_layer: str = Field(description="a module of the teacher by name: network.layer3, bert.encoder.layer.5 …")
    student_layer: str = Field("trunk", description="a module of the student that gives tokens: trunk.blocks.0 …")
    loss: FeatureLossName = "hint"
    weight: float = Field(1.0, gt=0.0, description="beside the task's other losses, which keep theirs")


class DwaOptions(Frozen):
    """Of `dwa`."""

    temperature: float = Field(2.0, gt=0.0, description="larger: more alike")
    every: PositiveInt = Field(50, description="steps of what the method calls an epoch")


class FamoOptions(Frozen):
    """Of `famo`."""

    learning_rate: float = Field(0.025, gt=0.0)
    weight_decay: float = Field(1e-3, ge=0.0)


class CagradOptions(Frozen):
    """Of `cagrad`."""

    c: float = Field(0.5, ge=0.0, description="how far from the mean gradient it may go; 0: the mean itself")


class NashMtlOptions(Frozen):
    """Of `nash_mtl`."""

    every: PositiveInt = Field(1, description="steps between two bargains; in between the weights stay")
    max_norm: float = Field(1.0, ge=0.0, description="of the balanced gradient; 0: any")


class BalancingOptions(Frozen):
    """Of balancing; those of a method that is not used count for nothing."""

    measure_every: PositiveInt = Field(
        50, description="steps between two looks at how far the tasks' gradients agree; gradient methods see it always"
    )
    dwa: DwaOptions = DwaOptions()
    famo: FamoOptions = FamoOptions()
    cagrad: CagradOptions = CagradOptions()
    nash_mtl: NashMtlOptions = NashMtlOptions()


class DistillConfig(Frozen):
    """What the teachers' word counts for. `raydistill methods` tells what each name stands for."""

    temperature: float = Field(2.0, gt=0.0)
    task_temperatures: dict[str, PositiveFloat] = Field({}, description="of single tasks, instead of `temperature`")
    hard_weight: float = Field(0.3, ge=0.0, le=1.0, description="of the labels; the soft labels get the rest")
    task_weights: dict[str, NonNegativeFloat] = Field({}, description="of single tasks in the loss; default: 1")
    loss: SoftLossName = Field("kl", description="against the soft labels of classes; other kinds have their own")
    task_losses: dict[str, TaskLossName] = Field({}, description="of single tasks, instead of `loss`")
    loss_options: LossOptions = LossOptions()
    standardize: bool = Field(
        False, description="z-score both sides' logits, row by row, before the loss; of classification only"
    )
    fusion: FusionName = Field("mean_logits", description="what several teachers of a task say together")
    task_fusions: dict[str, FusionName] = Field({}, description="of single tasks, instead of `fusion`")
    teacher_weights: dict[Name, NonNegativeFloat] = Field(
        {}, description="of single teachers in `mean_logits` and `mean_probabilities`; default: 1"
    )
    fusion_options: FusionOptions = FusionOptions()
    features: dict[Name, FeatureConfig] = Field({}, description="layers that learn from a teacher's; named by you")
    balancing: BalancingName = Field("fixed", description="how the tasks' losses or gradients are brought together")
    balancing_options: BalancingOptions = BalancingOptions()
    soft_labels: Literal["auto", "local", "remote", "stored"] = Field(
        "auto", description="in the student's process, from actors, written ahead; `auto` measures and picks"
    )
    on_teacher_loss: Literal["wait", "stored", "hard_labels", "fail"] = Field(
        "wait", description="when no replica of a teacher is left: wait for one, use stored answers only, do without"
    )
    teacher_loss_after_s: float = Field(60.0, gt=0.0, description="without any replica for this long it counts as lost")
    teacher_loss_wait_s: float = Field(600.0, ge=0.0, description="how much longer `wait` waits before it fails")

    def check_around(self, tasks: Iterable[str], teachers: Mapping[str, str]) -> None:
        """Whether the rest of the config fits.

        Args:
            teachers: by name, their tasks.

        Raises:
            ValueError: a name that is not there, or a combination that makes no sense, with the reason.
        """
        for name, feature in self.features.items():
            if name in ("soft_loss", "hard_loss"):
                raise ValueError(f"distill.features.{name}: the log has that name already; take another one")
            if feature.teacher not in teachers:
                raise ValueError(
                    f"distill.features.{name}.teacher is {feature.teacher!r}; teachers are {sorted(teachers)}"
                )
        if self.features and self.soft_labels == "stored":
            raise ValueError(
                f"distill.features ({', '.join(self.features)}) has to ask the teachers, and with "
                "distill.soft_labels=stored nobody asks them while a student trains: set it to auto, local or remote "
                "(with store.features=true they are asked once), or leave features out"
            )
        for name in self.teacher_weights:
            if name not in teachers:
                raise ValueError(f"distill.teacher_weights names {name!r}; teachers are {sorted(teachers)}")
        for task in tasks:
            weights = [self.teacher_weights.get(name, 1.0) for name, of in teachers.items() if of == task]
            if weights and not any(weights):
                raise ValueError(f"distill.teacher_weights gives all teachers of {task!r} 0; give one of them more")
            if self.balancing not in ("fixed", "equal") and not self.task_weights.get(task, 1.0):
                raise ValueError(
                    f"distill.balancing {self.balancing} cannot balance a task whose loss is always 0, and "
                    f"distill.task_weights makes that of {task!r} so; give it more, or set balancing to fixed"
                )

    def temperature_of(self, task: str) -> float:
        """Its own, or the one of all."""
        return self.task_temperatures.get(task, self.temperature)

    def loss_of(self, task: str) -> TaskLossName:
        """Of a classification: its own, or the one of all."""
        return self.task_losses.get(task, self.loss)

    def fusion_of(self, task: str) -> FusionName:
        """Its own, or the one of all."""
        return self.task_fusions.get(task, self.fusion)
