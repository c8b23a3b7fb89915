"""What the user sees while trials run: a table that changes in a terminal, elsewhere a line when one ends."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

from ray.tune import Callback
from rich.console import Console
from rich.live import Live
from rich.table import Table

from raydistill.commands.progress import Progress
from raydistill.patience import Patience
from raydistill.tuning.leaderboard import Running, leaderboard, short, short_path
from raydistill.tuning.records import records
from raydistill.tuning.search import STEP
from raydistill.tuning.study import SweepStudy


class Watch(Callback):
    """Ray Tune's events, told. As a context manager it keeps the terminal's table up to date.

    Args:
        num_steps: of a trial at its full length.
        patience: with a cluster that has no room for any trial.
    """

    def __init__(self, study: SweepStudy, progress: Progress, num_steps: int, patience: Patience) -> None:
        self._study, self._progress, self._num_steps, self._patience = study, progress, num_steps, patience
        self._metric = next(iter(study.space.objective))
        self._running: dict[str, Running] = {}
        console = Console(stderr=True)
        self._live = Live(console=console, auto_refresh=False, transient=True) if sys.stderr.isatty() else None

    def __enter__(self) -> Watch:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Ray Tune writes its callbacks down, and never reads these again

    def table(self) -> Table:
        """As it stands."""
        return leaderboard(self._study.space, records(self._study), self._running.values(), self._num_steps)

    def on_step_begin(self, iteration: int, trials: Any, **info: Any) -> None:
        """Now and then."""
        self._patience.look(bool(self._running))

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """Its begin."""
        self._running[trial.trial_id] = Running(trial.config["number"], trial.config["values"], {})
        self._refresh()

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any) -> None:
        """A validation."""
        if trial.trial_id in self._running:
            self._running[trial.trial_id] = replace(self._running[trial.trial_id], measures=result)
        if self._live:
            self._refresh()
        else:
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
        self._running.pop(trial.trial_id, None)
        values = ", ".join(f"{short_path(path)} {short(value)}" for path, value in trial.config["values"].items())
        best = self._study.best if len(self._study.space.objective) == 1 else []
        leader = f"; best so far {best[0].values[0]:.4g} (trial {best[0].number})" if best else ""
        line = f"trial {trial.config['number']}: {what} ({values}){leader}"
        if self._live:
            self._progress.note(line)
            self._refresh()
        else:
            self._progress.say(line)

    def _refresh(self) -> None:
        if self._live:
            self._live.update(self.table(), refresh=True)
