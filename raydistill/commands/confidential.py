"""What must not leave home with a job: files that are secrets by name, and secrets among a config's values.

A job's files and its config lie readable on the cluster and in its dashboard. A config is stricter about its own keys
already; here also short values, modules and search spaces count.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatch
from pathlib import PurePath
from typing import Any

from raydistill.errors import ConfigError, holds_secret

FILES = (
    ".env", ".env.*", "*.env", "*.pem", "*.key", "*.p12", "*.pfx", "*.jks", "*.kdbx", "id_rsa*", "id_dsa*", "id_ecdsa*",
    "id_ed25519*", "auth_token", "credentials", "credentials.*", "*credentials.json", "service_account*.json",
    "client_secret*.json", "secrets", "secrets.*", ".netrc", ".pypirc", ".npmrc", ".git-credentials", ".htpasswd",
    "kubeconfig", "*.kubeconfig",
)  # fmt: skip
# Of a mapping that is the user's own, such as a teacher's options, or of a search space.
KEYS = re.compile(
    r"(^|[_.-])(password|passwd|passphrase|secret|token|credentials?|api_?key|access_?key|private_?key|auth)$",
    re.IGNORECASE,
)
VALUES = {
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    "a GitHub token": re.compile(r"\b(gh[pousr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{30,})\b"),
    "an API key": re.compile(r"\b(sk-(?:[a-z0-9]+-)*[A-Za-z0-9_]{20,}|[sr]k_(live|test)_[A-Za-z0-9]{16,})\b"),
    "a Google API key": re.compile(r"\bAIza[0-9A-Za-z_-]{30,}\b"),
    "a Slack token": re.compile(r"\bxox[abprs]-[0-9A-Za-z-]{10,}\b"),
    "a JSON web token": re.compile(r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\."),
}
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


def check_text(name: str, text: str) -> None:
    """No secret stands in a file.

    Raises:
        ConfigError: says where and what kind, never the secret.
    """
    for number, line in enumerate(text.splitlines(), start=1):
        kind = kind_of_secret(line)
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
        if kind is None and value and KEYS.search(key):
            kind = f"a value under the name {key!r}"
        if kind:
            raise ConfigError(f"{where}: {path}: {kind}, which would go with the job; take it out: {INSTEAD}")


def kind_of_secret(text: str) -> str | None:
    """What kind of secret a text holds, where it holds one that can be told by its looks."""
    found = next((kind for kind, pattern in VALUES.items() if pattern.search(text)), None)
    return found or ("a password or a token" if holds_secret(text) else None)


def _strings(content: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(content, str):
        yield path, content
    elif isinstance(content, Mapping):
        for key, value in content.items():
            yield from _strings(value, f"{path}.{key}" if path else str(key))
    elif isinstance(content, list | tuple):
        for index, value in enumerate(content):
            yield from _strings(value, f"{path}[{index}]")
