"""Folders that a command writes: nobody else's meanwhile, and files that are there whole or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from raydistill.atomic import reason, replacing
from raydistill.errors import ConfigError


@contextlib.contextmanager
def owned(path: Path, called: str | None = None) -> Iterator[None]:
    """A folder, made where it is not there, that no other process writes for as long as the block lasts.

    Args:
        called: what the user knows it by.

    Raises:
        ConfigError: another one writes it, or it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path / ".lock", timeout=0)
        lock.acquire()
    except Timeout:
        raise ConfigError(
            f"another process is writing {called or path}; wait for it, or choose another --out"
        ) from None
    except OSError as error:
        raise ConfigError(f"cannot write to {path}: {error.strerror}; choose another --out") from error
    try:
        yield
    finally:
        # While it is ours: whoever has it open sees that it is gone, and takes a new one.
        (path / ".lock").unlink(missing_ok=True)
        lock.release()


def write_atomically(path: Path, text: str) -> None:
    """The file appears whole or not at all.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {reason(error)}; free some space or choose another --out") from error
