"""Waiting for room in a cluster: said aloud, and not for ever."""

from __future__ import annotations

import time
from collections.abc import Callable

from raydistill.errors import ConfigError

FIRST_S, EVERY_S = 25.0, 30.0  # until it is said, and said again


class Patience:
    """Ray waits silently for what it cannot place; whoever waits looks here now and then.

    Args:
        what: is waited for, and what there is.
        say: hears it after 25 s, and every 30 s from then on.
        wait_s: after so long it ends.
    """

    def __init__(
        self,
        what: Callable[[], str],
        say: Callable[[str], None],
        wait_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._what, self._say, self._wait_s, self._clock = what, say, wait_s, clock
        self._since = clock()
        self._next_s = FIRST_S

    def look(self, going_on: bool) -> None:
        """Look how it stands.

        Args:
            going_on: something has moved since the last look; then waiting begins anew.

        Raises:
            ConfigError: nothing has moved for too long; says what is waited for.
        """
        now = self._clock()
        if going_on:
            self._since, self._next_s = now, FIRST_S
            return
        waited_s = now - self._since
        if waited_s >= self._wait_s:
            raise ConfigError(
                f"no room in the cluster within {waited_s:.0f} s for {self._what()}; free some (`ray status` shows who "
                "has it), ask for less, or raise ray.wait_s"
            )
        if waited_s >= self._next_s:
            self._next_s = waited_s + EVERY_S
            # A process that Ray has found room for may also be slow to come up.
            self._say(f"waiting {waited_s:.0f} s so far for {self._what()}")


def free_of(resources: dict[str, float]) -> str:
    """Words for how much of these the connected cluster has left, such as `free: CPU 0.5 of 2`."""
    import ray

    free, there = ray.available_resources(), ray.cluster_resources()
    parts = [f"{name} {free.get(name, 0.0):g} of {there.get(name, 0.0):g}" for name in resources]
    return f"free: {', '.join(parts)}" if parts else "nothing in particular"
