"""Train or fine-tune one teacher; stopped half way, it goes on from its last evaluation."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from raydistill.atomic import reason, replacing
from raydistill.config.models import TeachConfig
from raydistill.data.dataset import TaskData
from raydistill.data.ordering import shuffled_batches
from raydistill.errors import TeacherError
from raydistill.precision import autocast, use_bf16
from raydistill.schedule import learning_rate_at
from raydistill.teachers.models import Network

STATE = "training.pt"
Progress = Callable[[str], None]


def fit(
    network: Network,
    data: TaskData,
    config: TeachConfig,
    folder: Path,
    seed: int,
    progress: Progress,
    label_names: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Train on the labelled rows of the train split; the weights with the best validation accuracy stay.

    Args:
        label_names: the classes that it learns, in the order of its outputs; rows of others are left out. Default: all.
        folder: of the state that a stopped training resumes from.
        progress: hears loss, samples/s and time left.

    Returns:
        validation_accuracy, seconds, samples.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    module = network.module.to(device)
    bf16 = use_bf16(config.precision, device)
    known = own_classes(data, label_names)
    rows = np.flatnonzero(known[data.train.labels] >= 0)
    num_steps = max(1, round(config.num_epochs * len(rows) / config.batch_size))
    evaluate_every = max(1, min(num_steps, len(rows) // config.batch_size) // config.evaluations_per_epoch)
    optimizer = torch.optim.AdamW(
        module.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    state: dict[str, Any] = {"step": 0, "best": -1.0, "worse": 0, "seconds": 0.0}
    path = folder / STATE
    if path.is_file():
        saved = torch.load(path, map_location=device, weights_only=True)
        state = saved["state"]
        module.load_state_dict(saved["module"])
        optimizer.load_state_dict(saved["optimizer"])
        best_weights = saved["best_weights"]
        progress(f"goes on from step {state['step']}")
    else:
        best_weights = {}
    began, seconds_before, first = time.monotonic(), state["seconds"], state["step"]
    batches: tuple[int, list[NDArray[np.int64]]] = (-1, [])
    per_epoch = max(1, len(rows) // config.batch_size)
    module.train()
    while state["step"] < num_steps and state["worse"] < config.patience:
        step = state["step"]
        epoch, position = divmod(step, per_epoch)
        if batches[0] != epoch:
            generator = np.random.default_rng([seed, epoch])
            batches = (epoch, shuffled_batches(rows, data.train.lengths, config.batch_size, generator))
        views = data.train.views(batches[1][position], 1 + epoch if data.settings.augment else 0)
        torch.manual_seed(hash((seed, step)) & 0x7FFF_FFFF_FFFF_FFFF)
        labels = torch.from_numpy(known[views.labels]).to(device)
        prepared = {key: value.to(device) for key, value in network.prepare(views).items()}
        with autocast(device, bf16):
            logits = network.logits(prepared)
        loss = F.cross_entropy(logits.float(), labels, label_smoothing=config.label_smoothing)
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(step, config.learning_rate, num_steps, config.warmup_fraction)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        state["step"] = step + 1
        if state["step"] % 10 == 0:
            rate = (state["step"] - first) / (time.monotonic() - began)
            left = (num_steps - state["step"]) / rate
            progress(
                f"step {state['step']}/{num_steps}, loss {loss.item():.3f}, {rate * config.batch_size:,.0f} samples/s, "
                f"{left:.0f} s left"
            )
        if state["step"] % evaluate_every == 0 or state["step"] == num_steps:
            accuracy = validation_accuracy(network, data, bf16, label_names)
            better = accuracy > state["best"]
            state["worse"] = 0 if better else state["worse"] + 1
            if better:
                state["best"] = accuracy
                best_weights = {key: value.detach().cpu().clone() for key, value in module.state_dict().items()}
            state["seconds"] = seconds_before + time.monotonic() - began
            progress(f"step {state['step']}/{num_steps}, validation accuracy {accuracy:.3f}")
            saved = {"module": module.state_dict(), "optimizer": optimizer.state_dict(), "best_weights": best_weights}
            _save(path, {"state": state, **saved})
    module.load_state_dict(best_weights)
    module.eval()
    return {
        "validation_accuracy": state["best"],
        "seconds": state["seconds"],
        "samples": state["step"] * config.batch_size,
    }


def own_classes(data: TaskData, label_names: Sequence[str] | None) -> NDArray[np.int64]:
    """From a row's label to the teacher's output; −1 for a class that it does not learn, and for no label (the last).

    Raises:
        ValueError: the task has no such class.
    """
    names = list(label_names or data.label_names)
    if strangers := [name for name in names if name not in data.label_names]:
        raise ValueError(f"label_names has {strangers[0]!r}, and the task's are {list(data.label_names)}")
    own = [names.index(name) if name in names else -1 for name in data.label_names]
    return np.array([*own, -1], dtype=np.int64)


@torch.inference_mode()
def validation_accuracy(
    network: Network, data: TaskData, bf16: bool, label_names: Sequence[str] | None = None, batch_size: int = 128
) -> float:
    """Share of the validation split's labelled rows of its own classes that are answered right."""
    known = own_classes(data, label_names)
    module = network.module
    device = next(module.parameters()).device
    module.eval()
    right = 0
    rows = np.flatnonzero(known[data.validation.labels] >= 0)
    with autocast(device, bf16):
        for start in range(0, len(rows), batch_size):
            views = data.validation.views(rows[start : start + batch_size])
            prepared = {key: value.to(device) for key, value in network.prepare(views).items()}
            right += int((network.logits(prepared).argmax(dim=-1).cpu().numpy() == known[views.labels]).sum())
    module.train()
    return right / len(rows)


def _save(path: Path, value: dict[str, Any]) -> None:
    try:
        with replacing(path) as temporary:
            torch.save(value, temporary)
    except OSError as error:
        raise TeacherError(
            f"cannot write the teacher's training state to {path.parent} ({reason(error)}); free some space or set "
            "cache_dir"
        ) from error
