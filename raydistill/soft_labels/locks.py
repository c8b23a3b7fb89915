"""Locks between processes that end with their holder: a killed process never leaves one behind.

They are `flock`s, which hold on one machine and on shared POSIX file systems. A forked child gives up its parent's, so
that a parent's death is not hidden by its children.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import threading
import time
from pathlib import Path

_HELD: set[int] = set()
# No fork between an open and its entry in _HELD. Re-entrant: the garbage collector may release a lock at any time.
_FORKING = threading.RLock()
NO_WRITING = {errno.EACCES, errno.EPERM, errno.EROFS}


def _in_child() -> None:
    for descriptor in _HELD:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _HELD.clear()
    _FORKING.release()


os.register_at_fork(before=_FORKING.acquire, after_in_parent=_FORKING.release, after_in_child=_in_child)


class FileLock:
    """A lock that is held until it is released, dropped, or its process ends."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor
        self._process = os.getpid()

    def release(self) -> None:
        """Safe to call twice."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None and self._process == os.getpid():  # a forked child has closed it already
            _close(descriptor)

    def __del__(self) -> None:
        self.release()


def acquire(path: Path, shared: bool = False, wait_s: float = 0.0) -> FileLock | None:
    """Lock a file, made where it is missing; None where others hold it for longer than `wait_s`.

    Raises:
        OSError: it cannot be opened, or its file system has no locks.
    """
    give_up_at, pause_s = time.monotonic() + wait_s, 0.0005
    kind = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB
    while True:
        descriptor = _open(path, shared)
        try:
            fcntl.flock(descriptor, kind)
            if _is_at(descriptor, path):
                return FileLock(descriptor)
            refused = False  # it was removed meanwhile: lock the one that is there now
        except BlockingIOError:
            refused = True
        except BaseException:
            _close(descriptor)
            raise
        _close(descriptor)
        if refused:
            if time.monotonic() >= give_up_at:
                return None
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, 0.02)


def is_locked(path: Path) -> bool:
    """Whether somebody alive holds it exclusively; a file that is not there is held by nobody."""
    with _FORKING:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        _HELD.add(descriptor)
    try:
        # Shared: two that ask at the same time do not take each other for the holder.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        _close(descriptor)
    return False


def _open(path: Path, shared: bool) -> int:
    with _FORKING:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            if not shared or error.errno not in NO_WRITING:
                raise
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        _HELD.add(descriptor)
    return descriptor


def _close(descriptor: int) -> None:
    with _FORKING:
        os.close(descriptor)
        _HELD.discard(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    here = os.fstat(descriptor)
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)
