"""Ray Tune asks, Optuna's study answers: which trial comes next, and what became of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from optuna.trial import Trial
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from raydistill.errors import ConfigError, RaydistillError
from raydistill.tuning.checking import MEASURES, OF_A_TASK
from raydistill.tuning.study import SweepStudy
from raydistill.tuning.trial import Measures

STEP = "step"
MOST_FAILURES = 10  # in a row, of a function that defines the space


class StudySearch(OptunaSearch):
    """`OptunaSearch` on a study that is there already and that outlives Ray Tune's own record.

    It differs in what it tells the study: a trial that the scheduler stopped early is told as such, with what it had
    reached at which step, never as a result beside those of full length; a failed one with its reason.

    Args:
        study: begun.
        num_steps: of a trial at its full length.
        num_trials: to be ended in all, earlier ones included.
        ends_at: of a steady clock: no trial begins later.
        reason: why a trial with these values failed, as far as it could say.
    """

    def __init__(
        self,
        study: SweepStudy,
        num_steps: int,
        num_trials: int,
        ends_at: float,
        reason: Callable[[dict[str, Any]], str],
    ) -> None:
        objective = study.space.objective
        names, goals = list(objective), [str(goal) for goal in objective.values()]
        super().__init__(
            space=lambda trial: None,
            metric=names[0] if len(names) == 1 else names,
            mode=goals[0] if len(goals) == 1 else goals,
            sampler=study.study.sampler,
            study_name=study.study.study_name,
            storage=study.storage,
        )
        self._sweep, self._num_steps, self._reason = study, num_steps, reason
        self._left, self._ends_at = study.left_of(num_trials), ends_at
        self._asked: dict[str, tuple[Trial, dict[str, Any]]] = {}

    def suggest(self, trial_id: str) -> Any:
        """The next trial's number and values."""
        for failures in range(MOST_FAILURES):
            if self._left <= 0 or time.monotonic() >= self._ends_at:
                break
            self._left -= 1
            try:
                trial, values = self._sweep.ask()
            except ConfigError:
                if failures == MOST_FAILURES - 1:
                    raise
                continue
            self._asked[trial_id] = trial, values
            return {"number": trial.number, "values": values}
        return Searcher.FINISHED

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """A validation."""
        objective = self._sweep.space.objective
        if len(objective) == 1 and trial_id in self._asked:
            self._asked[trial_id][0].report(result[next(iter(objective))], int(result[STEP]))

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Its end, whichever."""
        if trial_id not in self._asked:
            return
        trial, values = self._asked.pop(trial_id)
        if error or not result or STEP not in result:
            self._sweep.tell_failure(trial, self._reason(values))
            return
        measures: Measures = {name: float(value) for name, value in result.items() if _is_measure(name, value)}
        self._sweep.tell(trial, measures, whole=measures[STEP] >= self._num_steps)

    def __getstate__(self) -> dict[str, Any]:
        return {}  # see `save`

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study is saved already."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, either."""
        raise RaydistillError("a sweep goes on from its study, not from Ray Tune's record")


def _is_measure(name: str, value: Any) -> bool:
    """Ray Tune adds figures of its own."""
    ours = (*MEASURES, STEP, "best_step", "teacher_samples", "training_s", "overhead_s")
    return isinstance(value, int | float) and (name in ours or name.startswith(OF_A_TASK))
