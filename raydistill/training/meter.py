"""Time, rates and what the teachers cost, while a student trains."""

from __future__ import annotations

import time
from pathlib import Path

import torch

from raydistill.soft_labels.source import SoftTargetSource, TeacherCost, add_costs, total_cost
from raydistill.training.checkpoint import TrainingState
from raydistill.training.costs import costs_so_far, to_state


class Meter:
    """Counts since this process took over, added to what earlier ones left in the state.

    Args:
        state: of the training; its totals are brought up to date by `settle`.
        source: whose teachers are counted; None for a student alone.
        folder: of the training.
    """

    def __init__(self, state: TrainingState, source: SoftTargetSource | None, folder: Path) -> None:
        self.source = source
        self.began = time.perf_counter()
        self.wall_before, self.samples_before, self.step_before = state.wall_s, state.student_samples, state.step
        self.costs_before = costs_so_far(state, folder)
        # Of the last look: rates between two looks say what is going on now.
        self._looked_at, self._seen = self.began, {} if source is None else source.cost()

    def skip(self) -> None:
        """What passed since the last look was no training."""
        self._looked_at = time.perf_counter()

    def settle(self, state: TrainingState, device: torch.device) -> None:
        """Bring the state's totals up to now. All ranks call it together: each asks for its own rows only."""
        state.wall_s = self.wall_before + time.perf_counter() - self.began
        if self.source:
            costs = over_all_ranks(self.source.cost(), device)
            state.teacher_costs = to_state(add_costs(self.costs_before, costs))

    def rates(self, state: TrainingState) -> dict[str, float]:
        """Steps and student samples a second since the start of this process; since the last look, the share of the
        time that this rank waited for each teacher, the rows that each computed in a second, and the store's share.
        """
        now = time.perf_counter()
        seconds = max(1e-9, now - self.began)
        rates = {
            "steps_per_s": (state.step - self.step_before) / seconds,
            "samples_per_s": (state.student_samples - self.samples_before) / seconds,
        }
        if self.source is None:
            return rates
        lap_s, costs = max(1e-9, now - self._looked_at), self.source.cost()
        asked = cached = 0
        for name, cost in costs.items():
            before = self._seen.get(name, TeacherCost())
            rates[f"waiting/{name}"] = min(1.0, (cost.waited_s - before.waited_s) / lap_s)
            rates[f"teacher_samples_per_s/{name}"] = (cost.samples - before.samples) / lap_s
            asked += cost.samples - before.samples
            cached += cost.samples_cached - before.samples_cached
        rates["store_share"] = cached / max(1, asked + cached)
        whole = total_cost(add_costs(self.costs_before, costs).values())
        rates["store_hits"], rates["failovers"] = max(0, whole.samples_cached), whole.failovers
        rates["from_store_only"] = float(self.source.way == "stored")
        self._looked_at, self._seen = now, costs
        return rates


def over_all_ranks(costs: dict[str, TeacherCost], device: torch.device) -> dict[str, TeacherCost]:
    """Sums over ranks, and the worst gap of any."""
    if not costs or not torch.distributed.is_initialized():
        return costs
    names = TeacherCost.names()
    table = torch.tensor(
        [[getattr(cost, name) for name in names] for cost in costs.values()], dtype=torch.float64, device=device
    )
    worst = table[:, -1].clone()
    torch.distributed.all_reduce(table)
    torch.distributed.all_reduce(worst, torch.distributed.ReduceOp.MAX)
    table[:, -1] = worst
    return {
        teacher: TeacherCost.of(dict(zip(names, row, strict=True)))
        for teacher, row in zip(costs, table.tolist(), strict=True)
    }
