"""What became of every trial, and of the whole sweep: plain data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from optuna.trial import TrialState

from raydistill.config.models import Config
from raydistill.tuning.baseline import baseline_key
from raydistill.tuning.checking import candidate
from raydistill.tuning.comparing import Comparison
from raydistill.tuning.space import Space
from raydistill.tuning.study import MEASURES, REASON, VALUES, SweepStudy
from raydistill.tuning.trial import Measures

STATES: dict[TrialState, Literal["whole", "stopped", "failed"]] = {
    TrialState.COMPLETE: "whole", TrialState.PRUNED: "stopped", TrialState.FAIL: "failed",
}  # fmt: skip


@dataclass(frozen=True)
class TrialRecord:
    """One trial.

    Attributes:
        state: whole; stopped early by the scheduler; or failed, with its `reason`.
        values: what it tried, by dotted path.
        measures: what came of it; empty where it failed.
        alone: measures of the same student without teachers; empty where that was not trained.
        best: it is among the best.
    """

    number: int
    state: Literal["whole", "stopped", "failed"]
    values: dict[str, Any]
    measures: Measures
    alone: Measures
    best: bool
    reason: str = ""

    @property
    def gain(self) -> float | None:
        """Retention beyond that of the student alone."""
        if not self.alone or not self.measures:
            return None
        return self.measures["retention"] - self.alone["retention"]


@dataclass(frozen=True)
class SweepResult:
    """A finished sweep.

    Attributes:
        folder: where it all lies.
        cost: teacher_samples of the whole sweep, all its calls together; of the last one labelling_s, trials_s,
            baseline_s and wall_s.
        comparison: the best setting against the defaults over several seeds, where that was asked for.
    """

    folder: Path
    space: Space
    trials: list[TrialRecord]
    cost: dict[str, float]
    comparison: Comparison | None = None

    @property
    def best(self) -> list[TrialRecord]:
        """The best trial, or the Pareto front of several objectives; empty where none was whole."""
        return [trial for trial in self.trials if trial.best]

    @property
    def winner(self) -> TrialRecord | None:
        """The best trial; of a front, the one that retains most."""
        return max(self.best, key=lambda trial: trial.measures["retention"], default=None)


def records(
    study: SweepStudy, config: Config | None = None, baselines: dict[str, Measures] | None = None
) -> list[TrialRecord]:
    """Of all trials that ended, in their order.

    Args:
        config, baselines: what they searched around, and the students alone; without, nothing is known of those.
    """
    best = {trial.number for trial in study.best}
    found = []
    for trial in study.ended:
        values, measures = trial.user_attrs.get(VALUES, {}), trial.user_attrs.get(MEASURES, {})
        alone: Measures = {}
        if measures and config and baselines:
            alone = baselines.get(baseline_key(candidate(config, values)), {})
        found.append(
            TrialRecord(
                trial.number, STATES[trial.state], values, measures, alone, trial.number in best,
                trial.user_attrs.get(REASON, ""),
            )
        )  # fmt: skip
    return found
