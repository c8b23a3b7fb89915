"""What all ways of training share: config, data, order of rows, teacher, student, step seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import raydistill
from raydistill.commands.preparing import load_data
from raydistill.commands.progress import Progress
from raydistill.commands.students import make_student
from raydistill.commands.teach import teach_missing
from raydistill.config.models import Config
from raydistill.data.dataset import TaskData, load_task_data
from raydistill.errors import ConfigError
from raydistill.precision import use_bf16
from raydistill.schedule import learning_rate_at
from raydistill.student.model import Student
from raydistill.student.predicting import predict_split
from raydistill.teachers.teacher import Teacher, load_teacher
from raydistill.training.loop import parameter_groups
from raydistill.training.sampler import MicroBatch, TaskSampler

TASK, TEACHER = "clothes", "resnet"
CONFIG_FILE, STUDENT_FOLDER = "config.yaml", "student"
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Outcome:
    """What one way of training did.

    Attributes:
        seconds: from loading the models to the end of the last step; of the teacher alone: an epoch's.
        losses: the total loss of every step that the way recorded, by step (1 = the first).
        accuracy: of the final student on the validation split.
        asked, from_store: rows that the teacher computed, and rows that a store answered in its place.
    """

    seconds: float
    losses: dict[int, float] = field(default_factory=dict)
    accuracy: float = 0.0
    asked: int = 0
    from_store: int = 0


class Setting:
    """One picture task of the demo, its teacher and its student, as a folder describes them.

    Args:
        folder: made by `prepare`.
        num_epochs: of the student's training.
    """

    def __init__(self, folder: Path, num_epochs: int) -> None:
        self.folder, self.num_epochs = folder, num_epochs
        self.config: Config = raydistill.load_config(folder / CONFIG_FILE)
        task = self.config.tasks[TASK]
        self.data: TaskData = load_task_data(TASK, task, Path(self.config.cache_dir).expanduser())
        # The order in which raydistill's own loop draws rows and views.
        rows = np.arange(len(self.data.train))
        self.sampler = TaskSampler(self.config.seed, TASK, rows, self.config.training.batch_size, task.num_views)
        self.bf16 = use_bf16(self.config.training.precision, CPU)
        self._prepare = self.load_student().preparer(TASK)
        same = self._prepare == self.load_teacher().network.prepare
        assert same, "one preparation serves both models: the peers are spared the second"

    @property
    def num_steps(self) -> int:
        return self.num_epochs * self.sampler.steps_per_epoch

    def epoch(self, epoch: int) -> Iterator[MicroBatch]:
        """The rows and views of its steps."""
        first = epoch * self.sampler.steps_per_epoch
        yield from (self.sampler.micro_batch(step) for step in range(first, first + self.sampler.steps_per_epoch))

    def batch(self, drawn: MicroBatch) -> tuple[Tensor, Tensor]:
        """Pixels float32 [batch, channels, height, width], prepared for teacher and student alike, and labels."""
        views = self.data.train.views(drawn.rows, drawn.view)
        return self._prepare(views)["pixel_values"], torch.from_numpy(views.labels)

    def load_teacher(self) -> Teacher:
        teacher = load_teacher(self.config, TEACHER, self.data.label_names)
        assert (teacher.columns == np.arange(len(self.data.label_names))).all(), "the peers do not reorder columns"
        return teacher

    @property
    def student_folder(self) -> Path:
        """Of its initial weights."""
        return self.folder / STUDENT_FOLDER

    def load_student(self) -> Student:
        return Student.from_pretrained(str(self.student_folder))

    def optimizer(self, module: nn.Module) -> torch.optim.Optimizer:
        training = self.config.training
        groups = parameter_groups(module, training.weight_decay)
        return torch.optim.AdamW(groups, lr=training.learning_rate, betas=(0.9, 0.98), fused=True)

    def learning_rate_factor(self, step: int) -> float:
        """Of the peak learning rate."""
        return learning_rate_at(step, 1.0, self.num_steps, self.config.training.warmup_fraction)

    def seed_step(self, step: int) -> None:
        """Dropout as in raydistill's own loop: the ways then differ in their arithmetic only."""
        torch.manual_seed(hash((self.config.seed, step, 0)) & 0x7FFF_FFFF_FFFF_FFFF)

    def accuracy(self, student: Student) -> float:
        logits = predict_split(student, TASK, self.data.validation, bf16=self.bf16)
        return student.tasks[TASK].metric(logits, self.data.validation.labels)


class Networks:
    """Teacher and student as plain modules from pixels to float32 logits, for whoever knows nothing of raydistill."""

    def __init__(self, setting: Setting) -> None:
        self.whole_student = setting.load_student()
        self.student = Plain(
            self.whole_student, lambda pixels: self.whole_student({TASK: {"pixel_values": pixels}})[TASK]
        )
        network = setting.load_teacher().network
        self.teacher = Plain(network.module, lambda pixels: network.logits({"pixel_values": pixels})).eval()


class Plain(nn.Module):
    """pixels -> logits float32 [batch, num_classes]; the last of its modules, `logits`, is there to be hooked.

    Args:
        body: whose parameters and mode are this module's.
        call: pixels through the body.
    """

    def __init__(self, body: nn.Module, call: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.body, self._call = body, call
        self.logits = ToFloat()

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.logits(self._call(pixels))
        return logits


class ToFloat(nn.Module):
    """Losses are reduced in float32, whatever the matrix products ran in."""

    def forward(self, values: Tensor) -> Tensor:
        return values.float()


def prepare(folder: Path, num_rows: int, num_views: int, num_epochs: int) -> None:
    """Data, a briefly trained teacher and the student's initial weights: nothing of it is timed.

    Raises:
        ConfigError: rows that do not fill whole batches: epochs would then not share their rows, nor their labels.
    """
    whole = raydistill.load_config("demo").model_dump(mode="json")
    only = {
        **whole, "name": "ten-epochs", "tasks": {TASK: whole["tasks"][TASK]},
        "teachers": {TEACHER: whole["teachers"][TEACHER]}, "student": {**whole["student"], "embeddings_from": None},
    }  # fmt: skip
    batch_size = only["training"]["task_batch_size"][TASK]
    if num_rows % batch_size:
        raise ConfigError(f"--rows {num_rows} is not a multiple of the batch size {batch_size}; round it")
    num_steps = num_rows // batch_size * num_epochs
    # The teacher's answers take as long as a good one's. The student sees all labels: the peers know no hidden ones.
    words = [
        f"tasks.{TASK}.data.max_train={num_rows}", f"tasks.{TASK}.data.max_validation=256",
        f"tasks.{TASK}.data.max_test=256", f"tasks.{TASK}.data.num_views={num_views}",
        f"teachers.{TEACHER}.train.num_epochs=1", f"teachers.{TEACHER}.allow_chance_level=true",
        "training.task_batch_size={}", f"training.batch_size={batch_size}", f"training.num_steps={num_steps}",
        "training.label_fraction=1.0", f"training.evaluate_every={num_steps}", "distill.hard_weight=0.3",
        "distill.temperature=2.0",
    ]  # fmt: skip
    config = raydistill.load_config(only, words)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG_FILE).write_text(config.model_dump_json(indent=1), encoding="utf-8")
    with Progress() as progress:
        data = load_data(config, progress)
        teach_missing(config, data, progress)
        make_student(config, data, config.seed, folder / STUDENT_FOLDER)
