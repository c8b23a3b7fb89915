"""The trials as Ray Tune runs them: how many at a time, which are stopped early, and what the user sees meanwhile."""

from __future__ import annotations

import logging
import os
import shutil
import time
from pathlib import Path
from typing import Any

from raydistill.commands.preflight import asks_for
from raydistill.commands.progress import Progress
from raydistill.config.models import PlacementConfig
from raydistill.errors import RaydistillError, first_line
from raydistill.patience import Patience, free_of
from raydistill.teachers.pool.placement import asked, describe
from raydistill.tuning.capacity import of_trial
from raydistill.tuning.checking import candidate
from raydistill.tuning.search import STEP, StudySearch
from raydistill.tuning.space import Space
from raydistill.tuning.study import SweepStudy
from raydistill.tuning.trial import REASON_FILE, Measures, Setting, digest, run_arm
from raydistill.tuning.watching import Watch

GRACE = 0.2  # of a trial's steps, before a scheduler may stop it
BRACKETS = 3  # of hyperband
DIED = "its process ended: killed, or out of memory"


def set_ray_tune_up() -> None:
    """Before Ray starts: workers read it, too."""
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # Ctrl-C is the command's
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["RAY_CHDIR_TO_TRIAL_DIR"] = "0"  # paths in configs are relative to where the user is
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    for name in ("ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def trial_folder(sweep: Path, values: dict[str, Any]) -> Path:
    """Of the trial with these values: the same values are trained once."""
    return sweep / "trials" / digest(values)


def run_trials(setting: Setting, study: SweepStudy, num_trials: int, concurrent: int, progress: Progress) -> None:
    """Until as many have ended in all, or the time is over.

    Raises:
        RaydistillError: Ray Tune itself failed.
    """
    import ray.tune
    from ray.exceptions import RayError

    space, num_steps = study.space, setting.config.training.num_steps
    budget_s = space.search.time_budget_s
    search = StudySearch(
        study, num_steps, num_trials, time.monotonic() + budget_s if budget_s else float("inf"),
        lambda values: _reason(trial_folder(setting.folder, values)),
    )  # fmt: skip
    placement, workers = of_trial(setting.config), setting.config.training.num_workers
    each = f"{workers} × {describe(placement)}" if workers else describe(placement)
    patience = Patience(
        lambda: f"a trial ({each}; {free_of(asked(placement))})", progress.say, setting.config.ray.wait_s
    )
    watch = Watch(study, progress, num_steps, patience)
    tuner = ray.tune.Tuner(
        ray.tune.with_resources(
            ray.tune.with_parameters(_trial, setting=setting),
            # Where workers train, a trial's own process only waits; Ray Tune wants it to ask for something.
            {"memory": 1} if workers else _on_a_node(placement),
        ),
        tune_config=ray.tune.TuneConfig(
            search_alg=ray.tune.search.ConcurrencyLimiter(search, max_concurrent=concurrent),
            scheduler=_scheduler(space, num_steps),
            num_samples=-1,
            reuse_actors=True,
        ),
        run_config=ray.tune.RunConfig(
            name="ray_tune", storage_path=str(setting.folder), verbose=0,
            callbacks=[watch],
        ),
    )  # fmt: skip
    try:
        with watch:
            tuner.fit()
    except (ray.tune.TuneError, RayError) as error:
        raise RaydistillError(f"the sweep failed ({first_line(error)}); the same command goes on from here") from error
    finally:
        shutil.rmtree(setting.folder / "ray_tune", ignore_errors=True)


def _on_a_node(placement: PlacementConfig) -> Any:
    """The same for Ray Tune, which takes labels by placement group only."""
    from ray.tune import PlacementGroupFactory

    labels: dict[str, Any] = {"bundle_label_selector": [placement.label_selector]} if placement.label_selector else {}
    return PlacementGroupFactory([asks_for(placement)], **labels)


def _trial(call: dict[str, Any], setting: Setting) -> None:
    """What Ray Tune runs."""
    import ray.tune

    folder = trial_folder(setting.folder, call["values"])
    (folder / REASON_FILE).unlink(missing_ok=True)

    def report(measures: Measures) -> None:
        ray.tune.report(measures)

    try:
        run_arm(setting, candidate(setting.config, call["values"]), "distilled", folder, report)
    except Exception as error:
        folder.mkdir(parents=True, exist_ok=True)
        line = str(error) if isinstance(error, RaydistillError) else first_line(error)
        (folder / REASON_FILE).write_text(line, encoding="utf-8")
        raise


def _reason(folder: Path) -> str:
    try:
        return (folder / REASON_FILE).read_text(encoding="utf-8")
    except OSError:
        return DIED


def _scheduler(space: Space, num_steps: int) -> Any:
    """None, or what stops a trial that falls behind at the same step."""
    from ray.tune.schedulers import AsyncHyperBandScheduler, MedianStoppingRule

    kind, grace = space.search.scheduler, max(1, int(num_steps * GRACE))
    if kind == "none":
        return None
    ((metric, mode), *_) = space.objective.items()
    common: dict[str, Any] = {"time_attr": STEP, "metric": metric, "mode": mode, "grace_period": grace}
    if kind == "median":
        return MedianStoppingRule(**common, min_samples_required=3)
    # The synchronous HyperBand would hold trials back until a bracket is full, and they their places: with few places
    # that never ends. Several brackets of the asynchronous one, each with another patience, are the same idea.
    brackets = BRACKETS if kind == "hyperband" else 1
    return AsyncHyperBandScheduler(**common, max_t=num_steps + 1, reduction_factor=3, brackets=brackets)
