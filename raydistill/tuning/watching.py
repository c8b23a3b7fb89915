"""What the user sees while trials run: a line when one ends, and live ones in between."""

from __future__ import annotations

from typing import Any

from ray.tune import Callback

from raydistill.commands.progress import Progress
from raydistill.tuning.search import STEP
from raydistill.tuning.study import SweepStudy


class Watch(Callback):
    """Ray Tune's events, told.

    Args:
        num_steps: of a trial at its full length.
    """

    def __init__(self, study: SweepStudy, progress: Progress, num_steps: int) -> None:
        self._study, self._progress, self._num_steps = study, progress, num_steps
        self._metric = next(iter(study.space.objective))

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Ray Tune writes its callbacks down, and never reads these again

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any) -> None:
        """A validation."""
        self._progress(
            f"trial {trial.config['number']}: step {int(result[STEP])}/{self._num_steps}, "
            f"{self._metric} {result[self._metric]:.4g}"
        )

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """Its end, early or not."""
        result = trial.last_result or {}
        if self._metric not in result:
            self._tell(trial, "ended without a result")
            return
        early = f", stopped at step {int(result[STEP])}" if result[STEP] < self._num_steps else ""
        self._tell(trial, f"{self._metric} {result[self._metric]:.4g}{early}")

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """Its end, with an error."""
        self._tell(trial, "failed")

    def _tell(self, trial: Any, what: str) -> None:
        named = ((path.rpartition(".")[2], each) for path, each in trial.config["values"].items())
        values = ", ".join(
            f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in named
        )
        best = self._study.best
        leader = f"; best so far {best[0].values[0]:.4g} (trial {best[0].number})" if best else ""
        self._progress.say(f"trial {trial.config['number']}: {what} ({values}){leader}")
