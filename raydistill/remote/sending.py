"""Copies a folder to its URL while somebody works in it: now and then, at each checkpoint, and in the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from raydistill.errors import RaydistillError, RemoteError
from raydistill.remote.outbox import Outbox

LOOK_S = 2.0  # for a checkpoint
AT_MOST = 0.1  # share of the time that copying takes, but for checkpoints
SAY_AGAIN_S = 300.0
QUIET_S = 60.0  # without a sign of life
PAUSES_S = (0.0, 2.0, 5.0, 15.0, 30.0)  # before each attempt, in the end


class Sender:
    """Runs from `start` to `finish`.

    Args:
        outbox: what is copied.
        every_s: between two copies of what is no checkpoint.
        say: hears of a URL that cannot be used, and that it can be again.
        look_s: between two looks for a checkpoint.
        stops: why nothing is to be copied any more; asked before each copy.
    """

    def __init__(
        self,
        outbox: Outbox,
        every_s: float,
        say: Callable[[str], None],
        look_s: float = LOOK_S,
        stops: Callable[[], str | None] = lambda: None,
    ) -> None:
        self.say = say
        self._outbox, self._every_s, self._look_s, self._stops = outbox, every_s, look_s, stops
        self._ended = threading.Event()
        self._failing_since: float | None = None
        self._said_at = 0.0
        self._thread = threading.Thread(target=self._run, name="sender", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def finish(self, hurry: bool = False) -> None:
        """Copy what is left and end.

        Args:
            hurry: somebody waits for the command to end: fewer attempts.

        Raises:
            RemoteError: not all could be copied; says where it lies.
        """
        self._ended.set()
        failed: list[str] = []

        def last() -> None:
            if self._thread.ident is not None:
                self._thread.join()
            for pause_s in PAUSES_S[: 2 if hurry else None]:
                time.sleep(pause_s)
                failed[:] = [problem] if (problem := self._try()) else []
                if not failed or self._stops():
                    return

        thread = threading.Thread(target=last, name="last-copy", daemon=True)
        thread.start()
        remote, began = self._outbox.remote, time.monotonic()
        while thread.is_alive():
            thread.join(0.05)
            if time.monotonic() - max(began, remote.moved_at) > QUIET_S + max(PAUSES_S):
                failed[:] = [f"{remote.key} {remote.url} does not answer"]
                break
        if failed:
            raise RemoteError(f"{failed[0]}; nothing is lost: what was not copied lies in {self._outbox.folder}")

    def _run(self) -> None:
        next_at = time.monotonic() + self._every_s
        while not self._ended.wait(self._look_s):
            if time.monotonic() < next_at and not (self._outbox.urgent and self._failing_since is None):
                continue
            began = time.monotonic()
            self._tell(self._try())
            took_s = time.monotonic() - began
            next_at = began + max(self._every_s, took_s / AT_MOST)

    def _try(self) -> str | None:
        """One attempt; what went wrong."""
        if reason := self._stops():
            return reason
        try:
            self._outbox.send()
        except (RaydistillError, OSError) as error:
            return str(error)
        return None

    def _tell(self, problem: str | None) -> None:
        now, url = time.monotonic(), self._outbox.remote.url
        if problem is None or self._stops():
            if self._failing_since is not None and problem is None:
                self.say(f"{url} can be used again: all is copied, after {now - self._failing_since:.0f} s")
            self._failing_since = None
            return
        if self._failing_since is None or now - self._said_at > SAY_AGAIN_S:
            self._said_at = now
            self.say(f"{problem}: copying is tried again and again; meanwhile all lies in {self._outbox.folder}")
        self._failing_since = self._failing_since or now


def patiently(function: Callable[[], object]) -> None:
    """Several attempts, for what others wait for.

    Raises:
        RemoteError: the last one's.
    """
    for attempt, pause_s in enumerate(PAUSES_S[:4], start=1):
        time.sleep(pause_s)
        try:
            function()
            return
        except RemoteError:
            if attempt == len(PAUSES_S[:4]):
                raise
