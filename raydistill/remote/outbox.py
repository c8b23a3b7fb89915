"""A folder whose files are copied to a URL as they change: whole files, what others rely on first."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from raydistill.remote.files import Remote

Stamp = tuple[int, int]
"""Size in bytes, and time of the last change in nanoseconds."""

# In this order, and after all others: each says something of files that are there by then.
LAST = ("latest.pt", "config.yaml", "report.json")


class Outbox:
    """Knows of every file what was last copied, and copies what is another one now. Safe in threads.

    Files are opened in the opposite order of copying: `latest.pt` before `best.pt`, which is written first, so that
    what arrives is never a checkpoint with the best student of an older one. A file that is replaced meanwhile is
    still read as it was.

    Args:
        folder: here. Hidden files stay here.
        remote: there.
        skips: whether a file, by its path in the folder, is none of this outbox's business.
    """

    def __init__(self, folder: Path, remote: Remote, skips: Callable[[str], bool] = lambda name: False) -> None:
        self.folder, self.remote, self._skips = folder, remote, skips
        self.sent: dict[str, Stamp] = {}
        self._turn = threading.RLock()

    def send(self) -> bool:
        """Copy what has changed; whether anything had.

        Raises:
            RemoteError: the URL cannot be used. What has been copied until then is not copied again.
        """
        with self._turn, contextlib.ExitStack() as stack:
            opened: list[tuple[str, BinaryIO, Stamp]] = []
            for name in reversed(self.changed()):
                with contextlib.suppress(OSError):  # it has just gone
                    source = stack.enter_context((self.folder / name).open("rb"))
                    opened.append((name, source, _stamp(os.fstat(source.fileno()))))
            for name, file, stamp in reversed(opened):
                self.remote.send(file, *name.split("/"))
                self.sent[name] = stamp
        return bool(opened)

    def changed(self) -> list[str]:
        """What is to be copied, in the order of copying."""
        return sorted(
            (name for name, stamp in self.here().items() if self.sent.get(name) != stamp),
            key=lambda name: (LAST.index(_last(name)) if _last(name) in LAST else -1, name),
        )

    def here(self) -> dict[str, Stamp]:
        """The folder's files, by path."""
        found: dict[str, Stamp] = {}
        self._walk(self.folder, "", found)
        return found

    @property
    def urgent(self) -> bool:
        """A checkpoint waits to be copied."""
        return any(_last(name) == LAST[0] for name in self.changed())

    def _walk(self, folder: Path, prefix: str, found: dict[str, Stamp]) -> None:
        # A folder's own files before those in its folders: a report that is seen has all that was written before it.
        folders = []
        for entry in _entries(folder):
            name = f"{prefix}{entry.name}"
            if entry.name.startswith("."):
                continue
            with contextlib.suppress(OSError):
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.name)
                elif entry.is_file() and not self._skips(name):
                    found[name] = _stamp(entry.stat())
        for each in folders:
            self._walk(folder / each, f"{prefix}{each}/", found)


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        yield from entries


def _stamp(status: os.stat_result) -> Stamp:
    return status.st_size, status.st_mtime_ns


def _last(name: str) -> str:
    return name.rsplit("/", 1)[-1]
