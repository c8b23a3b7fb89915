"""torchdistill's distillation box on the same models, data, views, loss, optimizer and schedule.

Everything goes through its own doors: data loader, forward hooks, `KDLoss`, optimizer and scheduler registries, the
box's pre- and post-processes. Two kindnesses that its examples lack: whole batches come from one indexing, and no loss
is read back in the loop.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterator
from typing import Any

from peers.setting import CPU, Networks, Outcome, Setting
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from raydistill.errors import ConfigError
from raydistill.precision import autocast
from raydistill.training.sampler import MicroBatch

VERSION = "1.1.5"


def check_installed() -> None:
    """Raises ConfigError where torchdistill cannot be imported."""
    if importlib.util.find_spec("torchdistill") is None:
        raise ConfigError(
            f"torchdistill is not installed; pip install 'raydistill[bench]' has it (torchdistill=={VERSION})"
        )


class Batches(Dataset[tuple[Tensor, Tensor]]):
    """Indexed by a whole micro-batch."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting

    def __len__(self) -> int:
        return self.setting.sampler.steps_per_epoch

    def __getitem__(self, drawn: MicroBatch) -> tuple[Tensor, Tensor]:
        return self.setting.batch(drawn)


class Epochs(Sampler[MicroBatch]):
    """Each time it is gone through: the next epoch."""

    def __init__(self, dataset: Any, setting: Setting) -> None:
        self.setting, self._epoch = setting, -1

    def __len__(self) -> int:
        return self.setting.sampler.steps_per_epoch

    def __iter__(self) -> Iterator[MicroBatch]:
        self._epoch += 1
        return self.setting.epoch(self._epoch)


def train(setting: Setting) -> Outcome:
    """Train the student with the teacher in the box."""
    from torchdistill.core.distillation import get_distillation_box
    from torchdistill.optim.registry import register_optimizer

    register_optimizer(key="grouped")(lambda modules, **_: setting.optimizer(modules))
    began = time.perf_counter()
    networks = Networks(setting)
    box = get_distillation_box(
        networks.teacher, networks.student, {"train": Batches(setting)}, _train_config(setting), CPU, None, False, 1.0
    )
    losses: list[Tensor] = []
    for epoch in range(setting.num_epochs):
        box.pre_epoch_process(epoch=epoch)
        for pixels, labels, extra in box.train_data_loader:
            setting.seed_step(len(losses))
            with autocast(CPU, setting.bf16):
                loss = box.forward_process(pixels, labels, extra)
            losses.append(loss.detach())
            box.post_forward_process(loss=loss)
        box.post_epoch_process()
    seconds = time.perf_counter() - began
    assert not networks.teacher.training
    asked = setting.num_steps * setting.config.training.batch_size
    by_step = {step: float(loss) for step, loss in enumerate(losses, start=1)}
    return Outcome(seconds, by_step, setting.accuracy(networks.whole_student), asked)


def _train_config(setting: Setting) -> dict[str, Any]:
    distill, training = setting.config.distill, setting.config.training
    model = {"forward_proc": "forward_batch_only", "forward_hook": {"input": [], "output": ["logits"]}}
    kd_loss = {
        "student_module_path": "logits", "student_module_io": "output", "teacher_module_path": "logits",
        "teacher_module_io": "output", "temperature": distill.temperature, "alpha": distill.hard_weight,
        "reduction": "batchmean",
    }  # fmt: skip
    return {
        "num_epochs": setting.num_epochs,
        "train_data_loader": {
            "dataset_id": "train",
            "sampler": {"class_or_func": Epochs, "kwargs": {"setting": setting}},
            "kwargs": {"batch_size": None, "num_workers": 0},
        },
        "teacher": {**model, "requires_grad": False},
        "student": model,
        "criterion": {
            "key": "WeightedSumLoss",
            "kwargs": {"sub_terms": {"kd": {"criterion": {"key": "KDLoss", "kwargs": kd_loss}, "weight": 1.0}}},
        },
        # Unfiltered, the optimizer gets the modules, and with them the names that weight decay goes by.
        "optimizer": {"key": "grouped", "kwargs": {}, "filters_params": False, "max_grad_norm": training.clip_norm},
        "scheduler": {
            "key": "LambdaLR", "kwargs": {"lr_lambda": setting.learning_rate_factor}, "scheduling_step": 1,
        },
    }  # fmt: skip
