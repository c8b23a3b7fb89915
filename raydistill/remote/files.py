"""The files below one URL, through fsspec: the first answer bounded, each error one line that names the config key."""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import fsspec
from fsspec.spec import AbstractBufferedFile

from raydistill.atomic import replacing
from raydistill.errors import ConfigError, RaydistillError, RemoteError, first_line
from raydistill.remote import is_relative
from raydistill.secrecy import holds_secret, without_secrets

Result = TypeVar("Result")
REACHED_S = 60.0  # for the first answer
CHUNK = 2**22
# Where no reader ever sees half a file.
WHOLE_AT_ONCE = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oci", "oss", "memory"}
# What tells one content of a file from the next, by kind of storage; the first one that it has.
STAMPS = (
    "ETag", "etag", "md5Hash", "content_md5", "generation", "mtime", "LastModified", "last_modified", "updated",
    "timeModified", "created",
)  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """A file as a listing has it.

    Attributes:
        size: bytes.
        stamp: changes with the content, as far as the storage tells.
    """

    size: int
    stamp: str


class Remote:
    """What lies below a URL. Can be sent to other processes.

    Args:
        url: of a folder, or of a file.
        key: where the user said it, for errors: a config key, or an option.
        such_as: what one puts there, for the example in an error.
        failure: what storage that cannot be used raises.

    Attributes:
        moved_at: when something last went well, seconds of `time.monotonic`.

    Raises:
        ConfigError: it holds a password or a key, is of an unknown kind, or of one whose package is not installed.
        RemoteError: it cannot be used; so do all methods.
    """

    def __init__(
        self, url: str, key: str, such_as: str = "runs/demo", failure: type[RaydistillError] = RemoteError
    ) -> None:
        self.url, self.key, self.such_as, self.failure = url.rstrip("/"), key, such_as, failure
        self.moved_at = time.monotonic()
        if is_relative(url):
            raise ConfigError(f"{key} {url} is relative; write the whole path, with three strokes: file:///…")
        if holds_secret(url):
            raise ConfigError(
                f"{key} {without_secrets(url)} holds a password or a key; leave it out, and give it in the environment "
                "or in the provider's own config file"
            )
        try:
            self._files, self._root = fsspec.core.url_to_fs(self.url)
        except ImportError as error:
            raise ConfigError(f"{key} {url}: a package is missing for it ({first_line(error)})") from error
        except ValueError as error:
            raise ConfigError(
                f"{key} {url} is no URL that is known here ({first_line(error)}); give a folder, or a URL such as "
                f"s3://bucket/{such_as} or gs://bucket/{such_as}"
            ) from error
        except Exception as error:  # each kind of storage has its own
            raise self._unusable(error) from error

    def __reduce__(self) -> tuple[type[Remote], tuple[str, str, str, type[RaydistillError]]]:
        return Remote, (self.url, self.key, self.such_as, self.failure)

    def check(self) -> None:
        """One round trip, bounded.

        Raises:
            RemoteError: no answer, or a refusal.
        """
        outcome: list[BaseException | None] = []

        def look() -> None:
            try:
                self.names()
                outcome.append(None)
            except RaydistillError as error:
                outcome.append(error)

        # In a thread of its own: what does not answer may not even time out.
        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        thread.join(REACHED_S)
        if not outcome:
            raise self.failure(f"{self.key} {self.url} did not answer within {REACHED_S:.0f} s")
        if outcome[0] is not None:
            raise outcome[0]

    def names(self, *place: str) -> list[str]:
        """What lies in a folder, files and folders; empty where it is not there."""
        self._files.invalidate_cache()
        try:
            found = self.call(self._files.ls, self.at(*place), detail=False)
        except FileNotFoundError:
            return []
        return sorted(str(name).rstrip("/").rsplit("/", 1)[-1] for name in found)

    def find(self, *place: str) -> dict[str, Entry]:
        """The files in a folder and in all below it, by their path within it; the name of a file by itself is ``.
        Hidden ones, and names that lead out of the folder, are left out."""
        self._files.invalidate_cache()
        root = self.at(*place)
        try:
            found: dict[str, dict[str, Any]] = self.call(self._files.find, root, detail=True)
        except FileNotFoundError:
            return {}
        entries = {}
        for path, about in found.items():
            name = path[len(root) :].strip("/") if path.startswith(root) else path
            if path == root:  # a file by itself, of which some kinds of storage tell nothing here
                about = self.call(self._files.info, root)
            is_file = about.get("type", "file") == "file" and not path.endswith("/")  # some have objects for folders
            if is_file and (path == root or is_inside(name)):
                stamp = next((f"{key} {about[key]}" for key in STAMPS if about.get(key)), "")
                entries[name] = Entry(int(about.get("size") or 0), stamp)
        return entries

    def read(self, *place: str) -> bytes:
        """A small file.

        Raises:
            FileNotFoundError: it is not there.
        """
        self._files.invalidate_cache()
        content: bytes = self.call(self._files.cat_file, self.at(*place))
        return content

    def fetch(self, target: Path, *place: str, check: Callable[[Path], object] = lambda path: None) -> None:
        """Copy a file to `target`, whole or not at all.

        Args:
            check: looks at the copy first; what it raises is raised.

        Raises:
            FileNotFoundError: it is not there. OSError: `target` cannot be written.
        """
        with replacing(target) as temporary:
            with temporary.open("wb") as file:
                stream = self.call(self._files.open, self.at(*place), "rb")
                with stream:
                    while chunk := self.call(stream.read, CHUNK):
                        file.write(chunk)
            check(temporary)

    def write(self, content: bytes, *place: str) -> None:
        """Make or replace a small file."""
        self._put(self.at(*place), lambda stream: stream.write(content))

    def send(self, file: BinaryIO, *place: str) -> None:
        """Make or replace a file from an open one."""
        self._put(self.at(*place), lambda stream: self._copy(file, stream))

    def remove(self, *place: str) -> None:
        """Take a file away. Where that fails, room is lost and nothing else."""
        with contextlib.suppress(self.failure):
            self.delete(*place)

    def delete(self, *place: str) -> None:
        """Take a file away for sure; it need not be there."""
        with contextlib.suppress(FileNotFoundError):
            self.call(self._files.rm_file, self.at(*place))

    def at(self, *place: str) -> str:
        """As fsspec wants it."""
        return "/".join([self._root.rstrip("/"), *place])

    def call(self, function: Callable[..., Result], *arguments: object, **options: object) -> Result:
        """What the function gives; its errors in one line, but for FileNotFoundError."""
        try:
            result = function(*arguments, **options)
        except FileNotFoundError:
            raise
        except Exception as error:  # each kind of storage has its own
            raise self._unusable(error) from error
        self.moved_at = time.monotonic()
        return result

    def _put(self, target: str, fill: Callable[[Any], object]) -> None:
        """Under another name first where a reader would see half of it."""
        protocol = self._files.protocol
        whole = not WHOLE_AT_ONCE.isdisjoint([protocol] if isinstance(protocol, str) else protocol)
        folder, name = target.rsplit("/", 1)
        place = target if whole else f"{folder}/.{name}.{uuid.uuid4().hex[:8]}"

        def put() -> None:
            if not whole:  # elsewhere there are no folders, and a bucket that is misspelt is not made
                self._files.makedirs(folder, exist_ok=True)
            stream = self._files.open(place, "wb")
            try:
                fill(stream)
            except BaseException:
                self._give_up(stream, place)
                raise
            stream.close()
            if place != target:
                self._files.mv(place, target)

        try:
            self.call(put)
        except FileNotFoundError as error:
            raise self._unusable(error) from error

    def _give_up(self, stream: Any, place: str) -> None:
        """A file that is closed, as the end of a `with` would, appears with what it has got so far."""
        with contextlib.suppress(Exception):
            if isinstance(stream, AbstractBufferedFile):
                stream.closed = True
                stream.discard()
            else:
                stream.close()
                self._files.rm_file(place)

    def _copy(self, source: BinaryIO, target: Any) -> None:
        while chunk := source.read(CHUNK):
            target.write(chunk)
            self.moved_at = time.monotonic()

    def _unusable(self, error: BaseException) -> RaydistillError:
        return self.failure(f"{self.key} {self.url} cannot be used ({first_line(error)}); check it and the network")


def is_inside(name: str) -> bool:
    """Whether a relative name stays in its folder, and is not hidden: at a URL a name may be anything."""
    parts = name.split("/")
    return not any(not part or part.startswith(".") or "\\" in part or "\0" in part for part in parts)
