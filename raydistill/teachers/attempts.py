"""How often a batch was begun and never ended: whoever retries it without end can be told that it is hopeless."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

MOST = 3


class Attempts:
    """Counts on disk, since who dies of a batch takes his memory with him. Can be sent to workers.

    Args:
        folder: that all workers see.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextlib.contextmanager
    def counted(self, batch: str) -> Iterator[int]:
        """One attempt; gives how many processes have died of the batch before.

        Args:
            batch: its name, good for a file.
        """
        mark = self.folder / batch
        with contextlib.suppress(OSError):  # where nothing can be written, nothing is counted
            self.folder.mkdir(parents=True, exist_ok=True)
            with mark.open("ab") as file:
                file.write(b".")
        try:
            yield max(0, _size(mark) - 1)
        finally:
            with contextlib.suppress(OSError):
                mark.unlink(missing_ok=True)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
