"""Which soft loss a task has, as the config says it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from raydistill.config.distill import DistillConfig, TaskLossName


@dataclass(frozen=True)
class SoftLossChoice:
    """A task's soft loss.

    Attributes:
        name: one of `soft_losses.SOFT_LOSSES`; a task of another kind has its own loss and heeds the temperature only.
        temperature: of both sides.
        options: keyword arguments of the loss.
        standardized: both sides' logits are z-scored first.
    """

    name: TaskLossName = "kl"
    temperature: float = 1.0
    options: Mapping[str, float] = field(default_factory=dict)
    standardized: bool = False

    @classmethod
    def of(cls, distill: DistillConfig, task: str) -> SoftLossChoice:
        """Of one task."""
        name = distill.loss_of(task)
        section = getattr(distill.loss_options, name, None)
        options = section.model_dump() if section is not None else {}
        return cls(name, distill.temperature_of(task), options, distill.standardize)
