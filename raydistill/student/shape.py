"""A student's shape as plain data: what `config.json` holds and what a student is rebuilt from."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from raydistill.config.basics import Domain
from raydistill.config.models import Config, StudentConfig


@dataclass(frozen=True)
class TaskShape:
    """What the student has to know of one task to prepare its inputs and to size its head."""

    domain: Domain
    kind: str
    label_names: tuple[str, ...]
    image_size: int = 0
    grayscale: bool = False
    sample_rate: int = 0
    max_seconds: float = 0.0


@dataclass(frozen=True)
class StudentShape:
    """Everything that decides the student's parameters and its preparation of inputs."""

    width: int
    depth: int
    num_heads: int
    dropout: float
    patch_size: int
    num_channels: int
    vocab_size: int
    embedding_width: int
    max_length: int
    num_mels: int
    frames_per_token: int
    tasks: dict[str, TaskShape]

    @property
    def domains(self) -> tuple[Domain, ...]:
        """The domains that need a stem, sorted."""
        return tuple(sorted({task.domain for task in self.tasks.values()}))

    def to_json(self) -> dict[str, Any]:
        """Plain data, for `config.json`."""
        return asdict(self)

    @staticmethod
    def from_json(values: dict[str, Any]) -> StudentShape:
        """The inverse of `to_json`."""
        tasks = {
            name: TaskShape(**{**task, "label_names": tuple(task["label_names"])})
            for name, task in values["tasks"].items()
        }
        return StudentShape(**{**values, "tasks": tasks})


def student_shape(config: Config, label_names: dict[str, tuple[str, ...]], vocab_size: int) -> StudentShape:
    """The shape that a config asks for.

    Args:
        config: the run's config.
        label_names: by task, in head order.
        vocab_size: of the student's tokenizer; 0 without a text task.
    """
    student: StudentConfig = config.student
    width, depth, num_heads = student.trunk
    tasks = {
        name: TaskShape(
            domain=task.domain,
            kind=task.kind,
            label_names=label_names[name],
            image_size=task.data.image_size if task.domain == "vision" else 0,
            grayscale=task.domain == "vision" and task.data.grayscale,
            sample_rate=(student.sample_rate or task.data.sample_rate) if task.domain == "speech" else 0,
            max_seconds=task.data.max_seconds if task.domain == "speech" else 0.0,
        )
        for name, task in config.tasks.items()
    }
    pictures = [task.data for task in config.tasks.values() if task.domain == "vision"]
    return StudentShape(
        width=width,
        depth=depth,
        num_heads=num_heads,
        dropout=student.dropout,
        patch_size=student.patch_size or _patch_size(max((data.image_size for data in pictures), default=0)),
        num_channels=1 if pictures and all(data.grayscale for data in pictures) else 3,
        vocab_size=vocab_size,
        embedding_width=student.embedding_width,
        max_length=student.max_length,
        num_mels=student.num_mels,
        frames_per_token=student.frames_per_token,
        tasks=tasks,
    )


def _patch_size(image_size: int) -> int:
    """The largest power of two that leaves seven tokens a side or more; attention costs their number squared."""
    return max(2, 1 << max(1, image_size // 7).bit_length() - 1)
