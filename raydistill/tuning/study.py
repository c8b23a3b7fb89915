"""The study: Optuna's own record of every trial, in one file that outlives whoever writes it.

`optuna-dashboard FILE` opens it. What Ray Tune remembers of an experiment is not needed to go on.
"""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from raydistill.config.models import Config
from raydistill.errors import ConfigError, first_line
from raydistill.tuning.space import Space
from raydistill.tuning.suggesting import make_sampler, suggest

# In a trial's attributes: its values by dotted path, what was measured of it, and why it failed.
VALUES, MEASURES, REASON = "values", "measures", "reason"
INTERRUPTED = "interrupted, and tried again"
ANOTHER = "begin a new sweep with another --out"
ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


class SweepStudy:
    """A space's study.

    Args:
        path: of the journal; made where it is not there.
        space: checked.
    """

    def __init__(self, path: Path, space: Space) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.simplefilter("ignore", ExperimentalWarning)
        self.space = space
        goals = [
            StudyDirection.MAXIMIZE if goal == "max" else StudyDirection.MINIMIZE for goal in space.objective.values()
        ]
        mend_journal(path)
        try:
            self.storage = JournalStorage(JournalFileBackend(str(path)))
            self.study = optuna.create_study(
                study_name=space.name, storage=self.storage, directions=goals, load_if_exists=True
            )
        except (KeyError, TypeError, ValueError, AssertionError) as error:
            raise ConfigError(f"{path} is no study of Optuna's ({first_line(error)}); {ANOTHER}") from error
        if self.study.directions != goals:
            raise ConfigError(f"{path} is a study of other objectives; {ANOTHER}")
        if not self.study.trials and any((path.parent / "trials").glob("*")):
            raise ConfigError(f"{path} knows no trial, and {path.parent / 'trials'} holds some; {ANOTHER}")
        self.study.sampler = make_sampler(space, len(self.study.trials))

    def begin(self, config: Config) -> None:
        """Choose what comes first: the defaults and the space's own points; after a kill, what was under way then."""
        if not self.study.trials:
            first = () if self.space.search.sampler == "grid" else (default_point(self.space, config),)
            for point in (*first, *self.space.search.initial_points):
                self.study.enqueue_trial(_as_optuna_knows_it(self.space, point), skip_if_exists=True)
        for frozen in self.study.get_trials(states=(TrialState.RUNNING,)):
            trial = Trial(self.study, frozen._trial_id)
            trial.set_user_attr(REASON, INTERRUPTED)
            self.study.tell(trial, state=TrialState.FAIL)
            self.study.enqueue_trial(frozen.params)

    def ask(self) -> tuple[Trial, dict[str, Any]]:
        """The next trial and its values.

        Raises:
            ConfigError: a function that defines the space failed; the trial is told as failed.
        """
        trial = self.study.ask()
        try:
            values = suggest(self.space, trial)
        except ConfigError as error:
            self.tell_failure(trial, str(error))
            raise
        trial.set_user_attr(VALUES, values)
        return trial, values

    def tell(self, trial: Trial, measures: Mapping[str, float], whole: bool) -> None:
        """A trial's end.

        Args:
            measures: all of them, by name.
            whole: it had its full budget. Others are kept apart, so that no model mixes what cost less with them.
        """
        trial.set_user_attr(MEASURES, dict(measures))
        for name, bound in self.space.constraints.items():
            trial.set_constraint(name, bound.excess(measures[name]))
        if whole:
            self._end(trial, [measures[name] for name in self.space.objective], TrialState.COMPLETE)
        else:
            self._end(trial, None, TrialState.PRUNED)

    def tell_failure(self, trial: Trial, reason: str) -> None:
        """It has no result."""
        trial.set_user_attr(REASON, reason)
        self._end(trial, None, TrialState.FAIL)

    def _end(self, trial: Trial, values: list[float] | None, state: TrialState) -> None:
        try:
            self.study.tell(trial, values, state=state)
        except RuntimeError:
            # The grid is through, which its sampler can say to Optuna's own loop alone; the trial has been told.
            if self.space.search.sampler != "grid":
                raise

    def left_of(self, num_trials: int) -> int:
        """How many are still to come, of so many in all. A grid has no more than its points."""
        if self.space.search.sampler == "grid":
            num_trials = min(num_trials, math.prod(each.num_values or 0 for each in self.space.space.values()))
        return num_trials - len(self.ended)

    @property
    def ended(self) -> list[FrozenTrial]:
        """Trials that came to an end by themselves, in order."""
        return [trial for trial in self.study.get_trials(states=ENDED) if trial.user_attrs.get(REASON) != INTERRUPTED]

    @property
    def best(self) -> list[FrozenTrial]:
        """The best trial, or, of several objectives, all that no other beats in each; within the constraints.

        With one objective and equal values the first counts. Empty where no trial was whole and within them.
        """
        within = [
            trial
            for trial in self.ended
            if trial.state == TrialState.COMPLETE and all(over <= 0 for over in trial.constraints.values())
        ]
        signs = [1.0 if goal == "max" else -1.0 for goal in self.space.objective.values()]
        worth = {
            trial.number: [sign * value for sign, value in zip(signs, trial.values, strict=True)] for trial in within
        }
        if len(signs) == 1:
            return [max(within, key=lambda trial: worth[trial.number])] if within else []
        return [one for one in within if not any(_beats(worth[other.number], worth[one.number]) for other in within)]


def mend_journal(path: Path) -> None:
    """Cut off a last line that is not whole, as a full disk or a power cut leaves it: Optuna would write behind it.

    Raises:
        ConfigError: it cannot be read, or another line is damaged.
    """
    try:
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}); {ANOTHER}") from error
    bad = [number for number, line in enumerate(lines) if not _is_record(line)]
    if bad and bad[0] < len(lines) - 1:
        raise ConfigError(f"{path}: line {bad[0] + 1} is no record of Optuna's; restore the file, or {ANOTHER}")
    if bad:
        os.truncate(path, sum(len(line) for line in lines[:-1]))


def _is_record(line: bytes) -> bool:
    try:
        return line.endswith(b"\n") and "op_code" in dict(json.loads(line))
    except (ValueError, TypeError):
        return False


def default_point(space: Space, config: Config) -> dict[str, Any]:
    """What the config itself says of the searched paths, where that lies within the space."""
    content: dict[str, Any] = config.model_dump(mode="json")
    for section, key, implied in (
        ("distill", "task_weights", 1.0),
        ("distill", "task_temperatures", config.distill.temperature),
        ("training", "task_batch_size", config.training.batch_size),
    ):
        content[section][key] = dict.fromkeys(config.tasks, implied) | content[section][key]
    point = {}
    for path, parameter in space.space.items():
        value: Any = content
        for key in path.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        if parameter.allows(value):
            point[path] = value
    return point


def _as_optuna_knows_it(space: Space, point: Mapping[str, Any]) -> dict[str, Any]:
    return {path: space.space[path].known_as(value) for path, value in point.items()}


def _beats(one: list[float], other: list[float]) -> bool:
    return all(a >= b for a, b in zip(one, other, strict=True)) and one != other
