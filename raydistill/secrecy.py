"""Passwords, keys and tokens told by their looks or by their names: none may stand where others read."""

from __future__ import annotations

import re

# `scheme://user:password@…`, with or without a user; a port is no password, and a container before `@` no user.
_PASSWORD = re.compile(r"(://)[^@\s/:?#\[]*:(?!\d{1,5}(?:[/?#]|$))[^@\s]*@")
_SIGNED = re.compile(
    r"(?i)([?&;](?:[\w-]*(?:token|secret|password|passwd|signature|credential|api[_-]?key|access[_-]?key(?:[_-]?id)?)"
    r"|sig|key|pwd)=)[^&;#\s'\"]+"
)
# Of words that follow it in a sentence few are so long, and none has a digit.
_BEARER = re.compile(r"(?i)(\bbearer )(?=[\w.~+/=-]*\d|[\w.~+/=-]{20})[\w.~+/=-]{8,}")
_KINDS = {
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----(?:[\s\S]*?-----END [A-Z ]*PRIVATE KEY-----)?"),
    "a GitHub token": re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{30,})\b"),
    "a Hugging Face token": re.compile(r"(?<![A-Za-z0-9])hf_[A-Za-z0-9]{20,}(?![A-Za-z0-9])"),
    "an AWS key": re.compile(r"(?<![A-Za-z0-9])(?:AKIA|ASIA)[0-9A-Z]{16}(?![A-Za-z0-9])"),
    "an API key": re.compile(r"\b(?:sk-(?:[a-z0-9]+-)*[A-Za-z0-9_]{20,}|[sr]k_(?:live|test)_[A-Za-z0-9]{16,})\b"),
    "a Google API key": re.compile(r"\bAIza[0-9A-Za-z_-]{30,}\b"),
    "a Slack token": re.compile(r"\bxox[abprs]-[0-9A-Za-z-]{10,}\b"),
    "a JSON web token": re.compile(r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]*"),
}
_NAME = (
    r"(?:password|passwd|passphrase|secret|token|credentials?|api_?key|access_?key(?:_?id)?|private_?key|secret_?key"
    r"|auth)"
)
_NAMED = re.compile(rf"(?:^|[_.-]){_NAME}$", re.IGNORECASE)
_CHOSEN = re.compile(r"(?i)(?:password|passwd|passphrase|secret)$")  # by people, who like them short
# Of tokenizers: `pad_token: <pad>` is no secret.
_OF_TEXT = re.compile(r"(?:^|[_.-])(?:pad|eos|bos|unk|mask|cls|sep|image|audio|special|start|end|blank)_token$", re.I)
_ASSIGNED = re.compile(rf"""(?i)(?P<name>[\w.-]*{_NAME})["']?\s*[:=]\s*["'](?P<value>[^"'\s]+)["']""")
_BARE = re.compile(rf"(?i)^\s*(?P<name>[\w.-]*{_NAME})\s*[:=]\s*(?P<value>[^\s\"']+)\s*$")
_PLACEHOLDERS = re.compile(
    r"^(?:[<$%{\[].*|(.)\1*|none|null|true|false|auto|your.*|.*example.*|change.?me)$", re.IGNORECASE
)
_SHORTEST = 6
_CONTROLS = dict.fromkeys([*range(9), *range(11, 32), *range(127, 160)], "\ufffd")  # all but tab and line feed


def without_secrets(text: str) -> str:
    """The text with `…` for passwords and keys in URLs and for access tokens: what is logged and reported is read by
    others."""
    text = _PASSWORD.sub(r"\1…@", text)
    for pattern in (_SIGNED, _BEARER):
        text = pattern.sub(r"\1…", text)
    for pattern in _KINDS.values():
        text = pattern.sub("…", text)
    return text


def presentable(text: str) -> str:
    """Without secrets, and without what would steer a terminal: a label or a file name may hold anything."""
    return without_secrets(text).translate(_CONTROLS)


def holds_secret(text: str) -> bool:
    """Whether `without_secrets` would leave something out."""
    return without_secrets(text) != text


def kind_of_secret(text: str) -> str | None:
    """What kind of secret a text holds, where it holds one that can be told by its looks."""
    found = next((kind for kind, pattern in _KINDS.items() if pattern.search(text)), None)
    return found or ("a password or a token" if holds_secret(text) else None)


def is_secret_of(name: str, value: str) -> bool:
    """Whether a value under this name is one by the name: `password`, `api_key`, but neither `pad_token` nor what is
    too short for a key (`auth: basic`, `token: cls`)."""
    if not value or not _NAMED.search(name) or _OF_TEXT.search(name) or _PLACEHOLDERS.match(value):
        return False
    return len(value) >= _SHORTEST or bool(_CHOSEN.search(name))


def assigned_secret(line: str, plain: bool) -> str | None:
    """The name under which a line of a file holds a secret, such as `api_key = "…"`; None where it does not.

    Args:
        plain: the file is no program: a value may stand there without quotation marks.
    """
    for pattern in (_ASSIGNED, *([_BARE] if plain else [])):
        for found in pattern.finditer(line):
            name, value = found["name"], found["value"]
            if len(value) >= _SHORTEST and any(map(str.isdigit, value)) and is_secret_of(name, value):
                return name
    return None
