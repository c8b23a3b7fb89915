"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import shutil
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary place beside `path` for a file or a folder.

    It takes the place of `path` when the block ends well and vanishes when it does not: a reader sees the old content
    or the new one, never half of it.

    Raises:
        OSError: it cannot be written. torch and safetensors report a full disk in their own ways; here it is one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The process id would not do: containers that share a cache number their processes alike.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}")
    _remove(temporary)
    try:
        yield temporary
        if temporary.is_dir():
            _remove(path)  # a folder cannot replace one that is not empty
        temporary.replace(path)
    except SafetensorError as error:
        raise OSError(errno.EIO, str(error)) from error
    except RuntimeError as error:
        if "PytorchStreamWriter" not in str(error) and "unexpected pos" not in str(error):
            raise
        raise OSError(errno.ENOSPC, "the disk is full, or a limit on the size of files is reached") from error
    finally:
        _remove(temporary)


def as_others(path: Path) -> None:
    """Give a file the permissions of any new one: safetensors makes its own for their owner alone, and caches are
    shared."""
    sample = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}")
    sample.touch()
    try:
        path.chmod(stat.S_IMODE(sample.stat().st_mode))
    finally:
        sample.unlink()


def reason(error: OSError) -> str:
    """What went wrong, in words."""
    return (error.strerror or str(error)).splitlines()[0]


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()
