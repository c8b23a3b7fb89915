"""What each model weighs and how fast it answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from raydistill.data.batch import ViewBatch
from raydistill.data.dataset import TaskData
from raydistill.data.preparing import prepared
from raydistill.student.model import Student
from raydistill.timing import median_ms

LARGE_BATCH = 32
MOST_ROUTED = 512  # rows of a task


def teacher_models(
    descriptions: dict[str, dict[str, Any]], latency_ms: Callable[[str, int], float]
) -> dict[str, dict[str, Any]]:
    """The report's `models` entries of the teachers.

    Args:
        descriptions: by teacher: num_parameters, size_bytes, device.
        latency_ms: of a teacher at a batch size, per row.
    """
    return {
        name: {
            "parameters": each["num_parameters"],
            "bytes": each["size_bytes"],
            "device": each.get("device", ""),
            "latency_ms": latency_ms(name, 1),
            "latency_ms_batch_32": latency_ms(name, LARGE_BATCH),
        }
        for name, each in descriptions.items()
    }


def student_models(student: Student, data: dict[str, TaskData]) -> dict[str, dict[str, Any]]:
    """The report's `models` entry of the student; its latencies are means over the tasks, also given one by one."""
    by_task = {
        name: {"batch_1": student_latency_ms(student, name, task.test.views(range(1))),
               "batch_32": student_latency_ms(student, name, task.test.views(range(min(LARGE_BATCH, len(task.test)))))}
        for name, task in data.items()
    }  # fmt: skip
    return {
        "student": {
            "parameters": student.num_parameters,
            "bytes": sum(value.numel() * value.element_size() for value in student.state_dict().values()),
            "device": next(student.parameters()).device.type,
            "latency_ms": sum(each["batch_1"] for each in by_task.values()) / len(by_task),
            "latency_ms_batch_32": sum(each["batch_32"] for each in by_task.values()) / len(by_task),
            "latency_ms_by_task": by_task,
        }
    }


def expert_routing(student: Student, data: dict[str, TaskData]) -> dict[str, list[float]]:
    """By task, the share of its test tokens that went to each expert of the trunk; empty where it has none."""
    if student.shape.trunk != "experts":
        return {}

    def batches(name: str, task: TaskData) -> Iterator[dict[str, Tensor]]:
        ends = min(len(task.test), MOST_ROUTED)
        for start in range(0, ends, LARGE_BATCH):
            yield student.preparer(name)(task.test.views(range(start, min(start + LARGE_BATCH, ends))))

    return student.routing_table({name: batches(name, task) for name, task in data.items()})


@torch.inference_mode()
def student_latency_ms(student: Student, task: str, views: ViewBatch) -> float:
    """Milliseconds a row, from view to logits, when all these rows come at once."""
    device = next(student.parameters()).device
    prepare = student.preparer(task)

    def answer() -> None:
        inputs = prepared(prepare, views, device)
        student({task: inputs})[task].cpu()

    return median_ms(answer) / len(views)
