"""When to ask whether a node is about to go: every few seconds, at steps that all ranks agree on."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

EVERY_S = 5.0  # as often as Ray Train looks itself
MOST_STEPS = 20  # between two looks, since the next steps may be slower than the last


class Notices:
    """Asks until it has heard once.

    Args:
        leaving: whether a node is about to go; all ranks ask together and hear the same.
        device: where ranks exchange numbers.
        step: that the training is at.
        now: a clock in seconds.
    """

    def __init__(
        self, leaving: Callable[[], bool], device: torch.device, step: int, now: Callable[[], float] = time.perf_counter
    ) -> None:
        self._leaving, self._device, self._now = leaving, device, now
        self._heard, self._next = False, step + 1
        self._looked_at, self._looked_in = now(), step

    def look(self, step: int) -> bool:
        """Whether notice was given since the last look. All ranks call it after every step."""
        if self._heard or step < self._next:
            return False
        seconds = max(1e-9, self._now() - self._looked_at) / (step - self._looked_in)
        ahead = max(1, min(MOST_STEPS, int(EVERY_S / seconds)))
        self._next = step + of_rank_0(ahead, self._device)
        self._looked_at, self._looked_in = self._now(), step
        self._heard = self._leaving()
        return self._heard


def of_rank_0(number: int, device: torch.device) -> int:
    """Ranks measure different times."""
    if not torch.distributed.is_initialized():
        return number
    told = torch.tensor(number, device=device)
    torch.distributed.broadcast(told, 0)
    return int(told)
