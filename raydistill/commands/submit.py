"""`raydistill submit`: a distillation, or a sweep, as a job of a cluster, followed to its end."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from raydistill.commands.confidential import check_words
from raydistill.commands.in_job import SUBMITTED_BY, VERSION
from raydistill.commands.job_server import AT_HOME, Job, ended, follow, job_client, send
from raydistill.commands.packing import CONFIG, OURS, SPACE, Parcel, own_package, pack, pinned_requirements
from raydistill.commands.places import places_in
from raydistill.config.loader import check_complete, load_config
from raydistill.config.models import Config
from raydistill.config.text import expand
from raydistill.errors import ConfigError
from raydistill.remote import is_relative, is_url

STOP_S = 30  # what a job that is told to stop has to leave everything in order; Ray's own default is 3


def submit(
    config: Config | str | Path | Mapping[str, Any],
    overrides: Iterable[str] = (),
    *,
    space: Mapping[str, Any] | None = None,
    options: Iterable[str] = (),
    out: str | Path | None = None,
    address: str | None = None,
    wait: bool = True,
    install: bool = False,
    say: Callable[[str], None] | None = None,
    show: Callable[[str], None] | None = None,
    on_submitted: Callable[[Job], None] | None = None,
) -> Job:
    """Run `raydistill distill`, or `tune`, on a cluster, through Ray's job API.

    Only the resolved config goes there, with the search space and the user's own modules that it names; see `pack`.

    Args:
        config: a config, a file of one, or the name of a shipped recipe.
        overrides: `key=value` words.
        space: content of a search space: then the job is a sweep round the config.
        options: of the command that runs there, such as `--seeds 3`.
        out: the run's folder, whole, on storage of the cluster; default: where the cluster's RAYDISTILL_RUNS says.
        address: of the job server, as `http://host:8265`; default: RAY_API_SERVER_ADDRESS, else this machine's.
        wait: follow the job to its end.
        install: let Ray install what raydistill needs, in the versions that are installed here.
        say: hears what was packed and what the cluster has to have; default: it goes to stderr.
        show: hears the job's output as it comes; default: it goes to stdout.
        on_submitted: hears of the job as soon as the cluster has it.

    Raises:
        ConfigError: the config is wrong, something that must not go would go, or no job server answers.
        RaydistillError: the job failed before the command began, or is out of sight.
    """
    overrides = list(overrides)
    loaded = config if isinstance(config, Config) and not overrides else load_config(_content(config), overrides)
    check_complete(loaded)
    if out is not None and (is_relative(out) if is_url(out) else not expand(out).is_absolute()):
        raise ConfigError(
            f"--out {out} is relative, and a job writes nothing here; give a whole path on storage of the cluster, "
            f"such as --out /shared/runs/mine"
        )
    if out is not None and is_url(out) and space is not None:
        raise ConfigError(
            f"--out {out} is a URL, and the trials of a sweep share a folder; give a path that all nodes mount, such "
            "as /shared/sweeps/mine"
        )
    parcel = pack(loaded, space)
    words = ["tune", SPACE, *overrides] if space is not None else ["distill", CONFIG]
    words += [*options, *(["--out", str(out)] if out is not None else [])]
    check_words(words)
    client = job_client(address or os.environ.get("RAY_API_SERVER_ADDRESS") or AT_HOME)
    with _folder_of(parcel) as folder:
        environment = runtime_environment(folder, install)
        (say or _to_stderr)(_told(loaded, parcel, environment))
        job = send(client, words, environment, loaded.name)
    if on_submitted is not None:
        on_submitted(job)
    return ended(job, follow(client, job, show or _to_stdout)) if wait else job


def runtime_environment(folder: Path, install: bool) -> dict[str, Any]:
    """Ray's runtime environment of a job.

    Args:
        folder: the job's working directory, packed.
        install: see `submit`.
    """
    environment: dict[str, Any] = {
        "working_dir": str(folder / "work"),
        "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_S)},
    }
    package = own_package()
    if package is not None:
        # As a wheel has it: with the search spaces inside.
        copied = folder / "modules" / package.name
        shutil.copytree(package, copied, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        spaces = package.parent / "search_spaces"
        if spaces.is_dir():
            shutil.copytree(spaces, copied / spaces.name, dirs_exist_ok=True)
        environment["py_modules"] = [str(copied)]
    else:
        environment["env_vars"][SUBMITTED_BY] = VERSION
    if install:
        own = [] if package is not None else [f"{OURS}=={VERSION}"]
        environment["pip"] = {"packages": [*own, *pinned_requirements()], "pip_check": False}
    return environment


def _to_stderr(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _to_stdout(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _content(config: Config | str | Path | Mapping[str, Any]) -> str | Path | Mapping[str, Any]:
    return config.model_dump(mode="json") if isinstance(config, Config) else config


@contextlib.contextmanager
def _folder_of(parcel: Parcel) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="raydistill-job-") as folder:
        work = Path(folder, "work")
        work.mkdir()
        parcel.write(work)
        yield Path(folder)


def _told(config: Config, parcel: Parcel, environment: Mapping[str, Any]) -> str:
    """One line: what goes, and what has to be there."""
    goes = [*parcel.texts, *parcel.files]
    parts = [f"{', '.join(goes[:8])}{f' and {len(goes) - 8} more' if len(goes) > 8 else ''}"]
    if "py_modules" in environment:
        parts.append("this checkout of raydistill")
    if "pip" in environment:
        parts.append(f"a list of {len(environment['pip']['packages'])} packages to install")
    there = [f"{path} ({key})" for key, path in places_in(config).items()]
    there += [f"the Python module {name}" for name in parcel.elsewhere]
    return f"packed {parcel.size_bytes / 1024:.0f} KB: {'; '.join(parts)}. The cluster has to have {', '.join(there)}"
