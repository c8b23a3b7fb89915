"""A teacher as a plain class: views in, raw logits out. No Ray here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from raydistill.config.models import Config
from raydistill.data.batch import ViewBatch
from raydistill.errors import TeacherError
from raydistill.precision import autocast, use_bf16
from raydistill.teachers.checkpoints import checkpoint_labels, fingerprint, load_weights, match_labels, teacher_folder
from raydistill.teachers.models import Network, build, count_parameters
from raydistill.timing import median_ms


class Teacher:
    """An expert in eval mode, whose columns are in the task's label order.

    Attributes:
        fingerprint: of weights, preparation, label order and number format.
        num_parameters, size_bytes: of the weights.
    """

    def __init__(self, name: str, task: str, network: Network, columns: NDArray[np.int64], bf16: bool) -> None:
        self.name, self.task, self.network, self.columns = name, task, network, columns
        self.bf16 = bf16
        self.network.module.eval()
        self.num_parameters = count_parameters(network.module)
        self.size_bytes = sum(value.numel() * value.element_size() for value in network.module.state_dict().values())
        self.fingerprint = fingerprint(network, columns, "bf16" if bf16 else "fp32")

    @torch.inference_mode()
    def logits(self, views: ViewBatch) -> NDArray[np.float16]:
        """Raw logits, float16 [batch, num_classes], in the task's label order.

        Raises:
            TeacherError: one of them is not a number, or they are not a row of all classes for each view.
        """
        device = next(self.network.module.parameters()).device
        prepared = {key: value.to(device) for key, value in self.network.prepare(views).items()}
        with autocast(device, self.bf16):
            logits = self.network.logits(prepared).float().cpu().numpy()
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
        ordered: NDArray[np.float16] = np.clip(logits[:, self.columns], -6e4, 6e4).astype(np.float16)
        return ordered

    def describe(self) -> dict[str, Any]:
        """Name, fingerprint, num_parameters, size_bytes."""
        return {
            "name": self.name,
            "fingerprint": self.fingerprint,
            "num_parameters": self.num_parameters,
            "size_bytes": self.size_bytes,
        }

    def latency_ms(self, views: ViewBatch) -> float:
        """Milliseconds a row, from view to logits, when all these rows come at once."""
        return median_ms(lambda: self.logits(views)) / len(views)


def load_teacher(config: Config, name: str, label_names: tuple[str, ...], device: str = "cpu") -> Teacher:
    """The configured teacher with its checkpoint's weights.

    Args:
        label_names: the task's, in head order.
        device: a torch device.

    Raises:
        TeacherError: no checkpoint, weights that do not fit, labels that do not match.
    """
    settings = config.teachers[name]
    task = config.tasks[settings.task]
    path: Path = teacher_folder(config, name)
    own_folder = path if path.is_dir() and settings.loader == "transformers" else None
    network = build(name, settings, task.domain, task.data, len(label_names), own_folder)
    columns = match_labels(name, settings.task, checkpoint_labels(path, settings.label_names), label_names)
    load_weights(name, network.module, path)
    network.module.to(device)
    bf16 = use_bf16(settings.precision, torch.device(device))
    return Teacher(name, settings.task, network, columns, bf16)
