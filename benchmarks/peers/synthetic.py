"""One picture task of random pixels with an untrained teacher and student: nothing is fetched, and nothing learned.

What is measured with them is time: a teacher that knows nothing takes as long for an answer as one that does.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

import raydistill
from raydistill.commands.students import make_student
from raydistill.config.data import DataConfig
from raydistill.config.models import Config
from raydistill.data.dataset import Split, TaskData
from raydistill.data.preparing import Preparer
from raydistill.teachers.checkpoints import save_teacher
from raydistill.teachers.models import Network, build

TASK, TEACHER = "pictures", "resnet"


@dataclass(frozen=True)
class Sizes:
    """Of everything; the defaults are those of a real training. Teachers are torchvision architectures."""

    teacher: str = "resnet50"
    student: str = "base"
    image_size: int = 224
    num_classes: int = 1_000
    num_rows: int = 1_280
    batch_size: int = 64
    num_epochs: int = 10


TINY = Sizes("resnet18", "tiny", 32, 10, 256, 32, 3)


@dataclass(frozen=True)
class Synthetic:
    """Attributes:
    prepare: teacher's and student's alike.
    student_folder: of its initial weights.
    """

    config: Config
    data: TaskData
    prepare: Preparer
    student_folder: Path

    @property
    def steps_per_epoch(self) -> int:
        return len(self.data.train) // self.config.training.batch_size


def make(sizes: Sizes, folder: Path, teacher_on_gpu: bool, threads: int) -> Synthetic:
    """Everything, below `folder`.

    Args:
        threads: of torch, in a replica.
    """
    num_gpus = torch.cuda.device_count() if teacher_on_gpu else 0
    num_steps = sizes.num_rows // sizes.batch_size * sizes.num_epochs
    # Plain views: cutting random ones out of large pictures is work for the processor and the same for all ways.
    data = {"source": "disk", "path": "-", "image_size": sizes.image_size, "augment": False}
    teacher = {
        "task": TASK, "loader": "torchvision", "model": sizes.teacher, "checkpoint": str(folder / "teacher"),
        # The student's: a loop written by hand then prepares the pictures once for both.
        "image_mean": (0.5, 0.5, 0.5), "image_std": (0.5, 0.5, 0.5),
        "batch_size": sizes.batch_size, "placement": {"num_cpus": threads, "num_gpus": float(teacher_on_gpu)},
    }  # fmt: skip
    config = raydistill.load_config({
        "name": "gpu", "cache_dir": str(folder), "tasks": {TASK: {"domain": "vision", "data": data}},
        "teachers": {TEACHER: teacher}, "student": {"size": sizes.student}, "distill": {"soft_labels": "remote"},
        "training": {"num_steps": num_steps, "batch_size": sizes.batch_size, "evaluate_every": num_steps},
        "ray": {"num_cpus": threads + 1, "num_gpus": num_gpus},
    })  # fmt: skip
    task = make_data(sizes, config.tasks[TASK].data)
    network = build(TEACHER, config.teachers[TEACHER], "vision", task.settings, sizes.num_classes, None)
    settle(network, task)
    save_teacher(network, folder / "teacher", {"label_names": list(task.label_names)})
    student = make_student(config, {TASK: task}, 0, folder / "student")
    assert student.preparer(TASK) == network.prepare
    return Synthetic(config, task, network.prepare, folder / "student")


def make_data(sizes: Sizes, config: DataConfig) -> TaskData:
    generator = np.random.default_rng(0)
    names = tuple(f"class {number:04}" for number in range(sizes.num_classes))
    shape = (sizes.image_size, sizes.image_size, 3)

    def split(name: str, num_rows: int) -> Split:
        values = [generator.integers(0, 256, shape, dtype=np.uint8).tobytes() for _ in range(num_rows)]
        labels = generator.integers(0, sizes.num_classes, num_rows)
        rows = pa.table({"value": pa.array(values, pa.large_binary()), "label": labels})
        return Split(name, "vision", config, rows, f"synthetic {name} {sizes}")

    few = sizes.batch_size
    return TaskData(
        TASK, "vision", names, split("train", sizes.num_rows), split("validation", few), split("test", few), (), config
    )


def settle(network: Network, task: TaskData) -> None:
    """Statistics for its batch norms: without them an untrained ResNet's activations grow with every block."""
    network.module.train()
    with torch.no_grad():
        for start in range(0, 32, 16):
            network.logits(network.prepare(task.train.views(range(start, start + 16))))
    network.module.eval()
