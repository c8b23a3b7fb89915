"""How long students stand still, and how long an answer usually takes."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

HEDGE_LEAST_S, HEDGE_TIMES, ANSWERS_TO_KNOW = 1.0, 5.0, 3
SMOOTHING = 0.2


class StandStill:
    """Adds up the time in which a student waits. Several threads may wait at once: each counts."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since: dict[object, float] = {}
        self._counted_s = 0.0
        self._told = time.monotonic()

    @contextlib.contextmanager
    def standing(self) -> Iterator[float]:
        """For as long as a student waits; gives when it began."""
        began, key = time.monotonic(), object()
        with self._lock:
            self._since[key] = began
        try:
            yield began
        finally:
            with self._lock:
                self._counted_s += time.monotonic() - self._since.pop(key)

    def tell(self) -> tuple[float, float]:
        """Seconds waited since it was last asked, and their share of that time, 0…1."""
        with self._lock:
            now = time.monotonic()
            waited_s = self._counted_s + sum(now - since for since in self._since.values())
            share = min(1.0, waited_s / max(1e-6, now - self._told))
            self._counted_s, self._told = 0.0, now
            self._since = dict.fromkeys(self._since, now)
            return waited_s, share


class UsualAnswer:
    """Learns what a replica usually takes for a request, and with it when one is slow.

    Args:
        fixed_s: the config's word, which then counts instead.
    """

    def __init__(self, fixed_s: float | None) -> None:
        self._fixed_s = fixed_s
        self._usual_s, self._answers = 0.0, 0

    def learn(self, busy_s: float, waited_s: float) -> None:
        """One answer.

        Args:
            busy_s: that the replica computed.
            waited_s: from when the replica could begin with it to its arrival, where that was seen, else 0.
        """
        took_s = max(busy_s, waited_s)
        self._answers += 1
        self._usual_s = took_s if self._answers == 1 else self._usual_s + SMOOTHING * (took_s - self._usual_s)

    @property
    def hedge_s(self) -> float | None:
        """After this long without a sign of progress a second replica is asked; None: not known yet."""
        if self._fixed_s is not None:
            return self._fixed_s
        return max(HEDGE_LEAST_S, HEDGE_TIMES * self._usual_s) if self._answers >= ANSWERS_TO_KNOW else None
