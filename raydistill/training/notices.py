"""When to ask whether a node is about to go, and to write a checkpoint for it: at steps that all ranks agree on."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

LEAVING = "a node is about to go"  # begins the line that tells of it
EVERY_S = 5.0  # between two looks: as often as Ray Train looks itself
MOST_STEPS = 20  # between two looks, since the next steps may be slower than the last
WRITING_S = 10.0  # that a checkpoint may take


@dataclass(frozen=True)
class Notice:
    """That nodes with workers of this training are about to go.

    Attributes:
        nodes: their ids.
        deadline_s: when the first of them goes, in seconds since the epoch; None: nobody says.
    """

    nodes: tuple[str, ...]
    deadline_s: float | None


class Notices:
    """Looks for notices every few seconds, whatever a step takes.

    Args:
        hear: the notice that stands; all ranks ask together and hear the same. None: nobody gives any, and nothing is
            asked or waited for.
        device: that the student trains on, and that ranks exchange numbers through.
        step: that the training is at.
        now: seconds since the epoch.
    """

    def __init__(
        self,
        hear: Callable[[], Notice | None] | None,
        device: torch.device,
        step: int,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._hear, self._device, self._now = hear, device, now
        self._known: tuple[str, ...] = ()
        self._kept: float | None = None  # the deadline that the last checkpoint was written for
        self._looked_at, self._looked_in, self._next = now(), step, step + 1

    def look(self, step: int) -> bool:
        """Whether to write a checkpoint now: a node more is about to go, or the last chance before one goes.

        All ranks call it after every step.
        """
        if self._hear is None or step < self._next:
            return False
        notice = self._hear()
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)  # the host runs ahead of it
        at = self._now()
        step_s = max(1e-9, at - self._looked_at) / (step - self._looked_in)
        ahead = max(1, min(MOST_STEPS, int(EVERY_S / step_s)))
        ahead, due = of_rank_0([ahead, int(self._is_due(notice, at, step_s))], self._device)
        self._looked_at, self._looked_in, self._next = at, step, step + ahead
        return bool(due)

    def _is_due(self, notice: Notice | None, at: float, step_s: float) -> bool:
        """By this rank's clock."""
        if notice is None:
            return False
        is_new, self._known = notice.nodes != self._known, notice.nodes
        deadline = notice.deadline_s
        is_last = deadline is not None and deadline - at < WRITING_S + max(EVERY_S, step_s)
        first_time = deadline != self._kept
        if is_last:
            self._kept = deadline
        return is_new or (is_last and first_time)


def of_rank_0(numbers: list[int], device: torch.device) -> list[int]:
    """Ranks measure different times."""
    if not torch.distributed.is_initialized():
        return numbers
    told = torch.tensor(numbers, device=device)
    torch.distributed.broadcast(told, 0)
    return [int(number) for number in told.tolist()]
