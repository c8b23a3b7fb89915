"""A data set at a URL: fetched once into the cache, and read from there like any other one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from filelock import FileLock

from raydistill.atomic import reason, replacing
from raydistill.config.data import TaskConfig
from raydistill.errors import DataError
from raydistill.remote import is_url
from raydistill.remote.files import Entry, Remote

AT_ONCE, SAY_EVERY = 16, 200  # files
NAME_FILES = ("csv", "json")  # a table of pictures or sounds names files that lie in its folder: all of that is fetched


class DataAtUrl:
    """A task's files at a URL, as they are listed now.

    Args:
        name: the task's.

    Raises:
        ConfigError: the URL is of no use. DataError: it cannot be reached, or nothing is there.
    """

    def __init__(self, name: str, task: TaskConfig) -> None:
        config = task.data
        assert config.path is not None
        self._name, self._source, self.url = name, config.source, config.path.rstrip("/")
        self._remote = self._at(self.url)
        self._remote.check()
        self._files = self._remote.find()
        if not self._files:
            raise DataError(
                f"task {name!r}: cannot read {config.source} {self.url!r}: no such file or folder, or an empty one; "
                f"mend tasks.{name}.data.path"
            )
        self._alone = list(self._files) == [""]
        folder, _, file = self.url.rpartition("/")
        self._table = file if self._alone else ""
        if self._alone and task.domain != "text" and config.source in NAME_FILES:
            self._remote = self._at(folder)
            self._files, self._alone = self._remote.find(), False

    @property
    def identity(self) -> str:
        """Changes with the content, as far as the storage tells: by size and etag, checksum or time of each file."""
        content = [self.url, sorted((name, file.size, file.stamp) for name, file in self._files.items())]
        return f"{self._source} {self.url} {hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]}"

    def fetched(self, cache_dir: Path, progress: Callable[[str], None]) -> Path:
        """The file or the folder, in the cache; copied there where it is not yet.

        Raises:
            DataError: it changes meanwhile, cannot be reached, or the cache cannot be written.
        """
        folder = cache_dir / "raw" / f"url-{hashlib.sha256(self.identity.encode()).hexdigest()[:16]}"
        if not folder.is_dir():
            try:
                folder.parent.mkdir(parents=True, exist_ok=True)
                with FileLock(folder.with_suffix(".lock")):
                    if not folder.is_dir():
                        with replacing(folder) as temporary:
                            temporary.mkdir()
                            self._fetch(temporary, progress)
            except OSError as error:
                raise DataError(
                    f"cannot store {self.url} in {folder.parent}: {reason(error)}; free some space or set cache_dir"
                ) from error
        return folder / self._table if self._table else folder

    def _fetch(self, folder: Path, progress: Callable[[str], None]) -> None:
        size = sum(file.size for file in self._files.values())
        progress(f"fetching {self._remote.url} ({len(self._files):,} files, {size >> 20:,} MiB)")
        # Small files take a round trip each, and nothing else.
        pool = ThreadPoolExecutor(AT_ONCE)
        try:
            jobs = [
                pool.submit(self._fetch_one, folder / (name or self._table), name, file)
                for name, file in sorted(self._files.items())
            ]
            for number, job in enumerate(jobs):
                if number and number % SAY_EVERY == 0:
                    progress(f"fetching {self._remote.url}: {number:,}/{len(self._files):,} files")
                job.result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _fetch_one(self, target: Path, name: str, file: Entry) -> None:
        which = f"{self._remote.url}/{name}".rstrip("/")
        changed = DataError(f"task {self._name!r}: {which} changed while it was fetched; run the same command again")
        try:
            self._remote.fetch(target, *([] if self._alone else name.split("/")))
        except FileNotFoundError as error:
            raise changed from error
        if target.stat().st_size != file.size:
            raise changed

    def _at(self, url: str) -> Remote:
        return Remote(url, f"tasks.{self._name}.data.path", "data", DataError)


def data_at_url(name: str, task: TaskConfig) -> DataAtUrl | None:
    """What a task's `path` names; None where it is no URL. Args and errors as of `DataAtUrl`."""
    config = task.data
    if config.source == "hub" or config.path is None or not is_url(config.path):
        return None
    return DataAtUrl(name, task)
