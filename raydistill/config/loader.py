"""From YAML and `key=value` words to a Config; every mistake is one line that names the key and its place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from raydistill.config.mistakes import explain
from raydistill.config.models import Config
from raydistill.config.text import dump, expand, parse
from raydistill.errors import ConfigError


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
        raise ConfigError(f"{where}: {explain(error, Config)}") from None


def dump_config(config: Config) -> str:
    """The resolved config as YAML, every default written out: `load_config` of it gives the same config."""
    return dump(config.model_dump(mode="json"))


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
    path = expand(source)
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
    content = parse(where, text)
    if not isinstance(content, dict):
        raise ConfigError(f"{where}: a config is a mapping of keys, this is {type(content).__name__}")
    base = content.pop("extends", None)
    if base is None:
        return where, content
    beside = path.parent / str(base)
    found = str(beside.resolve()) if beside.is_file() else str(base)
    if found in (*chain, str(path.resolve())):
        raise ConfigError(f"{where}: extends {base!r}, which extends this one")
    try:
        _, inherited = _read(found, (*chain, found))
    except ConfigError as error:
        raise ConfigError(f"{where}: extends {base!r}: {error}") from None
    return where, _merged(inherited, content)


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
    value = parse(f"{override!r}: the value", text)
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
