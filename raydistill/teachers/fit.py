"""Train or fine-tune one teacher; stopped half way, it goes on from its last evaluation."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from raydistill.atomic import reason, replacing
from raydistill.config.models import TeachConfig
from raydistill.data.dataset import TaskData
from raydistill.data.ordering import shuffled_batches
from raydistill.data.preparing import prepared
from raydistill.devices import device_given, own_device, sent
from raydistill.errors import TeacherError
from raydistill.precision import autocast, use_bf16
from raydistill.schedule import learning_rate_at
from raydistill.tasks import task_of
from raydistill.teachers.models import Network

STATE = "training.pt"
Progress = Callable[[str], None]


def teaching_device(config: TeachConfig) -> torch.device:
    """Where a teacher learns: on the GPU that it was given, and on one that it sees where nothing was said."""
    return own_device() if config.placement is None else device_given(config.placement.num_gpus)


def fit(
    network: Network,
    data: TaskData,
    config: TeachConfig,
    folder: Path,
    seed: int,
    progress: Progress,
    label_names: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Train on the labelled rows of the train split; the weights with the best metric on the validation split stay.

    Args:
        label_names: the labels that it learns, in the order of its outputs; rows of others are left out. Default: all.
        folder: of the state that a stopped training resumes from.
        progress: hears loss, samples/s and time left.

    Returns:
        validation_accuracy (the task's metric, whatever it is), seconds, samples.

    Raises:
        ValueError: the task has no such label.
    """
    device = teaching_device(config)
    module = network.module.to(device)
    bf16 = use_bf16(config.precision, device)
    task = task_of(data, label_names)
    known = task.relabel(data.train.labels, data.label_names)
    rows = np.flatnonzero(task.is_labelled(known))
    num_steps = max(1, round(config.num_epochs * len(rows) / config.batch_size))
    evaluate_every = max(1, min(num_steps, len(rows) // config.batch_size) // config.evaluations_per_epoch)
    optimizer = torch.optim.AdamW(
        module.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    state: dict[str, Any] = {"step": 0, "best": -math.inf, "metric": 0.0, "worse": 0, "seconds": 0.0}
    path = folder / STATE
    if path.is_file():
        try:
            saved = torch.load(path, map_location=device, weights_only=True)
        except Exception as error:  # torch raises many kinds for a damaged file; each means the same to the user
            raise TeacherError(
                f"the state of an unfinished training {path} cannot be read ({type(error).__name__}); delete it, and "
                "the same command begins anew"
            ) from error
        state = {"metric": saved["state"]["best"], **saved["state"]}
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
        labels = sent(torch.from_numpy(known[views.sample_ids]), device)
        inputs = prepared(network.prepare, views, device)
        with autocast(device, bf16):
            logits = network.logits(inputs)
        loss = task.hard_loss(logits, labels, config.label_smoothing) / len(labels)
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
            metric, score = validation_scores(network, data, bf16, label_names)
            better = score > state["best"] or not best_weights
            state["worse"] = 0 if better else state["worse"] + 1
            if better:
                state["best"], state["metric"] = score, metric
                best_weights = {key: value.detach().cpu().clone() for key, value in module.state_dict().items()}
            state["seconds"] = seconds_before + time.monotonic() - began
            progress(f"step {state['step']}/{num_steps}, validation {task.metric_name} {metric:.3f}")
            saved = {"module": module.state_dict(), "optimizer": optimizer.state_dict(), "best_weights": best_weights}
            _save(path, {"state": state, **saved})
    module.load_state_dict(best_weights)
    module.eval()
    return {
        "validation_accuracy": state["metric"],
        "seconds": state["seconds"],
        "samples": state["step"] * config.batch_size,
    }


def validation_accuracy(
    network: Network, data: TaskData, bf16: bool, label_names: Sequence[str] | None = None, batch_size: int = 128
) -> float:
    """The metric on the validation split's labelled rows of its own labels: of classification, the share of them that
    are answered right."""
    return validation_scores(network, data, bf16, label_names, batch_size)[0]


@torch.inference_mode()
def validation_scores(
    network: Network, data: TaskData, bf16: bool, label_names: Sequence[str] | None = None, batch_size: int = 128
) -> tuple[float, float]:
    """The same, and the mean of the rows' scores: a metric that is clipped does not tell bad weights from worse."""
    task = task_of(data, label_names)
    known = task.relabel(data.validation.labels, data.label_names)
    module = network.module
    device = next(module.parameters()).device
    module.eval()
    rows, answers = np.flatnonzero(task.is_labelled(known)), []
    for start in range(0, len(rows), batch_size):
        views = data.validation.views(rows[start : start + batch_size])
        inputs = prepared(network.prepare, views, device)
        with autocast(device, bf16):
            answers.append(network.logits(inputs).float().cpu().numpy())
    module.train()
    output = np.concatenate(answers)
    return task.metric(output, known[rows]), float(task.row_scores(output, known[rows]).mean())


def _save(path: Path, value: dict[str, Any]) -> None:
    try:
        with replacing(path) as temporary:
            torch.save(value, temporary)
    except OSError as error:
        raise TeacherError(
            f"cannot write the teacher's training state to {path.parent} ({reason(error)}); free some space or set "
            "cache_dir"
        ) from error
