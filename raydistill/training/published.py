"""A student's figures on Ray's metrics port, beside those of teachers and pools."""

from __future__ import annotations

from functools import cache
from typing import Any

FIGURES = {
    "samples_per_s": ("raydistill_student_samples_per_second", "rows that a student learns from"),
    "store_hits": ("raydistill_store_hits", "rows that the store answered in a teacher's place, so far"),
    "store_share": ("raydistill_store_share", "share of a student's rows that the store answers, of late"),
}


def publish(line: dict[str, Any]) -> None:
    """Export what a line of metrics.jsonl says; without a running Ray there is no port, and nothing happens.

    Args:
        line: with `run`, the student's name.
    """
    import ray

    if not ray.is_initialized():
        return
    for key, (name, description) in FIGURES.items():
        if key in line:
            _gauge(name, description).set(line[key], {"student": line["run"]})


@cache
def _gauge(name: str, description: str) -> Any:
    from ray.util.metrics import Gauge

    return Gauge(name, description=description, tag_keys=("student",))
