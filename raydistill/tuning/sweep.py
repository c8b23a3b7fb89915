"""`raydistill tune`: search a space, paying for the teachers once."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from raydistill.commands.cluster import cluster
from raydistill.commands.experts import experts
from raydistill.commands.known import KnownTeachers, source_plan
from raydistill.commands.labels import collect_labels
from raydistill.commands.preflight import preflight
from raydistill.commands.preparing import as_config, check_store, load_data
from raydistill.commands.progress import Progress
from raydistill.commands.run_folder import ELSEWHERE, difference, owned, write_atomically
from raydistill.commands.teach import teach_missing
from raydistill.config.loader import dump_config, load_config
from raydistill.config.models import Config
from raydistill.errors import ConfigError
from raydistill.soft_labels.source import total_cost
from raydistill.tuning.baseline import run_baselines
from raydistill.tuning.checking import base_config, candidate, check_space
from raydistill.tuning.results import SweepResult, print_results, records, write_results
from raydistill.tuning.running import how_many_trials, run_trials, set_ray_tune_up, trial_resources
from raydistill.tuning.space import Space, load_space, sweep_path
from raydistill.tuning.study import SweepStudy
from raydistill.tuning.trial import Setting

SPACE, CONFIG, STUDY, ASKED = "space.json", "config.yaml", "study.log", "asked.json"


def tune(
    space: Space | str | Path | Mapping[str, Any],
    overrides: Iterable[str] = (),
    out: str | Path | None = None,
    config: str | Path | None = None,
    num_trials: int | None = None,
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

    Raises:
        ConfigError, DataError, TeacherError, SoftLabelError: see their docstrings; each is one line.
    """
    loaded = load_space(space)
    if config is not None:
        loaded = loaded.model_copy(update={"config": str(config)})
    base = as_config(base_config(loaded, overrides))
    return _sweep(loaded, base, sweep_path(loaded, out), num_trials)


def resume_sweep(folder: str | Path, num_trials: int | None = None) -> SweepResult:
    """Go on with a sweep that was stopped, or extend a finished one.

    Args:
        folder: of the sweep.
        num_trials: in all; default: as many as it was to have.

    Raises:
        ConfigError: the folder holds no sweep.
    """
    path = Path(folder).expanduser()
    try:
        space = load_space(json.loads((path / SPACE).read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{folder} holds no sweep ({SPACE} cannot be read); name a folder that `tune` wrote"
        ) from error
    return _sweep(space, as_config(load_config(path / CONFIG)), path, num_trials)


def _sweep(space: Space, config: Config, out: Path, num_trials: int | None) -> SweepResult:
    if num_trials is not None:
        if num_trials < 1:
            raise ConfigError(f"{num_trials} trials are none; give 1 or more")
        space = space.model_copy(update={"search": space.search.model_copy(update={"num_trials": num_trials})})
    space = check_space(space, config)
    check_store(config)
    with _folder(out.expanduser().absolute(), space, config) as folder, Progress(folder / "log.txt") as progress:
        study = SweepStudy(folder / STUDY, space)
        set_ray_tune_up()
        with cluster(config), contextlib.ExitStack() as teaching:
            preflight(config)
            how_many_trials(space, config, teachers_stay=_changes_what_teachers_see(space))
            data = load_data(config, progress)
            teach_missing(config, data, progress)
            at_hand = teaching.enter_context(
                experts(config, {name: task.label_names for name, task in data.items()}, progress)
            )
            labels = collect_labels(config, data, at_hand, progress, with_train=True)
            asked = _count_asked(folder, total_cost(labels.costs.values()).samples)
            known = KnownTeachers(
                at_hand.descriptions, labels.ensemble_accuracy(data), at_hand.ways, at_hand.why_one_way
            )
            asked_again = bool(source_plan(config, data, known).checked(progress.event).ways)
            if not asked_again:
                known = replace(known, ways={})
            stay = asked_again or _changes_what_teachers_see(space)
            if not stay:
                teaching.close()  # they have said all: their cores are the trials' now
            concurrent = how_many_trials(space, config, teachers_stay=stay)
            setting = Setting(config, known, folder, max(1, int(trial_resources(config).get("CPU", 1))))
            study.begin(config)
            progress.say(f"sweep: {space.search.num_trials} trials, {len(study.ended)} ended, {concurrent} at a time")
            run_trials(setting, study, space.search.num_trials, concurrent, progress)
            found = [candidate(config, trial.values) for trial in records(study, config, {}) if trial.measures]
            baselines = run_baselines(setting, found, progress) if found else {}
        trials = records(study, config, baselines)
        samples = asked + sum(int(trial.measures.get("teacher_samples", 0)) for trial in trials)
        result = SweepResult(folder, space, trials, {"teacher_samples": samples, "wall_s": progress.elapsed_s})
        write_results(result, config)
    print_results(result)
    return result


def _count_asked(folder: Path, samples: int) -> int:
    """Rows that teachers computed before any trial, for this call and for those that it goes on from."""
    path = folder / ASKED
    before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else 0
    total: int = before + samples
    write_atomically(path, json.dumps(total))
    return total


def _changes_what_teachers_see(space: Space) -> bool:
    """Then a trial asks for itself."""
    return space.define is not None or any(
        path.startswith(("tasks.", "teachers.")) for path in (*space.space, *space.constants)
    )


@contextlib.contextmanager
def _folder(path: Path, space: Space, config: Config) -> Iterator[Path]:
    """The sweep's folder, ours for as long as the block lasts.

    Raises:
        ConfigError: it belongs to another sweep, to another process or to something else, or cannot be made.
    """
    with owned(path):
        _claim(path, space, config)
        yield path


def _claim(path: Path, space: Space, config: Config) -> None:
    ours: dict[str, Any] = space.model_dump(mode="json", by_alias=True)
    if (path / SPACE).is_file():
        old = json.loads((path / SPACE).read_text(encoding="utf-8"))
        changed = difference(_of_the_search(old), _of_the_search(ours)) or difference(
            load_config(path / CONFIG).model_dump(mode="json", exclude=ELSEWHERE),
            config.model_dump(mode="json", exclude=ELSEWHERE),
        )
        if changed:
            raise ConfigError(
                f"{path} holds a sweep of another space or config ({changed}); choose another --out, or go on with "
                f"that one: raydistill tune --resume {path}"
            )
    elif any(entry.name not in (".lock", "log.txt") for entry in path.iterdir()):
        raise ConfigError(f"{path} is not empty and holds no sweep; choose another --out")
    write_atomically(path / CONFIG, dump_config(config))
    write_atomically(path / SPACE, json.dumps(ours, indent=1))


def _of_the_search(content: dict[str, Any]) -> dict[str, Any]:
    """All but how long and how wide: a sweep may be extended."""
    free = {"num_trials", "time_budget_s", "max_concurrent_trials"}
    return {**content, "search": {key: value for key, value in content["search"].items() if key not in free}}
