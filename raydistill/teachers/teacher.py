"""A teacher as a plain class: views in, raw logits out. No Ray here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from raydistill.config.data import LabelScales
from raydistill.config.models import Config
from raydistill.data.batch import ViewBatch
from raydistill.data.preparing import prepared
from raydistill.errors import TeacherError
from raydistill.losses.numerics import UNKNOWN
from raydistill.precision import autocast, use_bf16
from raydistill.soft_labels.layers import NO_LAYERS, Features, Layers
from raydistill.teachers.checkpoints import (
    checkpoint_labels,
    checkpoint_scales,
    fingerprint,
    load_weights,
    match_labels,
    no_weights,
    teacher_folder,
)
from raydistill.teachers.features import tapped
from raydistill.teachers.models import Network, build, count_parameters
from raydistill.timing import median_ms

# Above `UNKNOWN`: a class that is ruled out is not one that is not known.
LARGEST = 5.9e4
Units = tuple[NDArray[np.float64], NDArray[np.float64]]


class Teacher:
    """An expert in eval mode, whose columns are in the task's label order.

    Attributes:
        fingerprint: of weights, preparation, label order and number format.
        num_parameters, size_bytes: of the weights.
        units: of a regression's teacher: (factor, offset) that bring its numbers to the task's standard, each [labels].
    """

    def __init__(
        self,
        name: str,
        task: str,
        network: Network,
        columns: NDArray[np.int64],
        bf16: bool,
        units: Units | None = None,
    ) -> None:
        self.name, self.task, self.network, self.columns = name, task, network, columns
        self.bf16, self.units = bf16, units
        self.network.module.eval()
        self.num_parameters = count_parameters(network.module)
        self.size_bytes = sum(value.numel() * value.element_size() for value in network.module.state_dict().values())
        conversion = b"" if units is None else np.stack(units).tobytes()
        self.fingerprint = fingerprint(network, columns, "bf16" if bf16 else "fp32", conversion)

    @property
    def device(self) -> torch.device:
        """Where its weights lie."""
        return next(self.network.module.parameters()).device

    def logits(self, views: ViewBatch) -> NDArray[np.float16]:
        """See `answer`."""
        return self.answer(views)[0]

    @torch.inference_mode()
    def answer(self, views: ViewBatch, layers: Layers = NO_LAYERS) -> tuple[NDArray[np.float16], Features]:
        """Raw logits, float16 [batch, num_classes], in the task's label order; `UNKNOWN` for a class that the
        teacher does not know. Of regression numbers, standardised as the task's labels are. And the features of the
        layers, float16, see `Layer`.

        Raises:
            TeacherError: one of them is not a number, or they are not a row of all classes for each view.
        """
        device = self.device
        inputs = prepared(self.network.prepare, views, device)
        with autocast(device, self.bf16):
            if layers:
                with tapped(self.name, self.network.module, layers) as taps:
                    logits = self.network.logits(inputs).float().cpu().numpy()
                features = taps.features(inputs.get("attention_mask"), len(views))
            else:
                logits, features = self.network.logits(inputs).float().cpu().numpy(), {}
        if logits.ndim != 2 or len(logits) != len(views) or logits.shape[1] <= self.columns.max():
            raise TeacherError(
                f"teacher {self.name!r}: its logits are {list(logits.shape)} for {len(views)} rows and "
                f"{len(self.columns)} classes; check teachers.{self.name}.model and options"
            )
        # NaN means "did not speak" further on: a broken teacher must not pass for a silent one.
        if np.isnan(logits).any():
            raise TeacherError(
                f"teacher {self.name!r}: its logits are NaN for {int(np.isnan(logits).any(axis=1).sum())} of "
                f"{len(logits)} rows; check its weights, or set teachers.{self.name}.precision=fp32"
            )
        own = logits[:, self.columns]
        if self.units is not None:
            own = own.astype(np.float64) * self.units[0] + self.units[1]
        ordered: NDArray[np.float16] = np.clip(own, -LARGEST, LARGEST).astype(np.float16)
        ordered[:, self.columns < 0] = UNKNOWN
        return ordered, features

    def describe(self) -> dict[str, Any]:
        """Name, fingerprint, num_parameters, size_bytes, device, unknown_classes (positions in the task's order)."""
        return {
            "name": self.name,
            "fingerprint": self.fingerprint,
            "num_parameters": self.num_parameters,
            "size_bytes": self.size_bytes,
            "device": self.device.type,
            "unknown_classes": np.flatnonzero(self.columns < 0).tolist(),
        }

    def latency_ms(self, views: ViewBatch) -> float:
        """Milliseconds a row, from view to logits, when all these rows come at once."""
        return median_ms(lambda: self.logits(views)) / len(views)


def load_teacher(config: Config, name: str, label_names: tuple[str, ...], device: str = "cpu") -> Teacher:
    """The configured teacher with its checkpoint's weights.

    Args:
        config: of a regression task with its `label_scales`: see `commands.preparing.with_scales`.
        label_names: the task's, in head order.
        device: a torch device.

    Raises:
        TeacherError: no checkpoint, weights that do not fit, labels that do not match.
    """
    settings = config.teachers[name]
    task = config.tasks[settings.task]
    path: Path = teacher_folder(config, name)
    if not path.exists():
        raise no_weights(config, name, path)
    own_labels = checkpoint_labels(path, settings.label_names)
    fewest = 2 if task.kind == "classification" else 1
    columns = match_labels(name, settings.task, own_labels, label_names, settings.partial_labels, fewest)
    network = build_teacher(config, name, label_names)
    load_weights(name, network.module, path)
    network.module.to(device)
    bf16 = use_bf16(settings.precision, torch.device(device))
    units = None
    if task.kind == "regression":
        assert task.data.label_scales is not None, "derive the config with its scales first"
        own = checkpoint_scales(path, label_names)
        units = conversion(own, tuple(task.data.label_scales[label] for label in label_names))
    return Teacher(name, settings.task, network, columns, bf16, units)


def build_teacher(config: Config, name: str, label_names: tuple[str, ...]) -> Network:
    """Its network as `load_teacher` fills it; the weights are any, and the checkpoint need not be there yet.

    Raises:
        TeacherError: see `build`.
    """
    settings = config.teachers[name]
    task, path = config.tasks[settings.task], teacher_folder(config, name)
    own_folder = path if path.is_dir() and settings.loader == "transformers" else None
    num_outputs = len(checkpoint_labels(path, settings.label_names) or label_names)
    return build(name, settings, task.domain, task.data, num_outputs, own_folder, task.kind)


def conversion(own: LabelScales, wanted: LabelScales) -> Units:
    """(factor, offset) from numbers standardised by some scales to the same ones standardised by others."""
    (mean, deviation), (wanted_mean, wanted_deviation) = np.array(own, np.float64).T, np.array(wanted, np.float64).T
    return deviation / wanted_deviation, (mean - wanted_mean) / wanted_deviation
