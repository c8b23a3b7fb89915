"""Bringing tasks together: the gradient that a step leaves, in one process and in two."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import torch.multiprocessing as multiprocessing
from torch import Tensor, nn

from raydistill.config.distill import BalancingName, DistillConfig
from raydistill.training.balance import Balance

NAMES = ("a", "b", "c")
METHODS = get_args(BalancingName)
RANDOM = ("rlw",)


class Shared(nn.Module):
    """What `Balance` wants to know of an objective: a trunk that all tasks pass, a head for each, and a gate beside."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.tasks = dict.fromkeys(NAMES)
        self.student = nn.Module()
        self.student.trunk = nn.Sequential(nn.Linear(5, 6), nn.Tanh())
        self.student.heads = nn.ModuleDict({name: nn.Linear(6, 1) for name in NAMES})
        self.beside = nn.ModuleDict({"gate": nn.Linear(5, 1), "features_deep": nn.Linear(6, 1)})
        self.of_tasks = {"features_deep"}
        self.task_weights: dict[str, float] = {}

    def forward(self, rows: dict[str, Tensor], of: int) -> tuple[dict[str, Tensor], Tensor]:
        """Shares of mean losses over `of` rows."""
        by_task = {
            name: (scale * (self.student.heads[name](self.student.trunk(rows[name])) - 1) ** 2).sum() / of
            for name, scale in zip(NAMES, (1.0, 20.0, 0.3), strict=True)
        }
        deep = self.beside["features_deep"](self.student.trunk(rows["b"]))
        by_task["b"] = by_task["b"] + (deep**2).sum() / of
        return by_task, (self.beside["gate"](rows["a"]) ** 2).sum() / of


def some_rows() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {name: torch.randn(8, 5, generator=generator) for name in NAMES}


def cut(rows: dict[str, Tensor], start: int, end: int) -> dict[str, Tensor]:
    return {name: values[start:end] for name, values in rows.items()}


def distill_of(method: str, every: int = 1000) -> DistillConfig:
    return DistillConfig.model_validate({"balancing": method, "balancing_options": {"measure_every": every}})


def train(
    method: str, num_steps: int = 3, micro: int = 1, rank: int = 0, num_ranks: int = 1, every: int = 1000
) -> tuple[Shared, list[Any]]:
    """Plain gradient descent, so that a wrong size of the gradient shows."""
    objective, rows = Shared(), some_rows()
    balance = Balance(distill_of(method, every), objective, micro, num_ranks, seed=3)  # type: ignore[arg-type]
    optimizer = torch.optim.SGD([*objective.parameters(), *balance.parameters], lr=0.02)
    model: nn.Module = objective
    if num_ranks > 1:
        model = nn.parallel.DistributedDataParallel(objective)
    size = 8 // (micro * num_ranks)
    measured = []
    for step in range(num_steps):
        together = balance.begin(step)
        seen = []
        for index in range(micro):
            start = (index * num_ranks + rank) * size
            part = cut(rows, start, start + size)
            seen.append(part)
            synced = together and index == micro - 1
            if num_ranks > 1 and not synced:
                with model.no_sync():  # type: ignore[operator]
                    balance.backward(*model(part, 8), step)
            else:
                balance.backward(*model(part, 8), step)
        measured.append(balance.finish(step))
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            balance.learn(
                step + 1,
                lambda seen=seen: sum(torch.stack(list(objective(part, 8)[0].values())) for part in seen),  # type: ignore[misc]
            )
    return objective, measured


def assert_same(one: nn.Module, other: nn.Module, **tolerance: float) -> None:
    for (name, parameter), expected in zip(one.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(parameter, expected, msg=lambda text, name=name: f"{name}: {text}", **tolerance)


def test_fixed_is_the_plain_sum_whether_tasks_are_told_apart_or_not() -> None:
    plain, rows = Shared(), some_rows()
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.02)
    for _ in range(3):
        by_task, beside = plain(rows, 8)
        (sum(by_task.values()) + beside).backward()
        optimizer.step()
        optimizer.zero_grad()
    together, nothing = train("fixed")
    assert nothing == [None] * 3
    assert_same(together, plain)
    apart, measured = train("fixed", every=1)
    assert_same(apart, plain)
    assert all(figures["weight"] == {"a": 1.0, "b": 1.0, "c": 1.0} for figures in measured)


def test_what_is_measured_are_cosines_norms_and_shares() -> None:
    objective, rows = Shared(), some_rows()
    balance = Balance(distill_of("fixed", every=1), objective, 1, 1, seed=0)  # type: ignore[arg-type]
    balance.begin(0)
    by_task, beside = objective(rows, 8)
    balance.backward(by_task, beside, 0)
    figures = balance.finish(0)
    gradients = {}
    for name in NAMES:
        fresh = Shared()
        fresh(rows, 8)[0][name].backward()
        gradients[name] = torch.cat([p.grad.flatten() for p in fresh.student.trunk.parameters()])
    assert figures is not None and figures["cosine"].keys() == {"a~b", "a~c", "b~c"}
    for pair, value in figures["cosine"].items():
        first, second = (gradients[name] for name in pair.split("~"))
        assert value == pytest.approx(torch.cosine_similarity(first, second, dim=0).item(), abs=1e-5)
    for name in NAMES:
        assert figures["gradient_norm"][name] == pytest.approx(gradients[name].norm().item(), rel=1e-5)
        total = sum(loss.item() for loss in by_task.values())
        assert figures["loss_share"][name] == pytest.approx(by_task[name].item() / total, rel=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_lowers_the_losses(method: str) -> None:
    rows = some_rows()
    before = Shared()(rows, 8)[0]
    after = train(method, num_steps=60)[0](rows, 8)[0]
    lower = [name for name in NAMES if after[name] < before[name]]
    assert len(lower) >= 2 and sum(after.values()) < sum(before.values())


@pytest.mark.parametrize("method", METHODS)
def test_micro_batches_make_the_same_step_as_one_batch(method: str) -> None:
    assert_same(train(method, micro=4)[0], train(method)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_measuring_changes_nothing(method: str) -> None:
    assert_same(train(method, every=1)[0], train(method)[0], rtol=1e-4, atol=1e-5)


def test_figures_are_told_by_the_tasks_that_they_are_of_in_whatever_order() -> None:
    objective, rows = Shared(), some_rows()
    objective.tasks = dict.fromkeys(reversed(NAMES))  # as a saved student has them
    objective.task_weights = {"a": 3.0}
    balance = Balance(distill_of("fixed", every=1), objective, 1, 1, seed=0)  # type: ignore[arg-type]
    balance.begin(0)
    by_task, beside = objective(rows, 8)
    balance.backward(by_task, beside, 0)
    figures = balance.finish(0)
    assert figures is not None
    assert max(figures["loss_share"], key=lambda name: figures["loss_share"][name]) == "b"
    assert figures["weight"] == {"a": 3.0, "b": 1.0, "c": 1.0}


def test_gradient_methods_balance_the_trunk_alone() -> None:
    objective, rows = Shared(), some_rows()
    balance = Balance(distill_of("mgda"), objective, 1, 1, seed=0)  # type: ignore[arg-type]
    balance.begin(0)
    balance.backward(*objective(rows, 8), 0)
    balance.finish(0)
    plain = Shared()
    by_task, beside = plain(rows, 8)
    (sum(by_task.values()) + beside).backward()
    for (name, parameter), expected in zip(objective.named_parameters(), plain.parameters(), strict=True):
        same = torch.allclose(parameter.grad, expected.grad, rtol=1e-5, atol=1e-6)
        assert same == ("trunk" not in name), name


def _in_two(rank: int, folder: str, micro: int) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    try:
        for method in METHODS:
            objective, _ = train(method, micro=micro, rank=rank, num_ranks=2, every=2)
            if rank == 0:
                torch.save(objective.state_dict(), f"{folder}/{method}.pt")
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("micro", [1, 2])
def test_two_ranks_make_the_steps_of_one_with_the_same_rows(tmp_path: Path, micro: int) -> None:
    multiprocessing.spawn(_in_two, (str(tmp_path), micro), nprocs=2)
    for method in METHODS:
        alone, _ = train(method, micro=micro, every=2)
        found = Shared()
        found.load_state_dict(torch.load(tmp_path / f"{method}.pt", weights_only=True))
        for (name, parameter), expected in zip(found.named_parameters(), alone.parameters(), strict=True):
            torch.testing.assert_close(
                parameter, expected, rtol=1e-4, atol=1e-5, msg=lambda text, m=method, n=name: f"{m} {n}: {text}"
            )
