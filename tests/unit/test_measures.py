"""Memory, time and size, as the report shows them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny

from raydistill.commands.students import make_student
from raydistill.config.models import Config
from raydistill.data.dataset import TaskData
from raydistill.evaluation.memory import PeakMemory
from raydistill.evaluation.models import student_models, teacher_models
from raydistill.timing import median_ms

HOLDING = """
import threading
import psutil
from raydistill.evaluation.memory import PeakMemory

looked = threading.Event()

class Watched(PeakMemory):
    def _now(self, process):
        found = PeakMemory._now(process)
        if self.peak_bytes:
            looked.set()
        return found

with Watched(every_s=0.01) as memory:
    before = memory.peak_bytes
    held = bytearray(b"1") * 300_000_000
    for _ in range(2):  # the first may have begun before
        looked.clear()
        assert looked.wait(60)
assert memory.peak_bytes - before > 150_000_000
del held
assert before > psutil.Process().memory_info().rss / 10
"""


def test_peak_memory_sees_what_was_held_in_between() -> None:
    """In a process of its own: what other tests started here may end meanwhile, and give back as much."""
    subprocess.run([sys.executable, "-c", HOLDING], check=True)


def test_peak_memory_of_an_instant_is_known_too() -> None:
    with PeakMemory(every_s=3600) as memory:
        pass
    assert memory.peak_bytes > 10_000_000


@pytest.mark.parametrize("most", [3, 7])
def test_a_call_is_timed_as_often_as_asked_after_two_to_warm_up(most: int) -> None:
    calls: list[None] = []
    assert median_ms(lambda: calls.append(None), budget_s=3600, most=most) >= 0
    assert len(calls) == 2 + most


def test_a_spent_budget_still_times_three_calls() -> None:
    calls: list[None] = []
    median_ms(lambda: calls.append(None), budget_s=0.0)
    assert len(calls) == 2 + 3


def test_a_student_is_described_by_its_weights_and_its_answers(
    make_config: Callable[..., Config], tiny_data: dict[str, TaskData], tmp_path: Path
) -> None:
    student = make_student(make_config(), tiny_data, 0, tmp_path / "student").eval()
    found = student_models(student, tiny_data)["student"]
    assert found["parameters"] == student.num_parameters
    file = tmp_path / "student" / "model.safetensors"
    assert found["bytes"] == pytest.approx(file.stat().st_size, rel=0.1)
    assert found["latency_ms_by_task"].keys() == tiny.TASKS.keys()
    batch_1 = [each["batch_1"] for each in found["latency_ms_by_task"].values()]
    assert found["latency_ms"] == pytest.approx(np.mean(batch_1)) and min(batch_1) > 0


def test_teachers_are_asked_for_their_latency_at_both_batch_sizes() -> None:
    described = {"bert": {"num_parameters": 10, "size_bytes": 40, "device": "cpu"}}
    found = teacher_models(described, lambda name, batch_size: {1: 8.0, 32: 2.0}[batch_size])
    expected = {"parameters": 10, "bytes": 40, "device": "cpu", "latency_ms": 8.0, "latency_ms_batch_32": 2.0}
    assert found == {"bert": expected}
