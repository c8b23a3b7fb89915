"""How long a call takes, once it is warm."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any


def median_ms(call: Callable[[], Any], budget_s: float = 0.5, most: int = 30) -> float:
    """The median duration of a call in milliseconds, after two calls to warm up.

    Args:
        call: returns only when its work is done (a result on the host, not a queued kernel).
        budget_s: stop after this long; at least three calls are timed.
        most: calls timed at most.
    """
    for _ in range(2):
        call()
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < most and (len(times) < 3 or time.perf_counter() - began < budget_s):
        start = time.perf_counter()
        call()
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)
