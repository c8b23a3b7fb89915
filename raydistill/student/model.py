"""The student as one module that saves to, and loads from, a folder or the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from raydistill.data.preparing import LogMelPreparer, Preparer, TextPreparer, VisionPreparer
from raydistill.errors import ConfigError
from raydistill.student.shape import StudentShape, TaskShape
from raydistill.student.stems import make_stems
from raydistill.student.trunk import Trunk
from raydistill.student.vocabulary import find_tokenizer
from raydistill.tasks import Task, make_task

WEIGHTS_FILE = "model.safetensors"


class Student(nn.Module, PyTorchModelHubMixin):
    """stems → trunk → heads. `Student.from_pretrained(folder)` brings back weights, labels and tokenizer.

    Args:
        shape: `StudentShape.to_json()`.
    """

    def __init__(self, shape: dict[str, Any]) -> None:
        super().__init__()
        self.shape = StudentShape.from_json(shape)
        self.tasks: dict[str, Task] = {
            name: make_task(task.kind, name, task.domain, task.label_names) for name, task in self.shape.tasks.items()
        }
        self.tokenizer: PreTrainedTokenizerFast | None = None
        self.stems = make_stems(self.shape)
        self.trunk = Trunk(self.shape.width, self.shape.depth, self.shape.num_heads, self.shape.dropout)
        # Prefixed: a task may be called `train` or `type`, a module's child may not.
        self.heads = nn.ModuleDict(
            {f"task_{name}": task.make_head(self.shape.width) for name, task in self.tasks.items()}
        )

    def forward(self, inputs: dict[str, dict[str, Tensor]]) -> dict[str, Tensor]:
        """By task: prepared inputs (see `preparer`) -> logits [batch, num_classes].

        All tasks pass in one call, so that under DDP one forward and one backward touch every parameter.
        """
        outputs = {}
        for name, prepared in inputs.items():
            tokens, mask = self.stems[self.shape.tasks[name].domain](**prepared)
            outputs[name] = self.heads[f"task_{name}"](self.trunk(tokens, mask), mask)
        return outputs

    def preparer(self, task: str) -> Preparer:
        """The student's own preparation of a task's views: its resolution, tokenizer, sample rate."""
        shape: TaskShape = self.shape.tasks[task]
        if shape.domain == "vision":
            channels = self.shape.num_channels
            return VisionPreparer(shape.image_size, (0.5,) * channels, (0.5,) * channels, channels)
        if shape.domain == "text":
            if self.tokenizer is None:
                raise ConfigError(f"task {task!r}: the student has no tokenizer; load it with from_pretrained")
            return TextPreparer(self.tokenizer, self.shape.max_length)
        return LogMelPreparer(shape.sample_rate, shape.max_seconds, self.shape.num_mels)

    @property
    def num_parameters(self) -> int:
        """All parameters, embeddings included."""
        return sum(parameter.numel() for parameter in self.parameters())

    def _save_pretrained(self, save_directory: Path) -> None:
        super()._save_pretrained(save_directory)
        if self.tokenizer is not None:
            self.tokenizer.save_pretrained(save_directory)

    @classmethod
    def _from_pretrained(cls, *, model_id: str, **options: Any) -> Student:
        folder = Path(model_id)
        if folder.is_dir():
            # As the mixin does it, without the line that it prints for every load.
            student = cls(options["shape"])
            cls._load_as_safetensor(student, str(folder / WEIGHTS_FILE), "cpu", True)
        else:
            student = super()._from_pretrained(model_id=model_id, **options)
        if "text" in student.shape.domains:
            student.tokenizer = find_tokenizer(model_id)
        return student
