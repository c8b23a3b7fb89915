"""`raydistill label`: write every teacher's soft labels ahead of time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from raydistill.commands.cluster import cluster, needs_ray, preflight
from raydistill.commands.experts import experts
from raydistill.commands.labels import Labels, collect_labels
from raydistill.commands.preparing import as_config, load_data
from raydistill.commands.progress import Progress
from raydistill.commands.run_folder import run_path
from raydistill.commands.teach import teach_missing
from raydistill.config.loader import check_complete
from raydistill.config.models import Config


def label(
    config: Config | str | Path | Mapping[str, Any], overrides: Iterable[str] = (), out: str | Path | None = None
) -> Labels:
    """Ask every teacher about every view that a distilled student will see, and keep the answers in the cache.

    Args as in `teach`. Teachers that are not there yet are trained first.
    """
    config = as_config(config, overrides)
    check_complete(config)
    ray = cluster(config) if needs_ray(config) else contextlib.nullcontext()
    with Progress(run_path(config, out).expanduser().absolute() / "log.txt") as progress, ray:
        if needs_ray(config):
            preflight(config, training=False)
        data = load_data(config, progress)
        teach_missing(config, data, progress)
        label_names = {name: task.label_names for name, task in data.items()}
        with experts(config, label_names, progress) as at_hand:
            labels = collect_labels(config, data, at_hand, progress, with_train=True)
        cost = labels.cost
        progress.say(
            f"soft labels: {cost.samples:,} computed in {cost.busy_s:.0f} s of teacher time, "
            f"{cost.samples_cached:,} were there"
        )
    return labels
