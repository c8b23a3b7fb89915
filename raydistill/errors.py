"""What can go wrong for a user: each error is one line that says what, where and what to do."""

from __future__ import annotations

import re

# `scheme://user:password@…`, with or without a user; a port is no password, and a container before `@` no user.
_PASSWORD = re.compile(r"(://)[^@\s/:?#\[]*:(?!\d{1,5}(?:[/?#]|$))[^@\s]*@")
_SIGNED = re.compile(
    r"(?i)([?&;](?:[\w-]*(?:token|secret|password|passwd|signature|credential|api[_-]?key|access[_-]?key(?:[_-]?id)?)"
    r"|sig|key|pwd)=)[^&;#\s'\"]+"
)
_TOKEN = re.compile(r"(?<![A-Za-z0-9])()(?:hf_[A-Za-z0-9]{20,}|(?:AKIA|ASIA)[0-9A-Z]{16})(?![A-Za-z0-9])")
_CONTROLS = dict.fromkeys([*range(9), *range(11, 32), *range(127, 160)], "\ufffd")  # all but tab and line feed
_BEARER = re.compile(r"(?i)(\bbearer )[\w.~+/=-]{8,}")


class RaydistillError(Exception):
    """Base of every error that a user can cause or mend. The command line prints it and exits with 2."""


class ConfigError(RaydistillError):
    """The config asks for something that does not exist, does not fit together or does not fit the cluster."""


class DataError(RaydistillError):
    """A data set is missing, empty, corrupt beyond the configured limit, or cannot be fetched."""


class TeacherError(RaydistillError):
    """A teacher cannot be loaded, does not match its task, is at chance level, or stopped answering."""


class TeacherGone(TeacherError):
    """Every replica of a teacher is lost and none came back in time: `distill.on_teacher_loss` decides what follows.

    Attributes:
        failovers: times that the request went to another replica before it was given up.
    """

    failovers: int = 0


class SoftLabelError(RaydistillError):
    """Soft labels are missing, torn or belong to another teacher or data set."""


class RemoteError(RaydistillError):
    """Storage at a URL cannot be reached, refuses, or is written by somebody else."""


def first_line(error: BaseException) -> str:
    """Kind and first line of somebody else's error."""
    lines = presentable(str(error)).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:160]}" if lines else type(error).__name__


def without_secrets(text: str) -> str:
    """The text with `…` for passwords and keys in URLs and for access tokens: what is logged and reported is read by
    others."""
    text = _PASSWORD.sub(r"\1…@", text)
    for pattern in (_SIGNED, _TOKEN, _BEARER):
        text = pattern.sub(r"\1…", text)
    return text


def presentable(text: str) -> str:
    """Without secrets, and without what would steer a terminal: a label or a file name may hold anything."""
    return without_secrets(text).translate(_CONTROLS)


def holds_secret(text: str) -> bool:
    """Whether `without_secrets` would leave something out."""
    return without_secrets(text) != text
