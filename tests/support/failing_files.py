"""A file system that fails while a test wants it to: `flaky://` is `file://` with a switch."""

from __future__ import annotations

from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem


class FlakyFiles(LocalFileSystem):
    """Every call that writes fails while `broken` says why; `left` of them go through before that."""

    protocol = ("flaky",)
    broken: str = ""
    left: int = 0
    written: list[str] = []  # noqa: RUF012 (of the class: fsspec makes one object for all)

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        return LocalFileSystem._strip_protocol(str(path).replace("flaky://", "file://"))

    def _check(self) -> None:
        if FlakyFiles.broken and FlakyFiles.left <= 0:
            raise TimeoutError(FlakyFiles.broken)
        FlakyFiles.left -= 1

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        if "w" in mode:
            self._check()
        return super()._open(path, mode, **options)

    def mv(self, path1: str, path2: str, **options: Any) -> None:
        super().mv(path1, path2, **options)
        FlakyFiles.written.append(path2)


def reset() -> None:
    """Well again, nothing written."""
    FlakyFiles.broken, FlakyFiles.left, FlakyFiles.written = "", 0, []


fsspec.register_implementation("flaky", FlakyFiles, clobber=True)
