"""YAML as it is meant: a key twice is a mistake, `1e-3` a number, a date a name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from raydistill.errors import ConfigError, first_line


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


def parse(where: str, text: str) -> Any:
    """The content of a YAML text.

    Args:
        where: it comes from, for errors.

    Raises:
        ConfigError: it is no YAML; names the line.
    """
    try:
        loader = _Loader(text)
        loader.name = where
        return loader.get_single_data()
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise ConfigError(f"{where}: line {line}: not valid YAML: {error.problem}") from None
    except (yaml.YAMLError, ValueError, AttributeError) as error:  # the last: `!!timestamp x`
        raise ConfigError(f"{where}: not valid YAML: {first_line(error)}") from None
    except RecursionError:
        raise ConfigError(f"{where}: not valid YAML: too many brackets within each other") from None


def expand(path: str | Path) -> Path:
    """With `~` replaced.

    Raises:
        ConfigError: by nobody's home.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ConfigError(f"{path}: {error}") from None


def read_mapping(path: Path) -> dict[str, Any]:
    """The content of a YAML file that is a mapping.

    Raises:
        ConfigError: it cannot be read, or is none.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as text ({error})") from error
    content = parse(str(path), text)
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: a mapping of keys is wanted, this is {type(content).__name__}")
    return content


def dump(content: Any) -> str:
    """YAML that `parse` reads as the same."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
