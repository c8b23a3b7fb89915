"""What the report says of teachers and of tasks that have to get on with each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raydistill.config.distill import DistillConfig
from raydistill.fusion.fuser import ensemble, without_labels
from raydistill.fusion.standing import Standing
from raydistill.tasks import Task


def fusion_report(
    distill: DistillConfig,
    task: Task,
    labels: NDArray[Any],
    teacher_logits: Mapping[str, NDArray[np.float16]],
    standings: Sequence[Standing],
    trusted: Sequence[Mapping[str, Sequence[float]]],
) -> dict[str, Any]:
    """What each strategy's ensemble is worth on the test rows, and who was trusted on what.

    Args:
        trusted: of each student's training, by teacher: its mean weight on rows of each class, nan where there was no
            row.
    """
    by_strategy = {
        strategy: task.metric(ensemble(distill, task.name, standings, teacher_logits, strategy), labels)
        for strategy in without_labels(standings[0].kind)
    }
    trust = {}
    for teacher in teacher_logits if trusted else ():
        mean = np.mean([each[teacher] for each in trusted], axis=0)
        trust[teacher] = [None if np.isnan(value) else float(value) for value in mean]
    return {"strategy": distill.fusion_of(task.name), "by_strategy": by_strategy, "trust": trust}


def balancing_report(distill: DistillConfig, balance: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The mean of each figure that was measured of the tasks' gradients.

    Args:
        balance: the distilled students' measurements: `step`, and by kind the figures by task or by pair of tasks.
    """
    report: dict[str, Any] = {"method": distill.balancing, "measured": len(balance)}
    kinds = [kind for kind in (balance[0] if balance else ()) if kind != "step"]
    for kind in kinds:
        report[kind] = {name: sum(each[kind][name] for each in balance) / len(balance) for name in balance[0][kind]}
    return report
