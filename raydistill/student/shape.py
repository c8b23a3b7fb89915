"""A student's shape as plain data: what `config.json` holds and what a student is rebuilt from."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from raydistill.config.basics import Domain
from raydistill.config.models import Config
from raydistill.config.student import ClassifierConfig, StudentConfig
from raydistill.errors import ConfigError


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
    """Everything that decides the student's parameters and its preparation of inputs.

    What came later than the first version has a default: the config.json of an older student still loads.

    Attributes:
        trunk_options: what the trunk's class takes beside the measures.
        classifier: `loader`, and what it needs to build the network again; then there is no stem, trunk or head.
    """

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
    trunk: str = "dense"
    trunk_options: dict[str, Any] = field(default_factory=dict)
    classifier: dict[str, Any] | None = None

    @property
    def longest(self) -> int:
        """Tokens of the longest input that a stem can give to the trunk."""
        lengths = [self.max_length] if "text" in self.domains else []
        for task in self.tasks.values():
            if task.domain == "vision":
                lengths.append(_halved(task.image_size, self.patch_size) ** 2)
            elif task.domain == "speech":
                hop = task.sample_rate // 100
                frames = 1 + int(task.max_seconds * task.sample_rate) // hop
                lengths.append(_halved(frames, self.frames_per_token))
        return max(lengths)

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


def student_shape(
    config: Config, label_names: dict[str, tuple[str, ...]], vocab_size: int, pad_token_id: int = 0
) -> StudentShape:
    """The shape that a config asks for.

    Args:
        config: the run's config.
        label_names: by task, in head order.
        vocab_size: of the student's tokenizer; 0 without a text task.
        pad_token_id: of the student's tokenizer.

    Raises:
        ConfigError: a classifier for several tasks, or an encoder that does not exist.
    """
    student: StudentConfig = config.student
    try:
        student.check_around(config.tasks, config.teachers)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    width, depth, num_heads = student.measures
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
        # A classifier has no trunk.
        trunk="dense" if student.classifier else student.trunk,
        trunk_options={} if student.classifier else trunk_options(student),
        classifier=classifier_options(student.classifier, tasks, vocab_size, pad_token_id),
    )


def trunk_options(student: StudentConfig) -> dict[str, Any]:
    """What the chosen trunk's class takes beside the measures, as plain data.

    Raises:
        ConfigError: an encoder that does not exist, or options that it does not have.
    """
    if student.trunk == "experts":
        return student.experts.model_dump()
    if student.trunk == "reformer":
        return student.reformer.model_dump()
    if student.trunk == "transformers":
        from raydistill.student.trunks.encoder_config import encoder_config

        encoder = student.encoder
        return {"config": encoder_config(encoder.model, encoder.options, *student.measures, student.dropout)}
    return {}


def classifier_options(
    classifier: ClassifierConfig | None, tasks: dict[str, TaskShape], vocab_size: int, pad_token_id: int
) -> dict[str, Any] | None:
    """What builds the one network of a student without a trunk, as plain data; None for a student with one.

    Raises:
        ConfigError: there is no such model.
    """
    if classifier is None:
        return None
    from raydistill.student.classifiers import classifier_config

    (task,) = tasks.values()
    return classifier_config(classifier, task, vocab_size, pad_token_id)


def _halved(length: int, factor: int) -> int:
    """What a stem's stride-2 convolutions leave, rounded up by each."""
    for _ in range(max(1, int(math.log2(factor)))):
        length = (length + 1) // 2
    return length


def _patch_size(image_size: int) -> int:
    """The largest power of two that leaves seven tokens a side or more; attention costs their number squared."""
    return max(2, 1 << max(1, image_size // 7).bit_length() - 1)
