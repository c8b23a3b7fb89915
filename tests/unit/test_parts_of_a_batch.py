"""However many workers share the parts of a batch, the student is the same."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
import torch
from torch import multiprocessing
from torch.nn.parallel import DistributedDataParallel

from raydistill.commands.students import make_student
from raydistill.config.models import Config
from raydistill.data.dataset import TaskData
from raydistill.training.checkpoint import TrainingState
from raydistill.training.loop import train_student
from raydistill.training.plan import TrainingPlan

Data = dict[str, TaskData]


def _train(rank: int, num_ranks: int, plan: TrainingPlan, data: Data, folder: Path) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=num_ranks)
    try:
        train_student(plan, data, rank, num_ranks, wrap=DistributedDataParallel)
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("balancing", ["fixed", "upgrad"])
def test_one_or_two_workers_do_the_work_of_three(
    make_config: Callable[..., Config], tiny_data: Data, tmp_path: Path, balancing: str
) -> None:
    """With dropout: a part draws its own, wherever it is computed."""
    config = make_config(
        training={"num_steps": 6, "batch_size": 4, "evaluate_every": 6, "precision": "fp32", "num_workers": 3,
                  "min_workers": 1},
        student={**tiny.STUDENT, "dropout": 0.2}, distill={"balancing": balancing},
    )  # fmt: skip
    make_student(config, tiny_data, 0, tmp_path / "initial")
    states = []
    for num_ranks in (3, 2, 1):
        folder = tmp_path / str(num_ranks)
        folder.mkdir()
        plan = TrainingPlan(
            config, "alone", 0, tmp_path / "initial", folder / "arm", folder / "tb", dict.fromkeys(tiny.TASKS, 1.0),
            {}, None,
        )  # fmt: skip
        pickle.dumps(plan)
        if num_ranks == 1:
            states.append(train_student(plan, tiny_data))
        else:
            multiprocessing.spawn(_train, (num_ranks, plan, tiny_data, folder), nprocs=num_ranks)
            states.append(TrainingState(**torch.load(folder / "arm" / "latest.pt", weights_only=True)))
    for state in states[1:]:
        assert state.student_samples == states[0].student_samples == 6 * 4 * 3 * len(tiny.TASKS)
        for key, expected in states[0].model.items():
            if key.endswith("qkv.bias"):  # a key's bias cannot change attention: its gradient is rounding alone
                continue
            torch.testing.assert_close(state.model[key], expected, rtol=1e-3, atol=1e-4)


def test_more_workers_than_are_asked_for_are_refused(make_config: Callable[..., Config]) -> None:
    with pytest.raises(Exception, match="min_workers 3 is more than num_workers 2"):
        make_config(training={"num_workers": 2, "min_workers": 3})
