"""When a pool grows and when it shrinks: students that wait are the reason, replicas that idle the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class ScalingRules:
    """Attributes:
    grow_above: share of time that a student waits, from which on another replica is wanted; it must last
        `grow_after_s`. Replicas that idle are no reason to wait: at least `grow_busy` of their time is computing.
    shrink_below: share under which one is too many, if the others could carry its load with
        `shrink_busy` of their time; it must last `shrink_after_s`.
    """

    grow_above: float = 0.2
    grow_after_s: float = 3.0
    grow_busy: float = 0.5
    shrink_below: float = 0.05
    shrink_after_s: float = 20.0
    shrink_busy: float = 0.7


class Scaler:
    """Remembers since when there is a reason."""

    def __init__(self, rules: ScalingRules | None = None) -> None:
        self._rules = rules or ScalingRules()
        self._waits_since: float | None = None
        self._idles_since: float | None = None

    def decide(self, now: float, serving: int, least: int, most: int, waiting: float, busy: float) -> Literal[-1, 0, 1]:
        """One more, one fewer, or as it is.

        Args:
            serving: replicas.
            least, most: between which they may number.
            waiting: share of the time that the worst off student stands still.
            busy: share of the time that a replica computes, on average.
        """
        rules = self._rules
        wants_more = waiting >= rules.grow_above and busy >= rules.grow_busy and serving < most
        others_carry = serving > 1 and busy * serving / (serving - 1) <= rules.shrink_busy
        wants_fewer = waiting <= rules.shrink_below and others_carry and serving > least
        self._waits_since = (self._waits_since if self._waits_since is not None else now) if wants_more else None
        self._idles_since = (self._idles_since if self._idles_since is not None else now) if wants_fewer else None
        if self._waits_since is not None and now - self._waits_since >= rules.grow_after_s:
            self.rest()
            return 1
        if self._idles_since is not None and now - self._idles_since >= rules.shrink_after_s:
            self.rest()
            return -1
        return 0

    def rest(self) -> None:
        """Begin to watch anew, after a change."""
        self._waits_since = self._idles_since = None
