"""The folder of one sweep: what lies where, and whose it is."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from raydistill.commands.folders import owned, write_atomically
from raydistill.config.difference import ELSEWHERE, difference
from raydistill.config.loader import dump_config, load_config
from raydistill.config.models import Config
from raydistill.config.text import expand
from raydistill.errors import ConfigError, first_line
from raydistill.tuning.space import Space, load_space
from raydistill.tuning.study import ANOTHER

SPACE, CONFIG, STUDY = "space.json", "config.yaml", "study.log"


def read_sweep(folder: str | Path) -> tuple[Space, Config, Path]:
    """What a sweep was begun with.

    Raises:
        ConfigError: the folder holds none.
    """
    path = expand(folder)
    if not (path / SPACE).is_file():
        raise ConfigError(f"{folder} holds no sweep: it has no {SPACE}; name a folder that `tune` wrote")
    return _read_space(path), load_config(path / CONFIG), path


def _read_space(path: Path) -> Space:
    try:
        content = json.loads((path / SPACE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path / SPACE} is damaged ({first_line(error)}); restore it, or {ANOTHER}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path / SPACE} is damaged (it holds no mapping); restore it, or {ANOTHER}")
    return load_space(content)


@contextlib.contextmanager
def open_sweep(path: Path, space: Space, config: Config) -> Iterator[Path]:
    """The sweep's folder, ours for as long as the block lasts.

    Raises:
        ConfigError: it belongs to another sweep, to another process or to something else, or cannot be made.
    """
    with owned(path):
        _claim(path, space, config)
        yield path


def _claim(path: Path, space: Space, config: Config) -> None:
    ours: dict[str, Any] = space.model_dump(mode="json", by_alias=True)
    if (path / SPACE).is_file() and not (path / "trials").exists():
        (path / STUDY).unlink(missing_ok=True)  # refused before its first trial: nothing is lost
    elif (path / SPACE).is_file():
        old = _read_space(path).model_dump(mode="json", by_alias=True)
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
