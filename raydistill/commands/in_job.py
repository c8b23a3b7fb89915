"""Within a job that was submitted to a cluster: where it may write, and whose raydistill runs.

Ray runs a submitted job in a copy of the working directory that goes with the job: what lies in it, or is written to
it, is lost. There every place is named whole.
"""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path

from raydistill.commands.places import relative_in
from raydistill.config.models import Config, RayConfig
from raydistill.config.text import expand
from raydistill.errors import ConfigError
from raydistill.remote import is_url

JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # Ray sets it for what a submitted job starts, and for nothing else
RUNS = "RAYDISTILL_RUNS"  # where runs lie that name no --out: of a cluster's nodes, storage that all see, or a URL
SUBMITTED_BY = "RAYDISTILL_SUBMITTED_BY"  # a version
VERSION: str = import_module("raydistill").__version__


def in_job() -> bool:
    """Whether Ray's job API started this process."""
    return JOB in os.environ


def place_to_write(out: str | Path | None, name: str) -> Path | str:
    """`--out`; without it the folder `name` in $RAYDISTILL_RUNS, or in runs/ here. A string where it is a URL.

    Args:
        out: as the user gave it.
        name: of the run or the sweep.

    Raises:
        ConfigError: within a job it is relative.
    """
    if out is not None and is_url(out):
        return str(out)
    if out is None and is_url(runs := os.environ.get(RUNS, "")):
        return f"{runs.rstrip('/')}/{name}"
    path = expand(out) if out is not None else expand(os.environ.get(RUNS) or "runs") / name
    if in_job() and not path.is_absolute():
        raise ConfigError(
            f"a submitted job would lose {path}, which lies in its temporary working directory; name a folder on "
            f"storage of the cluster, such as --out /shared/runs/{name}, or set {RUNS} on its nodes"
        )
    return path


def clusters_own(settings: RayConfig) -> RayConfig:
    """The `ray` section without what says which Ray: a job's is the cluster that it was submitted to."""
    return settings.model_copy(update={"address": None, "num_cpus": None, "num_gpus": None})


def check_job(config: Config) -> None:
    """Within a job: what the config names is there, and this is the raydistill that submitted it.

    Raises:
        ConfigError: the versions differ, or paths of the config are relative.
    """
    if not in_job():
        return
    version = os.environ.get(SUBMITTED_BY, VERSION)
    if version != VERSION:
        raise ConfigError(
            f"raydistill {version} submitted this job and the cluster has {VERSION}; install the same there and here, "
            "or submit with --install"
        )
    check_whole(config)


def check_whole(config: Config) -> None:
    """A job does not have what lies beside its user.

    Raises:
        ConfigError: names every relative path.
    """
    relative = relative_in(config)
    if relative:
        which = ", ".join(f"{key} {path!r}" for key, path in relative.items())
        raise ConfigError(
            f"not there in a submitted job, being relative: {which}; copy it to storage of the cluster and give the "
            "whole path"
        )
