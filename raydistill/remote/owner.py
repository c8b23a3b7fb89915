"""Whose a folder at a URL is: one command writes it at a time, wherever it runs.

Storage at a URL has no locks. The owner has a file there, `owner.json`, with a number that grows while he lives; who
comes watches whether it does, so that clocks need not agree. An owner finds out by the same file that somebody took him
for dead.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

from raydistill.errors import ConfigError, RemoteError
from raydistill.remote.files import Remote

OWNER = "owner.json"
BEAT_S, DEAD_S, LOOK_S = 5.0, 25.0, 1.0
SETTLE_S = 1.0  # two who come at once: the later one's word stands by then
LONG_AGO_S = 3_600.0  # no clocks differ by so much


class Disowned(RemoteError):
    """Somebody else works on it now."""


@dataclass(frozen=True)
class Card:
    """What stands in the file.

    Attributes:
        id: of one command.
        copy: of the working copy that it works in.
        beat: grows.
        at: seconds since 1970, by the owner's clock.
    """

    id: str
    copy: str
    host: str
    pid: int
    beat: int
    at: float

    @property
    def who(self) -> str:
        """For people."""
        return f"process {self.pid} on {self.host}"


class Owner:
    """This command as a folder's owner.

    Args:
        remote: the folder.
        copy: name of the working copy. Whoever has it is alone in it, so that another owner who worked there is dead.
        say: hears that it has to be waited, and that ownership was lost.
    """

    def __init__(self, remote: Remote, copy: str, say: Callable[[str], None] = lambda text: None) -> None:
        self._remote, self.say = remote, say
        self._card = Card(uuid.uuid4().hex, copy, socket.gethostname(), os.getpid(), 0, time.time())
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self.lost_to: str | None = None

    @property
    def id(self) -> str:
        """Of this command: see `check_owner`."""
        return self._card.id

    def take(self) -> None:
        """Own the folder from now on, until `release`.

        Raises:
            ConfigError: another one does, and lives. RemoteError: the URL cannot be used.
        """
        there = read_card(self._remote)
        if there is not None and there.copy != self._card.copy and self._lives(there):
            raise self._refused(there)
        self._write()
        time.sleep(SETTLE_S)
        there = read_card(self._remote)
        if there is None or there.id != self.id:
            raise self._refused(there or self._card)
        self._thread = threading.Thread(target=self._beat, name="owner", daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Give the folder back."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(BEAT_S)
        with contextlib.suppress(RemoteError):
            there = read_card(self._remote)
            if there is not None and there.id == self.id:
                self._remote.remove(OWNER)

    def _lives(self, there: Card) -> bool:
        if time.time() - there.at > LONG_AGO_S:
            return False
        self.say(f"{self._remote.url} was last written by {there.who}: looking for {DEAD_S:.0f} s whether it still is")
        ends = time.monotonic() + DEAD_S
        while time.monotonic() < ends:
            time.sleep(LOOK_S)
            now = read_card(self._remote)
            if now is None:
                return False
            if now != there:
                return True
        return False

    def _refused(self, there: Card) -> ConfigError:
        return ConfigError(
            f"{there.who} is writing {self._remote.url}; wait for it, or choose another {self._remote.key}"
        )

    def _write(self) -> None:
        self._card = replace(self._card, beat=self._card.beat + 1, at=time.time())
        self._remote.write(json.dumps(asdict(self._card)).encode(), OWNER)

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_S):
            with contextlib.suppress(RemoteError):  # who copies to the URL tells of it
                there = read_card(self._remote)
                if there is not None and there.id != self.id:
                    self.lost_to = there.who
                    self.say(
                        f"{there.who} has taken over {self._remote.url}: nothing is copied there any more; what this "
                        "command does stays here"
                    )
                    return
                self._write()


def read_card(remote: Remote) -> Card | None:
    """The owner's; None where there is none, or none that can be read.

    Raises:
        RemoteError: the URL cannot be used.
    """
    try:
        card = Card(**json.loads(remote.read(OWNER)))
        return replace(card, pid=int(card.pid), beat=int(card.beat), at=float(card.at))
    except (FileNotFoundError, ValueError, TypeError, OverflowError):
        return None


def check_owner(remote: Remote, owner: str) -> None:
    """Whether a command still owns the folder that it sent this process to work for.

    Raises:
        Disowned: another one does, or none.
    """
    there = read_card(remote)
    if there is None or there.id != owner:
        who = "nobody" if there is None else there.who
        raise Disowned(f"{remote.url} belongs to {who} now, not to the command that began this training; it ends")
