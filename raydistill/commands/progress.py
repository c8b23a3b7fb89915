"""What the user sees while it runs: the phase, a live line, and the same in the run's log."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any, TextIO

from raydistill.secrecy import presentable

QUIET_S = 5.0  # between two lines of one phase where the output is not a terminal


class Progress:
    """Prints to stderr; a terminal sees one line that changes, a file gets a line every few seconds.

    Calling it is live progress; `say` stays on the screen.
    """

    def __init__(self, log: Path | None = None) -> None:
        self._began = time.monotonic()
        self._began_at = time.time()
        self._live = sys.stderr.isatty()
        self._shown_at = 0.0
        self._width = 0
        self.events: list[dict[str, Any]] = []
        self._log: TextIO | None = None
        if log is not None:
            log.parent.mkdir(parents=True, exist_ok=True)
            self._log = log.open("a", encoding="utf-8")

    @property
    def elapsed_s(self) -> float:
        """Since the command began."""
        return time.monotonic() - self._began

    def say(self, message: str) -> None:
        """A line that stays."""
        message = presentable(message)
        self._clear()
        line = f"[{int(self.elapsed_s) // 60:02d}:{int(self.elapsed_s) % 60:02d}] {message}"
        print(line, file=sys.stderr, flush=True)
        self.note(message)
        self._shown_at = time.monotonic()

    def event(self, message: str) -> None:
        """A line that stays, and that the report tells too: something was resumed, lost or made again."""
        self.events.append({"at_s": round(self.elapsed_s, 3), "what": presentable(message)})
        self.say(message)

    def happened(self, at: float, what: str) -> None:
        """Something that the report tells with its own time, in seconds since the epoch; it has been said already."""
        self.events.append({"at_s": round(at - self._began_at, 3), "what": presentable(what)})
        self.events.sort(key=lambda event: event["at_s"])

    def note(self, message: str) -> None:
        """For the run's log alone."""
        if self._log:
            self._log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {presentable(message)}\n")
            self._log.flush()

    def __call__(self, message: str) -> None:
        """Live progress: replaces the last."""
        now = time.monotonic()
        if self._live and now - self._shown_at > 0.1:
            self._clear()
            text = f"        {presentable(message)}"[:110]
            sys.stderr.write(text)
            sys.stderr.flush()
            self._width, self._shown_at = len(text), now
        elif not self._live and now - self._shown_at > QUIET_S:
            self.say(message)

    def _clear(self) -> None:
        if self._width:
            sys.stderr.write("\r" + " " * self._width + "\r")
            self._width = 0

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the live line and the log."""
        self._clear()
        if self._log:
            self._log.close()
            self._log = None
