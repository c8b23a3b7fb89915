"""Where there is a GPU: the loop learns there what it learns on the processor, and goes from one to the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, get_args

import pytest
import torch

from raydistill.config.distill import BalancingName, FusionName, SoftLossName
from raydistill.data.dataset import TaskData
from raydistill.training.checkpoint import TrainingState
from raydistill.training.loop import train_student
from raydistill.training.plan import TrainingPlan

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
Plans = Callable[..., TrainingPlan]
Data = dict[str, TaskData]
GPU, CPU = torch.device("cuda"), torch.device("cpu")
TRAINING = {"num_steps": 6, "evaluate_every": 2}
STILL = {"dropout": 0.0}  # else each device draws its own


class Stop(Exception):
    """A power cut, as far as the loop can tell."""


@pytest.fixture(autouse=True)
def exact_float32() -> Iterator[None]:
    """Convolutions in TensorFloat-32, cuDNN's habit, differ from the processor's by more than rounding."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


def curve(state: TrainingState) -> list[float]:
    return [point["train_loss"] for point in state.curve]


def both(plan_of: Plans, data: Data, **settings: Any) -> tuple[list[float], list[float]]:
    """The losses on the processor and on the GPU."""
    settings = {**TRAINING, "student": STILL, **settings}
    return curve(train_student(plan_of("cpu", **settings), data, device=CPU)), curve(
        train_student(plan_of("gpu", **settings), data, device=GPU)
    )


@pytest.mark.parametrize("fusion", get_args(FusionName))
@pytest.mark.parametrize("loss", get_args(SoftLossName))
def test_losses_and_fusions_are_the_processors(plan_of: Plans, tiny_data: Data, loss: str, fusion: str) -> None:
    standardize = loss in ("kl", "dkd") and fusion != "gate"
    distill = {"loss": loss, "fusion": fusion, "standardize": standardize}
    cpu, gpu = both(plan_of, tiny_data, distill=distill, each=2)
    assert gpu == pytest.approx(cpu, rel=2e-3)


@pytest.mark.parametrize("balancing", get_args(BalancingName))
def test_balancings_are_the_processors(plan_of: Plans, tiny_data: Data, balancing: str) -> None:
    cpu, gpu = both(plan_of, tiny_data, distill={"balancing": balancing})
    # Random weights are drawn on the device.
    assert gpu == pytest.approx(cpu, rel=0.5 if balancing == "rlw" else 5e-3)


@pytest.mark.parametrize(
    "student",
    [{"trunk": "experts", "depth": 2}, {"trunk": "transformers"}, {"trunk": "reformer"}],
    ids=["experts", "transformers", "reformer"],
)
def test_trunks_learn_on_a_gpu(plan_of: Plans, tiny_data: Data, student: dict[str, Any]) -> None:
    cpu, gpu = both(plan_of, tiny_data, student={**STILL, **student})
    assert gpu == pytest.approx(cpu, rel=0.2 if student["trunk"] == "reformer" else 5e-3)  # its hashes are random


def test_bfloat16_is_near(plan_of: Plans, tiny_data: Data) -> None:
    cpu, gpu = both(plan_of, tiny_data, precision="bf16")
    exact, _ = both(lambda name, **settings: plan_of(f"exact-{name}", **settings), tiny_data)
    assert gpu == pytest.approx(exact, rel=0.03) and cpu == pytest.approx(exact, rel=0.03)


@pytest.mark.parametrize("second", [GPU, CPU], ids=["gpu", "cpu"])
def test_stopped_on_a_gpu_it_goes_on_there_or_elsewhere(plan_of: Plans, tiny_data: Data, second: torch.device) -> None:
    settings: dict[str, Any] = {"num_steps": 20, "evaluate_every": 5, "student": STILL}
    whole = train_student(plan_of("whole", **settings), tiny_data, device=GPU)
    parts = plan_of("parts", **settings)

    def cut(line: dict[str, Any]) -> None:
        if line.get("step") == 15:
            raise Stop

    with pytest.raises(Stop):
        train_student(parts, tiny_data, device=GPU, on_log=cut)
    resumed = train_student(parts, tiny_data, device=second)
    assert [point["step"] for point in resumed.curve] == [5, 10, 15, 20]
    assert curve(resumed) == pytest.approx(curve(whole), rel=1e-6 if second == GPU else 5e-3)
