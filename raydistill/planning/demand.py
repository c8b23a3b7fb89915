"""Who of a run asks Ray for what, and who of them at the same time."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from raydistill.config.models import Config, PlacementConfig
from raydistill.planning.nodes import CPU, GPU, TYPE_RESOURCE

Role = Literal["teaching", "teacher", "student"]
STUDENT = "the student"  # no teacher can be called that


@dataclass(frozen=True)
class Party:
    """Actors or workers that are all alike.

    Attributes:
        name: the teacher's, or `STUDENT`.
        place: where the config says what each takes.
        fewest: without which the run does not go on.
        least: that are wanted from the start.
        most: up to which there may be more.
    """

    name: str
    role: Role
    place: str
    placement: PlacementConfig
    fewest: int
    least: int
    most: int

    @property
    def required(self) -> int:
        """So many must fit, or the run is refused."""
        return self.least if self.role == "teacher" else self.fewest

    @property
    def needs(self) -> dict[str, float]:
        """By resource, what each takes, as Ray counts it."""
        placement = self.placement
        needs = {CPU: placement.num_cpus, GPU: placement.num_gpus, **placement.resources}
        if placement.accelerator_type:
            needs[f"{TYPE_RESOURCE}{placement.accelerator_type}"] = 0.001
        return {resource: amount for resource, amount in needs.items() if amount}

    def __str__(self) -> str:
        parts = [f"{amount:g} {resource}" for resource, amount in self.needs.items() if ":" not in resource]
        parts += [self.placement.accelerator_type] if self.placement.accelerator_type else []
        parts += [f"{key}={value}" for key, value in self.placement.label_selector.items()]
        return ", ".join(parts) or "nothing"


@dataclass(frozen=True)
class Together:
    """Parties that must have room at the same time."""

    what: str
    parties: tuple[Party, ...]


def demand(config: Config, to_teach: Collection[str] = ()) -> list[Together]:
    """What a distillation asks for, in the order in which it does.

    Args:
        to_teach: teachers that are trained first. Those without a placement of their own take an equal share of the
            cores, which always fits.
    """
    wanted = [
        Together(f"training {name}", (Party(name, "teaching", place, teacher.train.placement, 1, 1, 1),))
        for name, teacher in config.teachers.items()
        if name in to_teach and teacher.train is not None and teacher.train.placement is not None
        for place in [f"teachers.{name}.train.placement"]
    ]
    teachers = tuple(
        Party(
            name, "teacher", f"teachers.{name}.placement", teacher.placement, 1, teacher.min_replicas,
            teacher.max_replicas or teacher.min_replicas,
        )
        for name, teacher in config.teachers.items()
    )  # fmt: skip
    training = config.training
    workers = (
        Party(STUDENT, "student", "training.placement", training.placement, training.fewest_workers,
              training.num_workers, training.num_workers),
    ) if training.num_workers else ()  # fmt: skip
    mode = config.distill.soft_labels
    if mode == "local":
        together = [Together("students", workers)]
    elif mode == "stored":
        # Teachers have ended by the time that students train.
        together = [Together("soft labels", teachers), Together("students", workers)]
    else:
        together = [Together("soft labels and students", teachers + workers)]
    return wanted + [each for each in together if each.parties]
