"""The honest baseline of a sweep: the student alone, at equal budget, for every student that was searched."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from raydistill.commands.progress import Progress
from raydistill.config.models import Config
from raydistill.side_by_side import Job, run_side_by_side
from raydistill.teachers.pool.placement import placement_options
from raydistill.tuning.capacity import of_trial
from raydistill.tuning.trial import Measures, Setting, digest, run_arm

# What a student without teachers learns from. All else in a candidate is none of its business.
HEARD_ALONE = {"student", "training", "tasks", "seed", "cache_dir"}


def baseline_key(config: Config) -> str:
    """The same for candidates whose student alone is the same."""
    alone = config.model_dump(mode="json", include=HEARD_ALONE)
    # How tasks are balanced is no teacher's word. The weights that a method takes are left to the trials.
    return digest({**alone, "balancing": config.distill.balancing})


def run_baselines(setting: Setting, candidates: list[Config], progress: Progress) -> dict[str, Measures]:
    """Train the student alone for each of them, once for those that are alike.

    Returns:
        Measures by `baseline_key`. What an earlier call has finished is read.
    """
    by_key = {baseline_key(config): config for config in candidates}
    progress.say(f"baseline: {len(by_key)} student{'s' if len(by_key) > 1 else ''} alone, at the trials' budget")
    folders = {key: setting.folder / "baseline" / key for key in by_key}
    if setting.config.training.num_workers:
        return {key: run_arm(setting, config, "alone", folders[key], _nothing) for key, config in by_key.items()}
    options = placement_options(of_trial(setting.config))
    jobs = {key: Job(_run, (setting, config, folders[key]), options) for key, config in by_key.items()}
    numbers = {key: index for index, key in enumerate(by_key, start=1)}

    def show(key: str, measures: Measures) -> None:
        progress(
            f"baseline {numbers[key]} of {len(by_key)}: step {int(measures['step'])}, retention "
            f"{measures['retention']:.4g}"
        )

    found: dict[str, Measures] = run_side_by_side(jobs, show, progress.say, setting.config.ray.wait_s)
    return found


def _run(setting: Setting, config: Config, folder: Path, post: Callable[[Any], None]) -> Measures:
    return run_arm(setting, config, "alone", folder, post)


def _nothing(measures: Measures) -> None:
    pass
