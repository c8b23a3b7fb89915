"""What must not leave home with a job: files that are secrets by name, and secrets among a config's values.

A job's files and its words lie readable on the cluster and in its dashboard.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatch
from pathlib import PurePath
from typing import Any

from raydistill.errors import ConfigError
from raydistill.secrecy import assigned_secret, is_secret_of, kind_of_secret, without_secrets

FILES = (
    ".env", ".env.*", "*.env", "*.pem", "*.key", "*.p12", "*.pfx", "*.jks", "*.kdbx", "id_rsa*", "id_dsa*", "id_ecdsa*",
    "id_ed25519*", "auth_token", "credentials", "credentials.*", "*credentials.json", "service_account*.json",
    "client_secret*.json", "secrets", "secrets.*", ".netrc", ".pypirc", ".npmrc", ".git-credentials", ".htpasswd",
    "kubeconfig", "*.kubeconfig",
)  # fmt: skip
PROGRAMS = {".py", ".pyi", ".sh"}
INSTEAD = "jobs are readable on the cluster: keep it in the environment of its nodes, or in a file there"


def check_file_names(names: Iterable[str]) -> None:
    """No file is one that people keep secrets in.

    Raises:
        ConfigError: names the first that is.
    """
    for name in names:
        for part in PurePath(name).parts:
            if any(fnmatch(part.lower(), pattern) for pattern in FILES):
                raise ConfigError(f"{name} looks like a secret, and would go with the job; move it away: {INSTEAD}")


def check_words(words: Iterable[str]) -> None:
    """No secret stands in the command that a job runs.

    Raises:
        ConfigError: says what kind, never the secret.
    """
    for word in words:
        kind = kind_of_secret(word)
        if kind:
            raise ConfigError(
                f"{without_secrets(word)}: {kind}, which the cluster would show to whoever sees the job; take it out: "
                f"{INSTEAD}"
            )


def check_text(name: str, text: str) -> None:
    """No secret stands in a file.

    Raises:
        ConfigError: says where and what kind, never the secret.
    """
    plain = PurePath(name).suffix not in PROGRAMS
    for number, line in enumerate(text.splitlines(), start=1):
        called = assigned_secret(line, plain)
        kind = kind_of_secret(line) or (called and f"a value under the name {called!r}")
        if kind:
            raise ConfigError(f"{name}, line {number}: {kind}, which would go with the job; take it out: {INSTEAD}")


def check_values(content: Mapping[str, Any], where: str) -> None:
    """No value of a config is a secret, and none stands under a name that secrets have.

    Args:
        where: the content comes from, for errors.

    Raises:
        ConfigError: names its key and what kind it is, never the value.
    """
    for path, value in _strings(content, ""):
        kind = kind_of_secret(value)
        key = path.rpartition(".")[2].partition("[")[0]
        if kind is None and is_secret_of(key, value):
            kind = f"a value under the name {key!r}"
        if kind:
            raise ConfigError(f"{where}: {path}: {kind}, which would go with the job; take it out: {INSTEAD}")


def _strings(content: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(content, str):
        yield path, content
    elif isinstance(content, Mapping):
        for key, value in content.items():
            yield from _strings(value, f"{path}.{key}" if path else str(key))
    elif isinstance(content, list | tuple):
        for index, value in enumerate(content):
            yield from _strings(value, f"{path}[{index}]")
