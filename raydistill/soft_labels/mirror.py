"""A store at a URL (fsspec: s3://, gs://, file://, memory://, …), behind the folder that this machine works in."""

from __future__ import annotations

from pathlib import Path

from raydistill.errors import SoftLabelError
from raydistill.remote.files import Remote
from raydistill.soft_labels.index import INDEX, ShardEntry, TableIndex, parse_index
from raydistill.soft_labels.shards import check_shard


class Mirror:
    """Where the tables are kept for good.

    Args:
        url: of the store's root.

    Raises:
        ConfigError: an unknown kind of URL, or one whose package is not installed.
    """

    def __init__(self, url: str) -> None:
        self._remote = Remote(url, "store.path", "labels", SoftLabelError)
        self.url = self._remote.url
        self.damaged: set[ShardEntry] = set()

    def __reduce__(self) -> tuple[type[Mirror], tuple[str]]:
        return Mirror, (self.url,)

    def check(self) -> None:
        """One round trip.

        Raises:
            SoftLabelError: no answer, or a refusal.
        """
        self._remote.check()

    def tables(self) -> list[str]:
        """Digests of the tables that are there."""
        return self._remote.names()

    def index(self, digest: str) -> TableIndex | None:
        """Of a table; None where it is not there. Errors as in `read_index`."""
        try:
            content = self._remote.read(digest, INDEX)
        except FileNotFoundError:
            return None
        return parse_index(content, f"{self.url}/{digest}")

    def fetch(self, folder: Path, entry: ShardEntry) -> None:
        """Copy a shard of the folder's table into the folder, whole and checked, or not at all.

        Raises:
            FileNotFoundError: it is gone. DamagedShard: its checksum is wrong. SoftLabelError: no answer. OSError: the
            folder cannot be written.
        """
        self._remote.fetch(folder / entry.file, folder.name, entry.file, check=lambda copy: check_shard(copy, entry))

    def send(self, folder: Path, entry: ShardEntry) -> None:
        """Copy a shard of the folder's table to the URL. Errors as in `fetch`."""
        with (folder / entry.file).open("rb") as file:
            self._remote.send(file, folder.name, entry.file)

    def write_index(self, digest: str, index: TableIndex) -> None:
        """Replace a table's index. Errors as in `index`."""
        self._remote.write(index.dump(), digest, INDEX)

    def remove(self, digest: str, file: str) -> None:
        """Take a shard away that no index names any more. Where that fails, room is lost and nothing else."""
        self._remote.remove(digest, file)
