"""A teacher behind a Ray actor: a thin shell round the plain class."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np
import ray
import torch
from numpy.typing import NDArray

from raydistill.config.models import Config, PlacementConfig
from raydistill.data.batch import ViewBatch
from raydistill.teachers.teacher import Teacher, load_teacher


class TeacherReplica:
    """Loads its teacher on the device that Ray gave it and answers whole micro-batches.

    Replies are NumPy arrays: Ray reads those zero-copy, torch tensors ten times slower.
    """

    def __init__(self, config: Config, name: str, label_names: tuple[str, ...]) -> None:
        settings = config.teachers[name]
        device = "cuda" if settings.placement.num_gpus and torch.cuda.is_available() else "cpu"
        # Ray promises cores and limits nothing. More threads than cores wait for each other most of the time.
        torch.set_num_threads(max(1, int(settings.placement.num_cpus)))
        self.teacher: Teacher = load_teacher(config, name, label_names, device)

    def describe(self) -> dict[str, Any]:
        """Name, fingerprint, num_parameters, size_bytes, process id."""
        return {**self.teacher.describe(), "pid": os.getpid()}

    def label(self, views: ViewBatch) -> tuple[NDArray[np.float16], float]:
        """Raw logits [batch, num_classes] in the task's label order, and the seconds that they took."""
        began = time.perf_counter()
        logits = self.teacher.logits(views)
        return logits, time.perf_counter() - began

    def latency_ms(self, views: ViewBatch) -> float:
        """See `Teacher.latency_ms`; without the way here and back."""
        return self.teacher.latency_ms(views)


def placement_options(placement: PlacementConfig) -> dict[str, Any]:
    """What an actor or a task asks of Ray."""
    options: dict[str, Any] = {
        "num_cpus": placement.num_cpus,
        "num_gpus": placement.num_gpus,
        "resources": placement.resources,
    }
    if placement.label_selector:
        options["label_selector"] = placement.label_selector
    if placement.accelerator_type:
        options["accelerator_type"] = placement.accelerator_type
    return options


def start_replica(config: Config, name: str, label_names: tuple[str, ...]) -> Any:
    """The handle of a new actor; it loads in the background."""
    # max_restarts=0: whoever asks decides what a death means.
    options = {**placement_options(config.teachers[name].placement), "max_restarts": 0}
    return ray.remote(TeacherReplica).options(**options).remote(config, name, label_names)
