"""What teachers computed ahead of training, counted over all the processes that a run took.

A run that is killed while it labels finds its rows in the store afterwards; that they were computed for it stays known.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from dataclasses import replace
from pathlib import Path

from raydistill.atomic import replacing
from raydistill.soft_labels.source import TeacherCost, add_costs
from raydistill.training.costs import read_costs, to_state

EVERY_S = 1.0  # between two writings


class Ledger:
    """Costs by teacher.

    Args:
        path: of the file that keeps them, made with the first one; None: for this process only.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._before = read_costs(path) if path else {}
        self._jobs: dict[tuple[str, str], TeacherCost] = {}
        self._lock, self._written = threading.Lock(), 0.0

    def keep(self, teacher: str, job: str, cost: TeacherCost, ended: bool = False) -> None:
        """What a job of this process has cost up to now."""
        with self._lock:
            self._jobs[teacher, job] = cost
            if self._path is None or (not ended and time.monotonic() - self._written < EVERY_S):
                return
            self._written = time.monotonic()
            # Where the disk is full, the store has said so.
            with contextlib.suppress(OSError), replacing(self._path) as temporary:
                temporary.write_text(json.dumps(to_state(self._together())), encoding="utf-8")

    def costs(self) -> dict[str, TeacherCost]:
        """Of all processes, once this one has been through all the rows: what none of them computed was stored."""
        with self._lock:
            now = add_costs(*({teacher: cost} for (teacher, _), cost in self._jobs.items()))
            heard = {teacher: cost.samples + cost.samples_cached for teacher, cost in now.items()}
            return {
                teacher: replace(cost, samples_cached=max(0, heard.get(teacher, 0) - cost.samples))
                for teacher, cost in self._together().items()
            }

    def _together(self) -> dict[str, TeacherCost]:
        return add_costs(self._before, *({teacher: cost} for (teacher, _), cost in self._jobs.items()))


def samples_in(path: Path) -> int:
    """Rows computed, as a ledger's file has it."""
    return sum(cost.samples for cost in read_costs(path).values())
