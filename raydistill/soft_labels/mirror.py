"""A store at a URL (fsspec: s3://, gs://, file://, memory://, …), behind the folder that this machine works in."""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import fsspec

from raydistill.atomic import replacing
from raydistill.errors import ConfigError, SoftLabelError, first_line
from raydistill.soft_labels.index import INDEX, ShardEntry, TableIndex, parse_index
from raydistill.soft_labels.shards import check_shard

Result = TypeVar("Result")
REACHED_S = 60.0  # for the first answer
# Where no reader ever sees half a file.
WHOLE_AT_ONCE = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oci", "oss", "memory"}


class Mirror:
    """Where the tables are kept for good.

    Args:
        url: of the store's root.

    Raises:
        ConfigError: an unknown kind of URL, or one whose package is not installed.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self.damaged: set[ShardEntry] = set()
        try:
            self._files, self._root = fsspec.core.url_to_fs(self.url)
        except ImportError as error:
            raise ConfigError(f"store.path {url}: a package is missing for it ({first_line(error)})") from error
        except ValueError as error:
            raise ConfigError(
                f"store.path {url} is no URL that is known here ({first_line(error)}); give a folder, or a URL such as "
                "s3://bucket/labels or gs://bucket/labels"
            ) from error
        except Exception as error:  # each kind of storage has its own
            raise self._unreachable(error) from error

    def __reduce__(self) -> tuple[type[Mirror], tuple[str]]:
        return Mirror, (self.url,)

    def check(self) -> None:
        """One round trip.

        Raises:
            SoftLabelError: no answer, or a refusal.
        """
        outcome: list[BaseException | None] = []

        def look() -> None:
            try:
                self.tables()
                outcome.append(None)
            except SoftLabelError as error:
                outcome.append(error)

        # In a thread of its own: what does not answer may not even time out.
        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        thread.join(REACHED_S)
        if not outcome:
            raise SoftLabelError(f"store.path {self.url} did not answer within {REACHED_S:.0f} s")
        if outcome[0] is not None:
            raise outcome[0]

    def tables(self) -> list[str]:
        """Digests of the tables that are there."""
        self._files.invalidate_cache()
        try:
            names = self._call(self._files.ls, self._root, detail=False)
        except FileNotFoundError:
            return []
        return sorted(str(name).rstrip("/").rsplit("/", 1)[-1] for name in names)

    def index(self, digest: str) -> TableIndex | None:
        """Of a table; None where it is not there. Errors as in `read_index`."""
        self._files.invalidate_cache()
        try:
            content = self._call(self._files.cat_file, self._at(digest, INDEX))
        except FileNotFoundError:
            return None
        return parse_index(content, f"{self.url}/{digest}")

    def fetch(self, folder: Path, entry: ShardEntry) -> None:
        """Copy a shard of the folder's table into the folder, whole and checked, or not at all.

        Raises:
            FileNotFoundError: it is gone. DamagedShard: its checksum is wrong. SoftLabelError: no answer. OSError: the
            folder cannot be written.
        """
        with replacing(folder / entry.file) as temporary:
            with temporary.open("wb") as file:
                stream = self._call(self._files.open, self._at(folder.name, entry.file), "rb")
                with stream:
                    while chunk := self._call(stream.read, 2**22):
                        file.write(chunk)
            check_shard(temporary, entry)

    def send(self, folder: Path, entry: ShardEntry) -> None:
        """Copy a shard of the folder's table to the URL. Errors as in `fetch`."""
        with (folder / entry.file).open("rb") as file:
            self._put(self._at(folder.name, entry.file), lambda stream: _copy(file, stream))

    def write_index(self, digest: str, index: TableIndex) -> None:
        """Replace a table's index. Errors as in `index`."""
        content = index.dump()
        self._put(self._at(digest, INDEX), lambda stream: stream.write(content))

    def remove(self, digest: str, file: str) -> None:
        """Take a shard away that no index names any more. Where that fails, room is lost and nothing else."""
        with contextlib.suppress(FileNotFoundError, SoftLabelError):
            self._call(self._files.rm_file, self._at(digest, file))

    def _put(self, target: str, fill: Callable[[Any], object]) -> None:
        """Under another name first where a reader would see half of it."""
        protocol = self._files.protocol
        whole = not WHOLE_AT_ONCE.isdisjoint([protocol] if isinstance(protocol, str) else protocol)
        place = target if whole else f"{target}.{uuid.uuid4().hex[:8]}"

        def put() -> None:
            self._files.makedirs(target.rsplit("/", 1)[0], exist_ok=True)
            with self._files.open(place, "wb") as stream:
                fill(stream)
            if place != target:
                self._files.mv(place, target)

        self._call(put)

    def _at(self, *names: str) -> str:
        return "/".join([self._root.rstrip("/"), *names])

    def _call(self, function: Callable[..., Result], *arguments: object, **options: object) -> Result:
        try:
            return function(*arguments, **options)
        except FileNotFoundError:
            raise
        except Exception as error:  # each kind of storage has its own
            raise self._unreachable(error) from error

    def _unreachable(self, error: BaseException) -> SoftLabelError:
        return SoftLabelError(f"store.path {self.url} cannot be used ({first_line(error)}); check it and the network")


def _copy(source: Any, target: Any) -> None:
    while chunk := source.read(2**22):
        target.write(chunk)
