"""What can go wrong for a user: each error is one line that says what, where and what to do."""

from __future__ import annotations

from raydistill.secrecy import presentable


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
