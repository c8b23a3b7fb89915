"""From YAML and `key=value` words to a Config; every mistake is one line that names the key and its place."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from raydistill.config.models import Config
from raydistill.errors import ConfigError

UNION_PARTS = ("constrained-", "dict[")  # what pydantic calls the types of a union


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice (YAML itself lets the last one win, silently)."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = str(self.construct_object(key_node, deep=True))
            if key in seen:
                line = key_node.start_mark.line + 1
                raise ConfigError(f"{node.start_mark.name}: line {line}: key {key!r} is given twice; remove one")
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


class _Dumper(yaml.SafeDumper):
    """Quotes the strings that `_Loader` would read as something else."""


# YAML 1.1 reads `1e-3` as a string; YAML 1.2 and everyone who types it mean a number.
for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+0123456789.")
    )
# No config value is a date: 2024-01-01 is a name.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in _Loader.yaml_implicit_resolvers.items()
}


def list_recipes() -> dict[str, str]:
    """Names and texts of the configs that come with the package."""
    folder = resources.files("raydistill.recipes")
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".yaml")), key=lambda file: file.name)
    return {file.name.removesuffix(".yaml"): file.read_text(encoding="utf-8") for file in files}


def load_config(source: str | Path | Mapping[str, Any], overrides: Iterable[str] = ()) -> Config:
    """A checked config.

    Args:
        source: a YAML file, the name of a shipped recipe (`demo`), or the content as a mapping. A file may say
            `extends: OTHER`, a file beside it or a recipe, and give only what differs.
        overrides: `distill.temperature=3`; values are YAML, `null` takes a default's None, new names of a
            mapping (`teachers.other.task=…`) are added.

    Raises:
        ConfigError: unreadable, a key twice, an unknown key (with the nearest valid one), a wrong type, or parts
            that do not fit together. One line.
    """
    if isinstance(source, Mapping):
        where, content = "config", dict(source)
    else:
        where, content = _read(source)
    for override in overrides:
        _apply(content, override)
    try:
        return Config.model_validate(content)
    except ValidationError as error:
        raise ConfigError(f"{where}: {_explain(error)}") from None


def dump_config(config: Config) -> str:
    """The resolved config as YAML, every default written out: `load_config` of it gives the same config."""
    content = config.model_dump(mode="json")
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def check_complete(config: Config) -> None:
    """Every task has a teacher.

    Raises:
        ConfigError: names those without.
    """
    orphans = [task for task in config.tasks if not config.teachers_of(task)]
    if orphans:
        taught = sorted({teacher.task for teacher in config.teachers.values()})
        raise ConfigError(
            f"task{'s' if len(orphans) > 1 else ''} {', '.join(map(repr, orphans))} without a teacher; teachers are "
            f"configured for {taught}: add one under teachers"
        )


def _read(source: str | Path, chain: tuple[str, ...] = ()) -> tuple[str, dict[str, Any]]:
    path = Path(source).expanduser()
    shipped = list_recipes()
    try:
        if path.is_file():
            where, text = str(source), path.read_text(encoding="utf-8")
        elif str(source) in shipped:
            where, text = f"recipe {source}", shipped[str(source)]
        elif path.is_dir():
            raise ConfigError(f"{source} is a folder, not a config; did you mean {path / 'config.yaml'}?")
        else:
            raise ConfigError(f"no config file {source}, and the shipped recipes are {', '.join(shipped)}")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{source}: cannot be read as text ({error})") from error
    content = _parse(where, text)
    if not isinstance(content, dict):
        raise ConfigError(f"{where}: a config is a mapping of keys, this is {type(content).__name__}")
    base = content.pop("extends", None)
    if base is None:
        return where, content
    if chain and str(base) in chain:
        raise ConfigError(f"{where}: extends {base!r}, which extends this one")
    beside = path.parent / str(base)
    try:
        _, inherited = _read(beside if beside.is_file() else str(base), (*chain, str(base)))
    except ConfigError as error:
        raise ConfigError(f"{where}: extends {base!r}: {error}") from None
    return where, _merged(inherited, content)


def _parse(where: str, text: str) -> Any:
    try:
        loader = _Loader(text)
        loader.name = where
        return loader.get_single_data()
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise ConfigError(f"{where}: line {line}: not valid YAML: {error.problem}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{where}: not valid YAML: {str(error).splitlines()[0]}") from None


def _merged(base: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the changes, section by section."""
    merged = dict(base)
    for key, value in changes.items():
        inner = merged.get(key)
        merged[key] = _merged(inner, value) if isinstance(inner, dict) and isinstance(value, Mapping) else value
    return merged


def _apply(content: dict[str, Any], override: str) -> None:
    path, separator, text = override.partition("=")
    keys = path.strip().split(".")
    if not separator or not all(keys):
        raise ConfigError(f"{override!r} is not an override; write key=value, such as distill.temperature=3")
    try:
        value = yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError):
        raise ConfigError(f"{override!r}: the value is not valid YAML; quote it") from None
    place = content
    for depth, key in enumerate(keys[:-1]):
        inner = place.setdefault(key, {})
        if inner is None:
            inner = place[key] = {}
        if not isinstance(inner, dict):
            raise ConfigError(
                f"{override!r}: {'.'.join(keys[: depth + 1])} is a value and has no key {keys[depth + 1]!r}"
            )
        # The mapping may be the caller's own: change a copy.
        place[key] = dict(inner)
        place = place[key]
    place[keys[-1]] = value


def _explain(error: ValidationError) -> str:
    """The first problem, and how many more."""
    problems = _by_place(error)
    # An unknown key often causes others ("field required"): it explains them.
    problems.sort(key=lambda problem: problem["type"] != "extra_forbidden")
    first = problems[0]
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        text = f"unknown key {place!r}"
        valid = sorted(_valid_keys(first["loc"][:-1]))
        near = difflib.get_close_matches(str(first["loc"][-1]), valid, n=1, cutoff=0.5)
        text += f"; did you mean {near[0]!r}?" if near else f"; valid here: {', '.join(valid)}"
    elif first["type"] == "missing":
        text = f"key {place!r} is missing"
    elif first["type"] == "value_error":
        text = f"{place + ': ' if place else ''}{first['msg'].removeprefix('Value error, ')}"
    else:
        shown = repr(first["input"])
        text = f"{place}: {first['msg'][0].lower()}{first['msg'][1:]} (got {shown[:60]})"
    more = len(problems) - 1
    return text + (f" (and {more} more problem{'s' if more > 1 else ''})" if more else "")


def _by_place(error: ValidationError) -> list[ErrorDetails]:
    """Where one of several types would do, each has its say, under its own name: the one that got furthest is told."""
    found: list[ErrorDetails] = []
    for problem in error.errors(include_url=False):
        place = tuple(part for part in problem["loc"] if not str(part).startswith(UNION_PARTS))
        if place == problem["loc"]:
            found.append(problem)
            continue
        problem["loc"] = place
        if found and found[-1]["loc"] == place:
            continue
        if found and found[-1]["loc"] == place[: len(found[-1]["loc"])]:
            found.pop()
        found.append(problem)
    return found


def _valid_keys(location: tuple[int | str, ...]) -> set[str]:
    """The keys of the section at `location`, found by walking the models."""
    model: type[BaseModel] = Config
    skip = False
    for part in location:
        if skip:  # a name of the user's own: tasks.NAME, teachers.NAME
            skip = False
            continue
        field = model.model_fields.get(str(part))
        found = _section(field) if field else None
        if found is None:
            return set()
        model, skip = found
    return set(model.model_fields)


def _section(field: FieldInfo) -> tuple[type[BaseModel], bool] | None:
    """The section inside a field, and whether names stand between (`dict[str, Section]`)."""
    pending = [(field.annotation, False)]
    while pending:
        kind, named = pending.pop()
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind, named
        arguments = get_args(kind)
        pending += [(argument, named or getattr(kind, "__origin__", None) is dict) for argument in arguments]
    return None
