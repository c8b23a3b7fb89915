"""Whether a search space fits its config: every path, every end and every choice is tried before Ray starts."""

from __future__ import annotations

import difflib
import importlib
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from raydistill.config.loader import check_complete, load_config
from raydistill.config.models import Config
from raydistill.errors import ConfigError, first_line
from raydistill.tuning.space import Parameter, Space

MEASURES = ("retention", "parameters", "bytes", "latency_ms", "teacher_rows")
OF_A_TASK = "validation."  # and a task's name: its metric on the validation split
# What all trials have in common, and why.
COMMON = {
    "training.num_steps": "trials of other lengths cannot be compared",
    "training.evaluate_every": "trials are compared at the same steps",
    "training.num_workers": "how many trials fit is computed from it",
    "training.placement": "how many trials fit is computed from it",
    "ray": "all trials run in one Ray",
    "cache_dir": "trials share teachers and data there",
    "store.path": "trials share the store",
    "num_seeds": "a trial is one student; --seeds compares the best with several",
    "name": "it names the sweep's results",
}
OF_TEACHERS = ("teachers.", "distill.teacher_weights.")  # where `*` stands for teachers
DRAWS = 8  # of a function that defines a space, tried before Ray starts


def base_config(space: Space, overrides: Iterable[str] = ()) -> Config:
    """The setting that is searched around: the space's config with its `base`, then the words of the command line.

    Raises:
        ConfigError: it is none.
    """
    words = [*assignments(space.base), *overrides]
    config = load_config(space.config, words)
    check_complete(config)
    return config


def assignments(values: Mapping[str, Any]) -> list[str]:
    """As overrides on the command line. JSON is YAML."""
    return [f"{path}={json.dumps(value)}" for path, value in values.items()]


def candidate(config: Config, values: Mapping[str, Any]) -> Config:
    """The config with these values, by dotted path.

    Raises:
        ConfigError: an unknown path, with the nearest valid one, or a wrong value.
    """
    return load_config(config.model_dump(mode="json"), assignments(values))


def check_space(space: Space, config: Config) -> Space:
    """The same space with every `*` replaced by the names that stand there.

    Raises:
        ConfigError: names the path, end of a range, choice, measure, condition or initial point that is not possible.
    """
    parameters: dict[str, Parameter] = {}
    for pattern, parameter in space.space.items():
        for path in _expand(pattern, config):
            if path in parameters:
                raise ConfigError(f"{space.name}: space.{pattern} names {path} a second time")
            parameters[path] = parameter
    space = space.model_copy(update={"space": parameters})
    for section, paths in (("constants", space.constants), ("space", space.space)):
        for path in paths:
            _check_own(space, f"{section}.{path}", path)
    _check_apart(space)
    _try(space, config, "constants", {})
    for path, parameter in space.space.items():
        _check_conditions(path, parameter, parameters)
        conditions = {where: _first(value) for where, value in parameter.when.items()}
        for value in parameter.examples():
            _try(space, config, f"space.{path}", {**conditions, path: value})
    _check_measures(space, config)
    for index, point in enumerate(space.search.initial_points):
        _check_point(space, config, f"search.initial_points[{index}]", point)
    if space.define is not None:
        _check_function(space, config)
    return space


def find_function(space: Space) -> Callable[[Any], dict[str, Any]]:
    """The function that `define` names.

    Raises:
        ConfigError: there is none.
    """
    module, separator, name = (space.define or "").partition(":")
    if not separator:
        raise ConfigError(f"{space.name}: define is {space.define!r}; write module:function")
    try:
        found = getattr(importlib.import_module(module), name)
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{space.name}: define {space.define!r}: {first_line(error)}") from error
    if not callable(found):
        raise ConfigError(f"{space.name}: define {space.define!r} is no function")
    function: Callable[[Any], dict[str, Any]] = found
    return function


def _check_function(space: Space, config: Config) -> None:
    import optuna

    from raydistill.tuning.suggesting import suggest

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(DRAWS):
        values = suggest(space, study.ask())
        for path in values:
            _check_own(space, f"define {space.define!r}: {path}", path)
        _try(space, config, f"define {space.define!r}", values)


def _check_own(space: Space, where: str, path: str) -> None:
    """A trial may have its own value of this path."""
    if any(character.isspace() for character in path):
        raise ConfigError(f"{space.name}: {where}: a path has no blanks")
    for common, why in COMMON.items():
        if path == common or path.startswith(f"{common}."):
            raise ConfigError(f"{space.name}: {where} cannot differ between trials: {why}; set it under base")


def _expand(pattern: str, config: Config) -> list[str]:
    """`distill.task_weights.*`: one parameter for every task."""
    if "*" not in pattern:
        return [pattern]
    head, _, tail = pattern.partition("*")
    names = sorted(config.tasks)
    if head in OF_TEACHERS:
        names = sorted(config.teachers)
    elif head == "distill.features.":
        names = sorted(config.distill.features)
    if tail.count("*") or not (head.endswith(".") and (not tail or tail.startswith("."))):
        raise ConfigError(f"space.{pattern}: `*` stands for one whole name, such as distill.task_weights.*")
    return [f"{head}{name}{tail}" for name in names]


def _check_conditions(path: str, parameter: Parameter, parameters: Mapping[str, Parameter]) -> None:
    before = list(parameters)[: list(parameters).index(path)]
    for where in parameter.when:
        if where not in before:
            near = difflib.get_close_matches(where, before, n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"space.{path}: when names {where!r}, which is not searched before it{hint}")
        wanted = parameter.when[where]
        if wanted == []:
            raise ConfigError(f"space.{path}: when {where} is one of no values; name some")
        for value in wanted if isinstance(wanted, list) else [wanted]:
            if not parameters[where].allows(value):
                raise ConfigError(f"space.{path}: when {where} is {value!r}, which is none of {parameters[where]}")


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, list) else value


def _try(space: Space, config: Config, where: str, values: Mapping[str, Any]) -> None:
    try:
        tried = candidate(config, {**space.constants, **values})
    except ConfigError as error:
        raise ConfigError(f"{space.name}: {where}: {str(error).removeprefix('config: ')}") from None
    # A whole section may be a value, too.
    before, after = config.model_dump(mode="json"), tried.model_dump(mode="json")
    for common, why in COMMON.items():
        if _at(before, common) != _at(after, common):
            raise ConfigError(f"{space.name}: {where} changes {common}, which cannot differ between trials: {why}")


def _at(content: Any, path: str) -> Any:
    for key in path.split("."):
        content = content[key]
    return content


def _check_apart(space: Space) -> None:
    """No path is set twice, nor a part of what another one sets."""
    paths = [*space.constants, *space.space]
    for path in paths:
        for other in paths:
            if other.startswith(f"{path}.") or (path == other and paths.count(path) > 1):
                raise ConfigError(f"{space.name}: {path} and {other} set the same; keep one of them")


def _check_measures(space: Space, config: Config) -> None:
    possible = [*MEASURES, *(f"{OF_A_TASK}{task}" for task in config.tasks)]
    for section, names in (("objective", space.objective), ("constraints", space.constraints)):
        for name in names:
            if name not in possible:
                near = difflib.get_close_matches(name, possible, n=1, cutoff=0.5)
                hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(possible)}"
                raise ConfigError(f"{space.name}: {section}: there is no measure {name!r}; {hint}")


def _check_point(space: Space, config: Config, where: str, point: Mapping[str, Any]) -> None:
    for path, value in point.items():
        parameter = space.space.get(path)
        if parameter is None:
            near = difflib.get_close_matches(path, list(space.space), n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"{space.name}: {where} names {path!r}, which is not searched{hint}")
        if not parameter.allows(value):
            raise ConfigError(f"{space.name}: {where}: {path} is {value!r}, which is none of {parameter}")
        for condition, wanted in parameter.when.items():
            if condition in point and point[condition] not in (wanted if isinstance(wanted, list) else [wanted]):
                raise ConfigError(
                    f"{space.name}: {where}: {path} is searched when {condition} is {wanted!r} only, and here it is "
                    f"{point[condition]!r}; leave {path} out"
                )
    _try(space, config, where, point)
