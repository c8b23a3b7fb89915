"""The student as one module that saves to, and loads from, a folder or the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import PyTorchModelHubMixin
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from raydistill.atomic import as_others
from raydistill.data.preparing import LogMelPreparer, Preparer, TextPreparer, VisionPreparer
from raydistill.errors import ConfigError, first_line
from raydistill.student.classifiers import answer, classifier_preparer, make_classifier
from raydistill.student.shape import StudentShape, TaskShape
from raydistill.student.stems import make_stems
from raydistill.student.trunks import make_trunk
from raydistill.student.trunks.experts import ExpertsTrunk
from raydistill.student.vocabulary import find_tokenizer
from raydistill.tasks import Task, make_task
from raydistill.tasks.heads import Units

WEIGHTS_FILE = "model.safetensors"


class Student(nn.Module, PyTorchModelHubMixin):
    """stems → trunk → heads. `Student.from_pretrained(folder)` brings back weights, labels and tokenizer.

    A student of one task may be a plain classifier instead (`student.classifier`), with the same face.

    Args:
        shape: `StudentShape.to_json()`.

    Raises:
        ConfigError: the trunk or the classifier cannot be built.
    """

    def __init__(self, shape: dict[str, Any]) -> None:
        super().__init__()
        self.shape = StudentShape.from_json(shape)
        self.tasks: dict[str, Task] = {
            name: make_task(task.kind, name, task.domain, task.label_names) for name, task in self.shape.tasks.items()
        }
        self.tokenizer: PreTrainedTokenizerFast | None = None
        self._auxiliary: dict[str, Tensor] = {}
        self.passing: tuple[str, Tensor | None] | None = None  # the task that is computed, and its mask of real tokens
        self.units = nn.ModuleDict(
            {
                f"task_{name}": Units(len(task.label_names))
                for name, task in self.shape.tasks.items()
                if task.kind == "regression"
            }
        )
        if self.shape.classifier is not None:
            (task,) = self.shape.tasks.values()
            self.classifier = make_classifier(self.shape.classifier, task)
            return
        self.stems = make_stems(self.shape)
        self.trunk = make_trunk(self.shape)
        # Prefixed: a task may be called `train` or `type`, a module's child may not.
        self.heads = nn.ModuleDict(
            {f"task_{name}": task.make_head(self.shape.width) for name, task in self.tasks.items()}
        )

    def forward(self, inputs: dict[str, dict[str, Tensor]]) -> dict[str, Tensor]:
        """By task: prepared inputs (see `preparer`) -> logits [batch, num_classes].

        All tasks pass in one call, so that under DDP one forward and one backward touch every parameter.
        """
        self.take_auxiliary()  # of an earlier call, which nobody took
        outputs = {}
        for name, prepared in inputs.items():
            self.passing = (name, prepared.get("attention_mask") if self.shape.classifier is not None else None)
            if self.shape.classifier is not None:
                return {name: answer(self.classifier, prepared)}
            tokens, mask = self.stems[self.shape.tasks[name].domain](**prepared)
            self.passing = (name, mask)
            outputs[name] = self.heads[f"task_{name}"](self.trunk(tokens, mask), mask)
        if isinstance(self.trunk, ExpertsTrunk):
            self._auxiliary = dict(zip(inputs, self.trunk.take_auxiliary(), strict=True))
        return outputs

    def take_auxiliary(self) -> dict[str, Tensor]:
        """By task, a scalar with graph: its part of what the trunk adds to the loss of the last forward.

        With its weight: it is added as it is. A second call gives nothing, as do trunks that add nothing.
        """
        taken, self._auxiliary = self._auxiliary, {}
        return taken

    @torch.no_grad()
    def routing_table(
        self, batches: Mapping[str, Iterable[dict[str, Tensor]]], block: int = -1
    ) -> dict[str, list[float]]:
        """By task, the share of its tokens that went to each expert: [num_experts], summing to 1.

        Args:
            batches: by task, prepared inputs (see `preparer`), on the student's device.
            block: which of the blocks with experts; default the last, nearest to the heads.

        Returns:
            Empty where the trunk has no experts.
        """
        if self.shape.classifier is not None or not isinstance(self.trunk, ExpertsTrunk):
            return {}
        was_training = self.training
        self.eval()
        table = {}
        for name, of_task in batches.items():
            counts = torch.zeros(self.trunk.num_experts, dtype=torch.float64)
            for prepared in of_task:
                self({name: prepared})
                assert self.trunk.routing_by_block is not None
                counts += self.trunk.routing_by_block[block].cpu()
            table[name] = [float(share) for share in counts / counts.sum().clamp_min(1.0)]
        self.train(was_training)
        return table

    def preparer(self, task: str) -> Preparer:
        """The student's own preparation of a task's views: its resolution, tokenizer, sample rate."""
        shape: TaskShape = self.shape.tasks[task]
        if self.shape.classifier is not None:
            return classifier_preparer(self.classifier, shape, self.tokenizer, self.shape.max_length)
        if shape.domain == "vision":
            channels = self.shape.num_channels
            return VisionPreparer(shape.image_size, (0.5,) * channels, (0.5,) * channels, channels)
        if shape.domain == "text":
            if self.tokenizer is None:
                raise ConfigError(f"task {task!r}: the student has no tokenizer; load it with from_pretrained")
            return TextPreparer(self.tokenizer, self.shape.max_length)
        return LogMelPreparer(shape.sample_rate, shape.max_seconds, self.shape.num_mels)

    def units_of(self, task: str) -> Units:
        """Of a regression task."""
        units = self.units[f"task_{task}"]
        assert isinstance(units, Units)
        return units

    @property
    def num_parameters(self) -> int:
        """All parameters, embeddings included."""
        return sum(parameter.numel() for parameter in self.parameters())

    def _save_pretrained(self, save_directory: Path) -> None:
        super()._save_pretrained(save_directory)
        as_others(save_directory / WEIGHTS_FILE)
        if self.tokenizer is not None:
            self.tokenizer.save_pretrained(save_directory)

    @classmethod
    def _load_as_pickle(cls, model: Any, model_file: str, map_location: str, strict: bool) -> Any:
        """The mixin's way out where a hub repository has no safetensors file."""
        raise ConfigError(f"{model_file}: a student's weights are read from {WEIGHTS_FILE} only, never from a pickle")

    @classmethod
    def _from_pretrained(cls, *, model_id: str, **options: Any) -> Student:
        folder = Path(model_id)
        if folder.is_dir():
            # As the mixin does it, without the line that it prints for every load.
            try:
                student = cls(options["shape"])
                cls._load_as_safetensor(student, str(folder / WEIGHTS_FILE), "cpu", True)
            except (LookupError, TypeError, AttributeError, RuntimeError, OSError, SafetensorError) as error:
                raise ConfigError(f"{folder} holds no student that can be read ({first_line(error)})") from error
        else:
            student = super()._from_pretrained(model_id=model_id, **options)
        if "text" in student.shape.domains:
            student.tokenizer = find_tokenizer(model_id)
        return student
