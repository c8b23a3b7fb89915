"""How a command ends: an exit code, and one line in place of a traceback."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import typer

from raydistill.errors import RaydistillError
from raydistill.secrecy import presentable

INTERRUPTED, TERMINATED = 130, 143  # as a shell says it: 128 + the signal
STOPPED = "stopped; the same command goes on from here"

# typer carries its own click and does not export the base of its usage errors.
USAGE_ERROR: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")

UNWRITABLE = {
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST,
}  # fmt: skip

_tell: Callable[[], str] = lambda: STOPPED  # noqa: E731


def when_stopped(tell: Callable[[], str]) -> None:
    """Have a command that is stopped from now on say how it goes on.

    Args:
        tell: asked then, perhaps within a signal handler.
    """
    global _tell
    _tell = tell


def run(app: typer.Typer) -> NoReturn:
    """Run the command line and leave: exit code 2 with one line for what the user can mend, 130 for Ctrl-C, 143 for
    SIGTERM."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        code = app(standalone_mode=False)
        if code == INTERRUPTED:  # typer has caught it already
            raise KeyboardInterrupt
        sys.exit(code if isinstance(code, int) else 0)
    except RaydistillError as error:
        _fail(str(error))
    except USAGE_ERROR as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # no mistake, a question
            print(error.format_message(), file=sys.stderr)
            leave(2)
        _fail(f"{error.format_message()} (see raydistill --help)")
    except (KeyboardInterrupt, typer.Abort):
        _say_stopped()
        leave(INTERRUPTED)
    except SystemExit as leaving:
        if leaving.code != TERMINATED:
            raise
        leave(TERMINATED)
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        where = error.filename or "a file"
        _fail(f"cannot write {where}: {error.strerror}; free some space or choose another --out or cache_dir")


def leave(code: int) -> NoReturn:
    """At once: threads that still wait for a teacher have nothing to say any more."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _terminate(signum: int, frame: object) -> None:
    """As after Ctrl-C, everything is left in order on the way out; but where Ray's own processes were told to end, too,
    it may end this one before it is out."""
    _say_stopped()
    raise SystemExit(TERMINATED)


def _say_stopped() -> None:
    os.write(2, f"\n{_tell()}\n".encode())  # not `print`, which may be at work when the signal comes


def _fail(message: str) -> NoReturn:
    print(f"error: {presentable(' '.join(message.split()))}", file=sys.stderr)
    leave(2)
