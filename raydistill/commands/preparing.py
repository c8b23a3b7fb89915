"""What every command starts with: a config that is complete, and its data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from raydistill.commands.in_job import check_job
from raydistill.commands.progress import Progress
from raydistill.config.loader import load_config
from raydistill.config.models import Config
from raydistill.data.dataset import TaskData, load_task_data
from raydistill.errors import ConfigError
from raydistill.remote import is_url
from raydistill.soft_labels.store import open_store
from raydistill.tasks import task_of
from raydistill.teachers.checkpoints import HUB

OUTPUTS = {"classification": "classes", "multilabel": "label(s)", "regression": "number(s) a row"}


def as_config(source: Config | str | Path | Mapping[str, Any], overrides: Iterable[str] = ()) -> Config:
    """A checked config from whatever a caller has of one: see `load_config`, and within a job `check_job`."""
    overrides = list(overrides)
    if isinstance(source, Config):
        loaded = load_config(source.model_dump(mode="json"), overrides) if overrides else source
    else:
        loaded = load_config(source, overrides)
    check_job(loaded)
    return _with_absolute_paths(loaded)


def _with_absolute_paths(config: Config) -> Config:
    """Workers and actors have folders of their own: what is relative is relative to here, once and for all."""
    content = config.model_dump(mode="json")
    content["cache_dir"] = _absolute(config.cache_dir)
    if config.store.path is not None and not is_url(config.store.path):
        content["store"]["path"] = _absolute(config.store.path)
    for task in content["tasks"].values():
        path = task["data"]["path"]
        if path is not None and task["data"]["source"] != "hub" and not is_url(path):
            task["data"]["path"] = _absolute(path)
    for teacher in content["teachers"].values():
        if teacher["checkpoint"] is not None and not teacher["checkpoint"].startswith(HUB):
            teacher["checkpoint"] = _absolute(teacher["checkpoint"])
        if teacher["loader"] == "transformers" and Path(teacher["model"]).expanduser().is_dir():
            teacher["model"] = _absolute(teacher["model"])
    return Config.model_validate(content)


def _absolute(path: str) -> str:
    return path if path.startswith("~") else str(Path(path).absolute())


def check_store(config: Config) -> None:
    """Before anything long begins.

    Raises:
        ConfigError, SoftLabelError: `store.path` is of no use, or cannot be reached.
    """
    open_store(config)


def cache_folder(config: Config) -> Path:
    """The cache, absolute.

    Raises:
        ConfigError: it cannot be made.
    """
    folder = Path(config.cache_dir).expanduser().absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"cache_dir {folder} cannot be made: {error.strerror}; set cache_dir to a folder of yours"
        ) from error
    return folder


def with_scales(config: Config, data: Mapping[str, TaskData]) -> Config:
    """The config with the scales of its regression tasks, as their data has them: what a teacher's numbers are brought
    to, wherever it is loaded."""
    tasks = dict(config.tasks)
    for name, found in data.items():
        if found.scales is not None:
            scales = dict(zip(found.label_names, found.scales, strict=True))
            settings = tasks[name].data.model_copy(update={"label_scales": scales})
            tasks[name] = tasks[name].model_copy(update={"data": settings})
    return config.model_copy(update={"tasks": tasks})


def load_data(config: Config, progress: Progress) -> dict[str, TaskData]:
    """Every task's data; rows that were skipped are told, and listed by name in the log."""
    cache = cache_folder(config)
    data = {}
    for name, task in config.tasks.items():
        data[name] = load_task_data(name, task, cache, progress)
        found = data[name]
        unlabelled = len(found.train) - task_of(found).count_labelled(found.train.labels)
        progress.say(
            f"data: {name}: {len(found.train):,} train"
            + (f" ({unlabelled:,} unlabelled)" if unlabelled else "")
            + f", {len(found.validation):,} validation, {len(found.test):,} test rows, "
            + f"{len(found.label_names)} {OUTPUTS[found.kind]}"
            + (f", {len(found.skipped)} rows skipped (see log.txt)" if found.skipped else "")
        )
        for line in found.skipped:
            progress.note(f"skipped: {name}: {line}")
    return data
