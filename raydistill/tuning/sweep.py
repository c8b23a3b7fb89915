"""`raydistill tune`: search a space, paying for the teachers once."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from raydistill.commands.cluster import cluster
from raydistill.commands.experts import experts
from raydistill.commands.known import known_teachers, source_plan
from raydistill.commands.labels import collect_labels
from raydistill.commands.ledger import Ledger
from raydistill.commands.preflight import preflight, unused_gpus
from raydistill.commands.preparing import as_config, check_store, load_data, with_scales
from raydistill.commands.progress import Progress
from raydistill.commands.students import check_student
from raydistill.commands.teach import teach_missing
from raydistill.config.models import Config
from raydistill.errors import ConfigError
from raydistill.tuning.asked import ASKED, teacher_samples
from raydistill.tuning.baseline import run_baselines
from raydistill.tuning.capacity import how_many_trials, of_trial
from raydistill.tuning.checking import base_config, candidate, check_space
from raydistill.tuning.comparing import Comparison, compare
from raydistill.tuning.records import SweepResult, records
from raydistill.tuning.results import best_config, print_results, write_results
from raydistill.tuning.running import run_trials, set_ray_tune_up
from raydistill.tuning.space import Space, load_space, sweep_path
from raydistill.tuning.study import SweepStudy
from raydistill.tuning.sweep_folder import STUDY, open_sweep, read_sweep
from raydistill.tuning.trial import Measures, Setting


def tune(
    space: Space | str | Path | Mapping[str, Any],
    overrides: Iterable[str] = (),
    out: str | Path | None = None,
    config: str | Path | None = None,
    num_trials: int | None = None,
    num_seeds: int = 0,
) -> SweepResult:
    """Search a space: temperature, task weights, student size, or whatever else its paths name.

    Teachers are trained and asked once, for all trials. Each trial trains one student and is judged on the validation
    split; the same students are trained alone, too. A sweep that was stopped goes on where it stood; one that is called
    with more trials is extended.

    Args:
        space: a YAML file, the name of one in search_spaces/, or the content.
        overrides: `key=value` words for the config that is searched around.
        out: the sweep's folder; default runs/tune-NAME.
        config: searched around, instead of the space's own.
        num_trials: in all, instead of the space's own.
        num_seeds: afterwards, train the best setting, the default one and the student alone with so many new seeds
            each, and compare them on the test split.

    Raises:
        ConfigError, DataError, TeacherError, SoftLabelError: see their docstrings; each is one line.
    """
    loaded = load_space(space)
    if config is not None:
        loaded = loaded.model_copy(update={"config": str(config)})
    base = as_config(base_config(loaded, overrides))
    return _sweep(loaded, base, sweep_path(loaded, out), num_trials, num_seeds)


def resume_sweep(folder: str | Path, num_trials: int | None = None, num_seeds: int = 0) -> SweepResult:
    """Go on with a sweep that was stopped, or extend a finished one.

    Args:
        folder: of the sweep.
        num_trials: in all; default: as many as it was to have.
        num_seeds: see `tune`.

    Raises:
        ConfigError: the folder holds no sweep.
    """
    space, config, path = read_sweep(folder)
    return _sweep(space, as_config(config), path, num_trials, num_seeds)


def _sweep(space: Space, config: Config, out: Path, num_trials: int | None, num_seeds: int) -> SweepResult:
    if num_trials is not None:
        if num_trials < 1:
            raise ConfigError(f"{num_trials} trials are none; give 1 or more")
        space = space.model_copy(update={"search": space.search.model_copy(update={"num_trials": num_trials})})
    space = check_space(space, config)
    check_store(config)
    with (
        open_sweep(out.absolute(), space, config) as folder,
        Progress(folder / "log.txt") as progress,
    ):
        study = SweepStudy(folder / STUDY, space)
        seconds: dict[str, float] = {}
        baselines = _search(study, config, folder, progress, seconds)
        trials = records(study, config, baselines)

        def result(comparison: Comparison | None = None) -> SweepResult:
            cost = {"teacher_samples": teacher_samples(folder), **seconds, "wall_s": progress.elapsed_s}
            return SweepResult(folder, space, trials, cost, comparison)

        found = result()
        write_results(found, config, study.study)  # before the seeds, which take long
        best = best_config(found, config)
        if num_seeds and best is None:
            progress.say("no trial is the best, so there is nothing to compare with new seeds")
        elif num_seeds and best is not None:
            found = result(compare(config, best, folder, num_seeds, progress))
            write_results(found, config, study.study)
    print_results(found)
    return found


def _search(
    study: SweepStudy, config: Config, folder: Path, progress: Progress, seconds: dict[str, float]
) -> dict[str, Measures]:
    """Run all trials that are left, and the students alone; measures of those by `baseline_key`.

    Args:
        seconds: is told how long labelling, the trials and the students alone took.
    """
    space = study.space
    set_ray_tune_up()
    with cluster(config), contextlib.ExitStack() as teaching:
        preflight(config)
        how_many_trials(space, config, teachers_stay=_changes_what_teachers_see(space))
        data = load_data(config, progress)
        check_student(config, data)
        teach_missing(config, data, progress)
        label_names = {name: task.label_names for name, task in data.items()}
        ahead, seen = config.store.fill or config.distill.soft_labels == "stored", with_scales(config, data)
        with _timed(seconds, "labelling_s"):
            at_hand = teaching.enter_context(experts(seen, label_names, progress, students_elsewhere=True))
            labels = collect_labels(config, data, at_hand, progress, Ledger(folder / ASKED), with_train=ahead)
        known = known_teachers(config, at_hand, labels, data)
        asked_again = bool(source_plan(config, data, known).checked(progress.event).ways)
        if not asked_again:
            known = replace(known, ways={})
        stay = asked_again or _changes_what_teachers_see(space)
        if not stay:
            teaching.close()  # they have said all: their cores are the trials' now
        concurrent = how_many_trials(space, config, teachers_stay=stay)
        prepared = {name: task.prepared for name, task in data.items()}
        setting = Setting(config, known, folder, max(1, int(of_trial(config).num_cpus)), prepared)
        study.begin(config)
        if spare := unused_gpus(config, "trials"):
            progress.say(spare)
        progress.say(f"sweep: {len(study.ended)} of {space.search.num_trials} trials ended, {concurrent} at a time")
        with _timed(seconds, "trials_s"):
            run_trials(setting, study, space.search.num_trials, concurrent, progress)
        measured = [candidate(config, trial.values) for trial in records(study) if trial.measures]
        with _timed(seconds, "baseline_s"):
            return run_baselines(setting, measured, progress) if measured else {}


@contextlib.contextmanager
def _timed(seconds: dict[str, float], what: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    seconds[what] = time.perf_counter() - began


def _changes_what_teachers_see(space: Space) -> bool:
    """Then a trial asks for itself."""
    return space.define is not None or any(
        path.startswith(("tasks.", "teachers.")) for path in (*space.space, *space.constants)
    )
