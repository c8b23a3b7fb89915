"""A table's index.json: whose rows they are, how they are kept, and in which shards."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from raydistill.atomic import reason, replacing
from raydistill.errors import SoftLabelError
from raydistill.soft_labels.encoding import Encoding

FORMAT = 2
INDEX, LOCK, IN_USE = "index.json", "lock", "in_use"


@dataclass(frozen=True)
class LabelKey:
    """Whose word on what: changes with the teacher's weights, preparation or label order, with any row, and with
    the view."""

    teacher: str
    split: str
    view: int

    @property
    def text(self) -> str:
        """As it stands in a shard's header."""
        return f"{self.teacher}/{self.split}/{self.view}"

    @property
    def digest(self) -> str:
        """The name of the table's folder."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:24]


class BadIndex(SoftLabelError):
    """An index.json that is no index, or one of an older version."""


@dataclass(frozen=True)
class ShardEntry:
    """A shard as the index knows it."""

    file: str
    num_rows: int
    sha256: str
    bytes: int

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> ShardEntry:
        """From an index. Raises KeyError, TypeError or ValueError where it is none."""
        entry = cls(str(content["file"]), int(content["num_rows"]), str(content["sha256"]), int(content["bytes"]))
        # It is fetched to, and removed from, a place of that name.
        plain = re.fullmatch(r"[\w-][\w.-]*", entry.file) is not None
        if not plain or min(entry.num_rows, entry.bytes) < 0:
            raise ValueError(f"a shard like {content!r}")
        return entry


@dataclass(frozen=True)
class TableIndex:
    """The content of an index.json.

    Attributes:
        about: words for people: the names of the teacher, the task, the split.
        shards: earlier ones first; where two have the same row, the first counts.
        compact: all rows are known, sorted, each once.
        merged: names of shards whose rows are in others now; a copy of the store may still have them.
    """

    key: LabelKey
    num_rows: int
    encoding: Encoding
    about: Mapping[str, str] = field(default_factory=dict)
    shards: tuple[ShardEntry, ...] = ()
    compact: bool = False
    merged: tuple[str, ...] = ()

    def is_of(self, other: TableIndex) -> bool:
        """Whether rows of one may stand in the other."""
        return (self.key, self.num_rows, self.encoding) == (other.key, other.num_rows, other.encoding)

    def with_shards(self, *shards: ShardEntry, compact: bool = False, merged: tuple[str, ...] = ()) -> TableIndex:
        """These instead, and these more merged into them."""
        return replace(self, shards=shards, compact=compact, merged=() if compact else self.merged + merged)

    def __str__(self) -> str:
        about = ", ".join(f"{what} {name}" for what, name in self.about.items())
        view = f"view {self.key.view}"
        return f"{about}, {view}" if about else f"{self.key.teacher[:12]}, {self.key.split[:12]}, {view}"

    @property
    def size_bytes(self) -> int:
        """Of all shards."""
        return sum(shard.bytes for shard in self.shards)

    def to_json(self) -> dict[str, Any]:
        """What the file holds."""
        return {
            "format": FORMAT,
            "key": asdict(self.key),
            "about": dict(self.about),
            "num_rows": self.num_rows,
            "num_classes": self.encoding.num_classes,
            "encoding": self.encoding.to_json(),
            "compact": self.compact,
            "merged": list(self.merged),
            "shards": [asdict(shard) for shard in self.shards],
        }

    def dump(self) -> bytes:
        """The file."""
        return json.dumps(self.to_json(), indent=1).encode()

    @classmethod
    def from_json(cls, content: Any, where: str) -> TableIndex:
        """The other way round.

        Raises:
            SoftLabelError: a newer version wrote it. BadIndex: it is no index, or one of an older version.
        """
        try:
            version = int(content["format"])
            if version > FORMAT:
                raise SoftLabelError(
                    f"the soft labels in {where} were written by a newer raydistill (format {version}, this one knows "
                    f"{FORMAT}); upgrade, or set store.path to another folder"
                )
            if version < FORMAT:
                raise ValueError("of an older version")
            key = content["key"]
            return cls(
                LabelKey(str(key["teacher"]), str(key["split"]), int(key["view"])),
                int(content["num_rows"]),
                Encoding.from_json(int(content["num_classes"]), content["encoding"]),
                {str(what): str(name) for what, name in content["about"].items()},
                tuple(ShardEntry.from_json(shard) for shard in content["shards"]),
                bool(content["compact"]),
                tuple(str(name) for name in content["merged"]),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise BadIndex(f"{where} is not a table of soft labels ({type(error).__name__}: {error})") from error


def read_index(folder: Path) -> TableIndex | None:
    """Of a table; None where there is none. Errors as in `TableIndex.from_json`."""
    try:
        text = (folder / INDEX).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise SoftLabelError(f"cannot read the soft labels in {folder} ({reason(error)}); check store.path") from error
    return parse_index(text, str(folder))


def parse_index(text: str | bytes, where: str) -> TableIndex:
    """From the file's content. Errors as in `TableIndex.from_json`."""
    try:
        content = json.loads(text)
    except ValueError as error:
        raise BadIndex(f"the index of the soft labels in {where} is damaged") from error
    return TableIndex.from_json(content, where)


def write_index(folder: Path, index: TableIndex) -> None:
    """Replace it in one step; the caller holds the table's lock. Raises OSError."""
    with replacing(folder / INDEX) as temporary:
        temporary.write_bytes(index.dump())


Signature = tuple[int, int, int] | None


def signature(folder: Path) -> Signature:
    """Changes with every replacement of the index; None where there is none."""
    try:
        # Opened, because a shared file system may answer `stat` from its cache, but not after an `open`.
        descriptor = os.open(folder / INDEX, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        found = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    return found.st_ino, found.st_mtime_ns, found.st_size


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turns the errors of a full or read-only disk into the user's one line."""
    try:
        yield
    except OSError as error:
        raise SoftLabelError(
            f"cannot write soft labels to {folder} ({reason(error)}); free some space or set store.path"
        ) from error
