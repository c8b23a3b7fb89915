"""The distillation loss and the learning rate against float64 NumPy versions of their formulas."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from raydistill.config.distill import DistillConfig
from raydistill.fusion.fuser import make_fuser
from raydistill.fusion.standing import Standing
from raydistill.schedule import learning_rate_at
from raydistill.tasks import Task, make_task
from raydistill.training.step import Objective, TaskBatch

TASKS: dict[str, Task] = {
    "words": make_task("classification", "words", "text", ("a", "b", "c")),
    "sounds": make_task("classification", "sounds", "speech", ("x", "y")),
}
FEATURES = 4


class TwoLinears(nn.Module):
    """The smallest thing with a student's forward."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Identity()
        self.heads = nn.ModuleDict({name: nn.Linear(FEATURES, len(task.label_names)) for name, task in TASKS.items()})

    def take_auxiliary(self) -> dict[str, Tensor]:
        return {}

    def forward(self, inputs: dict[str, dict[str, Tensor]]) -> dict[str, Tensor]:
        return {name: self.heads[name](given["x"]) for name, given in inputs.items()}


def made_up(num_rows: int, taught: tuple[str, ...] = tuple(TASKS)) -> tuple[TwoLinears, dict[str, dict[str, Any]]]:
    torch.manual_seed(0)
    student = TwoLinears()
    generator = np.random.default_rng(0)
    rows = {}
    for name, task in TASKS.items():
        classes = len(task.label_names)
        rows[name] = {
            "x": generator.normal(0, 1, (num_rows, FEATURES)).astype(np.float32),
            "labels": generator.integers(-1, classes, num_rows),
            "teacher": generator.normal(0, 2, (num_rows, classes)).astype(np.float32) if name in taught else None,
        }
    return student, rows


def batches_of(rows: dict[str, dict[str, Any]], part: slice = slice(None)) -> dict[str, TaskBatch]:
    return {
        name: TaskBatch(
            inputs={"x": torch.from_numpy(each["x"][part])},
            hard_labels=torch.from_numpy(each["labels"][part]),
            teacher_logits=None if each["teacher"] is None else torch.from_numpy(each["teacher"][part])[None],
            num_rows=len(each["labels"]),
            num_labelled=int((each["labels"] >= 0).sum()),
        )
        for name, each in rows.items()
    }


def weighing(temperature: float, hard_weight: float, task_weights: dict[str, float], **more: Any) -> DistillConfig:
    return DistillConfig(temperature=temperature, hard_weight=hard_weight, task_weights=task_weights, **more)


def loss_of(
    student: nn.Module, batches: dict[str, TaskBatch], distill: DistillConfig
) -> tuple[Tensor, dict[str, Tensor]]:
    """The plain sum of the tasks' losses."""
    one = [Standing("teacher", 0.9, 1.0)]
    fusers = {name: make_fuser(distill, name, one, len(task.label_names)) for name, task in TASKS.items()}
    by_task, beside, metrics = Objective(student, TASKS, distill, fusers)(batches)  # type: ignore[arg-type]
    assert beside is None  # one teacher needs no gate
    return sum(by_task.values(), torch.zeros(())), metrics


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def formula(student: TwoLinears, rows: dict[str, dict[str, Any]], weights: DistillConfig) -> float:
    total = 0.0
    for name, each in rows.items():
        head = student.heads[name]
        weight, bias = head.weight.detach().double().numpy(), head.bias.detach().double().numpy()
        logits = each["x"].astype(np.float64) @ weight.T + bias
        labelled = each["labels"] >= 0
        picked = log_softmax(logits)[labelled, each["labels"][labelled]]
        task_loss = -picked.sum() / max(1, labelled.sum())
        if each["teacher"] is not None:
            temperature = weights.temperature_of(name)
            log_p = log_softmax(each["teacher"].astype(np.float64) / temperature)
            log_q = log_softmax(logits / temperature)
            soft = temperature**2 * (np.exp(log_p) * (log_p - log_q)).sum() / len(logits)
            task_loss = weights.hard_weight * task_loss + (1 - weights.hard_weight) * soft
        total += weights.task_weights.get(name, 1.0) * task_loss
    return float(total)


@pytest.mark.parametrize(
    ("weights", "taught"),
    [
        (weighing(1.0, 0.5, {}), ("words", "sounds")),
        (weighing(3.0, 0.3, {"words": 2.0}), ("words", "sounds")),
        (weighing(2.0, 0.0, {"words": 0.5, "sounds": 4.0}), ("words", "sounds")),
        (weighing(2.0, 1.0, {}), ("words", "sounds")),
        (weighing(2.0, 0.2, {}, task_temperatures={"words": 5.0}), ("words", "sounds")),
        (weighing(2.0, 0.2, {"words": 0.5}, task_temperatures={"words": 5.0, "sounds": 1.0}), ("words", "sounds")),
        (weighing(4.0, 0.2, {"sounds": 3.0}), ("words",)),
        (weighing(4.0, 0.2, {}), ()),
    ],
)
def test_loss_is_the_formula(weights: DistillConfig, taught: tuple[str, ...]) -> None:
    student, rows = made_up(20, taught)
    loss, metrics = loss_of(student, batches_of(rows), weights)
    assert loss.item() == pytest.approx(formula(student, rows, weights), rel=1e-5)
    assert metrics["total_loss"].item() == pytest.approx(loss.item())
    assert metrics.keys() == {"total_loss", "words/hard_loss", "sounds/hard_loss", *(f"{t}/soft_loss" for t in taught)}
    assert not any(value.requires_grad for value in metrics.values())


def test_a_row_that_no_teacher_spoke_on_has_its_hard_loss_alone() -> None:
    student, rows = made_up(20)
    heard, weights = np.arange(20) % 3 > 0, weighing(2.0, 0.3, {})
    whole = batches_of(rows)
    silent = torch.full((20, 1), float("nan"))
    batches = {
        name: replace(
            batch,
            heard=torch.from_numpy(heard),
            teacher_logits=torch.where(torch.from_numpy(heard)[:, None], batch.teacher_logits, silent),
        )
        for name, batch in whole.items()
    }
    loss, _ = loss_of(student, batches, weights)
    expected = 0.0
    for some in (heard, ~heard):
        for name, each in rows.items():
            spoken = each["teacher"][some] if some is heard else None
            part = {name: {"x": each["x"][some], "labels": each["labels"][some], "teacher": spoken}}
            (batch,) = batches_of(part).values()
            batch = replace(batch, num_rows=20, num_labelled=whole[name].num_labelled)
            expected += loss_of(student, {name: batch}, weights)[0].item()
    assert loss.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("cuts", [(10,), (5, 10, 15), (1,)])
def test_gradients_of_parts_add_up_to_those_of_the_whole(cuts: tuple[int, ...]) -> None:
    student, rows = made_up(20)
    weights = weighing(2.0, 0.3, {"words": 2.0})
    loss_of(student, batches_of(rows), weights)[0].backward()
    whole = [parameter.grad.clone() for parameter in student.parameters() if parameter.grad is not None]
    student.zero_grad()
    for start, end in zip((0, *cuts), (*cuts, 20), strict=True):
        loss_of(student, batches_of(rows, slice(start, end)), weights)[0].backward()
    assert len(whole) == 4
    for parameter, expected in zip(student.parameters(), whole, strict=True):
        torch.testing.assert_close(parameter.grad, expected)


def test_what_is_learned_beside_has_a_gradient_also_where_no_teacher_spoke() -> None:
    """Data parallelism waits for it."""
    student, rows = made_up(6, taught=())
    distill = weighing(2.0, 0.3, {}, fusion="gate")
    two = [Standing("one", 0.9, 1.0), Standing("two", 0.9, 1.0)]
    fusers = {name: make_fuser(distill, name, two, len(task.label_names)) for name, task in TASKS.items()}
    objective = Objective(student, TASKS, distill, fusers)  # type: ignore[arg-type]
    by_task, beside, _ = objective(batches_of(rows))
    (sum(by_task.values()) + beside).backward()
    assert len(list(objective.beside.parameters())) == 4
    assert all(parameter.grad is not None for parameter in objective.parameters())


def test_without_any_label_and_teacher_the_loss_is_zero_and_finite() -> None:
    student, rows = made_up(6, taught=())
    for each in rows.values():
        each["labels"][:] = -1
    loss, _ = loss_of(student, batches_of(rows), weighing(2.0, 0.3, {}))
    loss.backward()
    assert loss.item() == 0.0
    assert all(torch.isfinite(parameter.grad).all() for parameter in student.parameters())


def test_a_half_precision_student_is_measured_in_single_precision() -> None:
    student, rows = made_up(20)
    weights = weighing(2.0, 0.3, {})
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = loss_of(student, batches_of(rows), weights)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(formula(student, rows, weights), rel=0.05)


def test_learning_rate_warms_up_linearly_and_falls_by_half_a_cosine() -> None:
    rates = [learning_rate_at(step, 0.5, 100, 0.1) for step in range(100)]
    expected = [
        0.5 * (step + 1) / 10 if step < 10 else 0.25 * (1 + math.cos(math.pi * (step - 10) / 90)) for step in range(100)
    ]
    np.testing.assert_allclose(rates, expected, rtol=1e-5, atol=1e-7)
    assert max(rates) == rates[9] == rates[10] == 0.5


@pytest.mark.parametrize(("num_steps", "warmup"), [(1, 0.0), (1, 0.9), (2, 0.5), (7, 0.0), (50, 0.99)])
def test_learning_rate_is_positive_and_never_above_its_peak(num_steps: int, warmup: float) -> None:
    rates = [learning_rate_at(step, 2e-3, num_steps, warmup) for step in range(num_steps)]
    assert all(0 < rate <= 2e-3 for rate in rates)
