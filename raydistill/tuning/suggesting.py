"""From a space to Optuna: what is suggested to a trial, and by which sampler."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import optuna
from optuna.samplers import BaseSampler
from optuna.trial import Trial

from raydistill.errors import ConfigError, first_line
from raydistill.tuning.checking import find_function
from raydistill.tuning.space import Parameter, Space


def suggest(space: Space, trial: Trial) -> dict[str, Any]:
    """This trial's values by dotted path, constants included. A path whose condition is not met is left out.

    Raises:
        ConfigError: `define` fails, or returns no mapping.
    """
    if space.define is not None:
        try:
            values = find_function(space)(trial)
        except (Exception, SystemExit) as error:
            raise ConfigError(f"define {space.define!r} failed: {first_line(error)}") from error
        return {**space.constants, **_plain(space, values)}
    values = {}
    for path, parameter in space.space.items():
        if _applies(parameter, values):
            values[path] = _suggest_one(trial, path, parameter)
    return {**space.constants, **values}


def _plain(space: Space, values: Any) -> dict[str, Any]:
    """What a user's function returned, as it would stand in a YAML file."""
    if not isinstance(values, dict) or not all(isinstance(path, str) for path in values):
        raise ConfigError(f"define {space.define!r} returned {type(values).__name__}; return {{path: value}}")
    plain: dict[str, Any] = {
        path: value.item() if isinstance(value, np.generic) else value for path, value in values.items()
    }
    try:
        json.dumps(plain)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"define {space.define!r} returned what no config holds: {first_line(error)}") from error
    return plain


def _applies(parameter: Parameter, values: dict[str, Any]) -> bool:
    wanted = {path: value if isinstance(value, list) else [value] for path, value in parameter.when.items()}
    return all(path in values and values[path] in allowed for path, allowed in wanted.items())


def _suggest_one(trial: Trial, path: str, parameter: Parameter) -> Any:
    if parameter.choice is not None:
        by_name = {parameter.known_as(value): value for value in parameter.choice}
        return by_name[trial.suggest_categorical(path, list(by_name))]
    low, high = parameter.bounds
    if parameter.int_range is not None:
        return trial.suggest_int(path, int(low), int(high), step=int(parameter.step or 1), log=parameter.log)
    return trial.suggest_float(path, low, high, step=parameter.step, log=parameter.log)


def make_sampler(space: Space, finished: int = 0) -> BaseSampler:
    """The sampler that the space names.

    Args:
        finished: trials that an earlier process has told the study: a sampler that began with the same seed again would
            repeat its first draws.
    """
    search = space.search
    seed = (search.seed + 1_000 * finished) % 2**32
    first = max(2, min(10, search.num_trials // 3))  # drawn at random before there is a model
    if search.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    if search.sampler == "grid":
        grid = {path: [each.known_as(value) for value in each.grid] for path, each in space.space.items()}
        return optuna.samplers.GridSampler(grid, seed=search.seed)
    if search.sampler == "nsga2":
        return optuna.samplers.NSGAIISampler(population_size=max(4, min(50, search.num_trials // 3)), seed=seed)
    if search.sampler == "gp":
        return optuna.samplers.GPSampler(seed=seed, n_startup_trials=first)
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=first, multivariate=True, group=True)
