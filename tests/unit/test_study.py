"""The study: what is suggested, what counts as best, and what is left after a kill."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from optuna.trial import TrialState
from ray.tune.search import Searcher

from raydistill.config.loader import load_config
from raydistill.errors import ConfigError
from raydistill.tuning.checking import base_config, check_space
from raydistill.tuning.search import StudySearch
from raydistill.tuning.space import Space, load_space
from raydistill.tuning.study import REASON, SweepStudy

T, W = "distill.temperature", "distill.hard_weight"


def space_of(**changes: Any) -> Space:
    space = load_space({"name": "x", "config": "demo", "space": {T: {"float": [1, 4]}}, **changes})
    return check_space(space, base_config(space))


def begun(path: Path, space: Space) -> SweepStudy:
    study = SweepStudy(path / "study.log", space)
    study.begin(load_config(space.config))
    return study


def measures(**values: float) -> dict[str, float]:
    return {"retention": 0.5, "parameters": 1_000.0, "step": 100.0, **values}


def test_the_defaults_come_first_then_the_points_of_the_space(tmp_path: Path) -> None:
    default = load_config("demo").distill.temperature
    study = begun(tmp_path, space_of(search={"initial_points": [{T: 3.5}]}))
    assert [study.ask()[1] for _ in range(2)] == [{T: default}, {T: 3.5}]


def test_what_the_config_leaves_out_has_a_default_too(tmp_path: Path) -> None:
    config = load_config("demo")
    paths = {"distill.task_weights.*": {"float": [0.5, 2]}, "distill.task_temperatures.*": {"float": [0.5, 8]}}
    values = begun(tmp_path, space_of(space=paths)).ask()[1]
    assert {values[f"distill.task_weights.{task}"] for task in config.tasks} == {1.0}
    assert {values[f"distill.task_temperatures.{task}"] for task in config.tasks} == {config.distill.temperature}


def test_a_default_outside_the_space_is_not_tried(tmp_path: Path) -> None:
    study = begun(tmp_path, space_of(space={T: {"float": [3, 4]}}))
    assert 3 <= study.ask()[1][T] <= 4


def test_a_path_whose_condition_is_not_met_is_not_set(tmp_path: Path) -> None:
    sizes = {"choice": ["tiny", "small"]}
    space = space_of(
        space={"student.size": sizes, "student.depth": {"int": [1, 3], "when": {"student.size": ["small"]}}},
        constants={W: 0.25}, search={"sampler": "random"},
    )  # fmt: skip
    study = begun(tmp_path, space)
    asked = [study.ask()[1] for _ in range(12)]
    assert {values["student.size"] for values in asked} == {"tiny", "small"}
    assert all(("student.depth" in values) == (values["student.size"] == "small") for values in asked)
    assert all(values[W] == 0.25 for values in asked)


def test_choices_may_be_lists_and_mappings(tmp_path: Path) -> None:
    choices = [{"clothes": 1.0}, {"clothes": 2.0}]
    study = begun(tmp_path, space_of(space={"distill.task_weights": {"choice": choices}}))
    assert study.ask()[1]["distill.task_weights"] in choices


def test_a_grid_tries_everything_once(tmp_path: Path) -> None:
    grid = {T: {"float": [1, 2], "step": 0.5}, W: {"choice": [0.0, 0.5]}}
    study = begun(tmp_path, space_of(space=grid, search={"sampler": "grid", "num_trials": 6}))
    seen = set()
    for _ in range(6):
        trial, values = study.ask()
        study.tell(trial, measures(), whole=True)
        seen.add((values[T], values[W]))
    assert seen == {(t, w) for t in (1.0, 1.5, 2.0) for w in (0.0, 0.5)}


def test_the_best_is_whole_and_within_the_constraints(tmp_path: Path) -> None:
    study = begun(tmp_path, space_of(constraints={"parameters": {"at_most": 1_000}}))
    for retention, parameters, whole in ((0.7, 900, True), (0.9, 2_000, True), (0.99, 900, False), (0.8, 1_000, True)):
        study.tell(study.ask()[0], measures(retention=retention, parameters=parameters), whole)
    assert [trial.number for trial in study.best] == [3]
    assert [trial.state for trial in study.ended] == [
        TrialState.COMPLETE, TrialState.COMPLETE, TrialState.PRUNED, TrialState.COMPLETE,
    ]  # fmt: skip


def test_of_several_objectives_the_best_are_those_that_none_beats(tmp_path: Path) -> None:
    study = begun(tmp_path, space_of(objective={"retention": "max", "parameters": "min"}))
    for retention, parameters in ((0.7, 900), (0.9, 2_000), (0.6, 950), (0.9, 1_500)):
        study.tell(study.ask()[0], measures(retention=retention, parameters=parameters), whole=True)
    assert [trial.number for trial in study.best] == [0, 3]


def test_after_a_kill_what_was_under_way_is_tried_again_and_the_rest_is_kept(tmp_path: Path) -> None:
    space = space_of()
    study = begun(tmp_path, space)
    study.tell(study.ask()[0], measures(retention=0.7), whole=True)
    _, under_way = study.ask()
    study.tell_failure(study.ask()[0], "out of memory")
    again = begun(tmp_path, space)
    assert [trial.number for trial in again.ended] == [0, 2]
    assert again.ended[1].user_attrs[REASON] == "out of memory"
    assert again.best[0].values == [0.7]
    assert again.ask()[1] == under_way


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_sampler_that_goes_on_does_not_repeat_itself(tmp_path: Path, sampler: str) -> None:
    space = space_of(search={"sampler": sampler, "num_trials": 30})
    seen = set()
    for _ in range(3):
        study = begun(tmp_path, space)
        for _ in range(4):
            trial, values = study.ask()
            study.tell(trial, measures(retention=1 / values[T]), whole=True)
            seen.add(values[T])
    assert len(seen) == 12


def test_nsga2_takes_several_objectives(tmp_path: Path) -> None:
    study = begun(tmp_path, space_of(objective={"retention": "max", "parameters": "min"}, search={"sampler": "nsga2"}))
    for _ in range(6):
        trial, values = study.ask()
        study.tell(trial, measures(retention=values[T]), whole=True)
    assert study.best


def test_the_same_seed_suggests_the_same(tmp_path: Path) -> None:
    drawn = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        study = begun(tmp_path / name, space_of(search={"seed": 7}))
        drawn.append([study.ask()[1][T] for _ in range(4)])
    assert drawn[0] == drawn[1]


def searching(study: SweepStudy, num_trials: int, ends_at: float) -> StudySearch:
    return StudySearch(study, 100, num_trials, ends_at, lambda values: "no reason")


def test_no_trial_begins_after_the_time_is_over_or_beyond_the_number(tmp_path: Path) -> None:
    study = begun(tmp_path, space_of())
    assert searching(study, 3, time.monotonic() - 1).suggest("late") == Searcher.FINISHED
    search = searching(study, 1, time.monotonic() + 60)
    assert search.suggest("first")["number"] == 0
    assert search.suggest("second") == Searcher.FINISHED


def test_a_trial_that_was_stopped_is_told_as_such_with_its_step(tmp_path: Path) -> None:
    study = begun(tmp_path, space_of())
    search = searching(study, 9, float("inf"))
    for trial_id, steps in {"whole": 100, "stopped": 40}.items():
        search.suggest(trial_id)
        for step in (40, 100)[: 1 + (steps == 100)]:
            search.on_trial_result(trial_id, measures(step=float(step), retention=step / 100))
        search.on_trial_complete(trial_id, measures(step=float(steps), retention=steps / 100))
    whole, stopped = study.ended
    assert (whole.state, whole.values, whole.intermediate_values) == (TrialState.COMPLETE, [1.0], {40: 0.4, 100: 1.0})
    assert (stopped.state, stopped.intermediate_values) == (TrialState.PRUNED, {40: 0.4})
    assert [trial.number for trial in study.best] == [whole.number]


def test_a_half_written_last_line_of_the_journal_is_cut_off(tmp_path: Path) -> None:
    study = begun(tmp_path, space_of())
    study.ask()
    journal = tmp_path / "study.log"
    whole = journal.read_bytes()
    for rest in (b'{"op_code": 8, "wor', b"\0\0\0"):
        journal.write_bytes(whole + rest)
        for _ in range(2):  # Optuna has written behind it by the second time
            assert len(SweepStudy(journal, space_of()).study.trials) == len(study.study.trials)
        assert journal.read_bytes().startswith(whole) and rest not in journal.read_bytes()


@pytest.mark.parametrize("damage", [b"garbage\n", b"null\n", b"\xff\xfe\n"])
def test_a_damaged_journal_is_told(tmp_path: Path, damage: bytes) -> None:
    journal = tmp_path / "study.log"
    begun(tmp_path, space_of())
    journal.write_bytes(damage + journal.read_bytes())
    with pytest.raises(ConfigError, match="line 1 is no record"):
        SweepStudy(journal, space_of())


def test_a_journal_of_other_objectives_or_without_its_trials_is_refused(tmp_path: Path) -> None:
    begun(tmp_path, space_of())
    with pytest.raises(ConfigError, match="other objectives"):
        SweepStudy(tmp_path / "study.log", space_of(objective={"retention": "max", "parameters": "min"}))
    (tmp_path / "study.log").unlink()
    (tmp_path / "trials" / "one").mkdir(parents=True)
    with pytest.raises(ConfigError, match="knows no trial"):
        SweepStudy(tmp_path / "study.log", space_of())


def test_a_function_that_fails_once_costs_one_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = iter(range(100))

    def search(trial: Any) -> dict[str, Any]:
        if next(calls) == 9:  # the first is the ninth: the check has drawn eight
            raise RuntimeError("late")
        return {T: np.float64(2)}

    monkeypatch.setitem(sys.modules, "spaces", SimpleNamespace(search=search))
    study = begun(tmp_path, space_of(space={}, define="spaces:search"))
    search_ = searching(study, 3, float("inf"))
    assert search_.suggest("one")["values"] == {T: 2.0}
    assert search_.suggest("two")["number"] == 2
    assert [trial.user_attrs[REASON] for trial in study.ended] == ["define 'spaces:search' failed: RuntimeError: late"]
    assert search_.suggest("three") == Searcher.FINISHED
