"""A finding of the doctor's, and how a check is run so that it neither hangs nor crashes anything else."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from raydistill.errors import RaydistillError, first_line
from raydistill.secrecy import presentable

GRACE_S = 5.0  # for a script to tidy up when its time is over
Told = dict[str, Any]
"""What a script told, by name."""


class Level(Enum):
    """How well something is, and its mark."""

    GOOD = "✓"
    WARNING = "!"
    ERROR = "✗"


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's.

    Attributes:
        name: what was looked at.
        fix: what to do; empty where all is well.
    """

    name: str
    level: Level
    text: str
    fix: str = ""

    @property
    def is_error(self) -> bool:
        """A run would fail of it."""
        return self.level is Level.ERROR

    def __post_init__(self) -> None:
        for key in ("text", "fix"):
            object.__setattr__(self, key, " ".join(presentable(getattr(self, key)).split()))


def good(name: str, text: str) -> Finding:
    """All is well."""
    return Finding(name, Level.GOOD, text)


def warning(name: str, text: str, fix: str = "") -> Finding:
    """It works, and may hurt."""
    return Finding(name, Level.WARNING, text, fix)


def bad(name: str, text: str, fix: str = "") -> Finding:
    """A run would fail, or give something wrong."""
    return Finding(name, Level.ERROR, text, fix)


def checked(name: str, check: Callable[[], list[Finding]], limit_s: float) -> list[Finding]:
    """The findings of a check; one that fails, or takes longer than `limit_s`, is a finding itself."""
    outcome: list[list[Finding]] = []

    def run() -> None:
        try:
            outcome.append(check())
        except RaydistillError as error:
            text, _, fix = str(error).partition("; ")
            outcome.append([bad(name, text, fix)])
        except Exception as error:  # noqa: BLE001 (whatever it is, the other checks go on)
            outcome.append([bad(name, f"the check itself failed ({first_line(error)})")])

    # What hangs in a file system cannot be stopped; it can be left behind.
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(limit_s)
    return outcome[0] if outcome else [bad(name, f"no answer within {limit_s:.0f} s")]


def run_script(
    script: Path, request: Mapping[str, Any], limit_s: float, environment: Mapping[str, str] | None = None
) -> tuple[Told, str]:
    """What a script in a process of its own tells: JSON objects on its standard output, one a line.

    Args:
        request: what it reads from its standard input.
        limit_s: after which it is ended, with all that it started.
        environment: what is different in it.

    Returns:
        All that it told until it ended, and why it ended before it had told `done`; empty where it did not.
    """
    try:
        process = subprocess.Popen(
            # -P, and from nowhere: no file that lies about here is taken for a module.
            [sys.executable, "-P", str(script)], cwd="/", stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, start_new_session=True, env={**os.environ, **(environment or {})},
        )  # fmt: skip
    except OSError as error:
        return {}, f"no process can be started ({first_line(error)})"
    late = False
    try:
        output, errors = process.communicate(json.dumps(request), timeout=limit_s)
    except subprocess.TimeoutExpired:
        late = True
        output, errors = _end(process)
    except BaseException:
        _end(process)
        raise
    told: Told = {}
    for line in output.splitlines():
        with contextlib.suppress(ValueError, TypeError):
            told |= json.loads(line)
    if told.get("done"):
        return told, ""
    if late:
        return told, f"no answer within {limit_s:.0f} s"
    last = (errors.strip().splitlines() or [f"exit status {process.returncode}"])[-1]
    return told, f"its process ended with status {process.returncode}: {last[:200]}"


def _end(process: subprocess.Popen[str]) -> tuple[str, str]:
    for kind in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, kind)
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=GRACE_S)
    return "", ""  # it hangs where no signal reaches it
