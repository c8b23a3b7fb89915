"""A run folder at a URL: worked on in a folder of the cache, and copied to the URL as it changes."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from raydistill.commands.progress import Progress
from raydistill.config.models import Config
from raydistill.errors import ConfigError, RaydistillError
from raydistill.remote.copies import MANIFEST, WorkingCopy, folder_of
from raydistill.remote.files import Remote
from raydistill.remote.owner import OWNER, Owner
from raydistill.remote.sending import Sender, patiently
from raydistill.training.places import LATEST, is_of_workers

EVERY_S = 15.0  # between two copies; a checkpoint is copied at once
FOLDER = "runs"  # of the cache
# What other commands leave there before the first distillation.
BEFORE = {"log.txt", "teachers.json", "labelling.json"}


class RunAtUrl:
    """This command's copy of a run, and its word that the run is its own.

    Attributes:
        url: of the run.
        folder: where this machine works on it.
        owner: id of this command as the run's owner.
    """

    def __init__(self, copy: WorkingCopy, owner: Owner, workers: bool) -> None:
        self.url, self.folder, self.owner = copy.remote.url, copy.folder, owner
        self.key = copy.remote.key
        self.workers = workers
        self._copy = copy
        self._sender = Sender(copy, EVERY_S, self._say, stops=self._stops)
        self._begun = False
        self.say: Callable[[str], None] = Progress().say

    def begin(self) -> None:
        """Copy what is here, for the first time, and then as it changes.

        Raises:
            RemoteError: the URL cannot be written.
        """
        self._copy.send()
        self._sender.start()
        self._begun = True

    def now(self) -> None:
        """Copy what has changed: others are about to read it.

        Raises:
            RemoteError: the URL cannot be written.
        """
        patiently(self._copy.send)

    def drop_arms(self) -> None:
        """Take away what workers left there.

        Raises:
            RemoteError: it cannot be: a run that starts over would go on from it.
        """
        for place in ("checkpoints", "tensorboard"):
            found = [f"{place}/{name}" for name in self._copy.remote.find(place)]
            # First what says that there is something to go on from.
            for name in sorted(found, key=lambda name: not name.endswith(LATEST)):
                if is_of_workers(name):
                    self._copy.remote.delete(*name.split("/"))

    def has(self, file: Path) -> bool:
        """Whether a file is at the URL as it is here."""
        name = str(file.relative_to(self.folder))
        return self._copy.sent.get(name) == self._copy.here().get(name)

    def end(self, hurry: bool) -> None:
        """The last copy. Raises as `Sender.finish`."""
        if self._begun:
            self._sender.finish(hurry)

    def _say(self, text: str) -> None:
        self.say(text)

    def _stops(self) -> str | None:
        lost_to = self.owner.lost_to
        return None if lost_to is None else f"{self.key} {self.url} was taken over by {lost_to}"


@contextlib.contextmanager
def run_at_url(
    url: str, key: str, config: Config, owned: Callable[[Path, str], contextlib.AbstractContextManager[None]]
) -> Iterator[RunAtUrl]:
    """The run at a URL, ours for as long as the block lasts, with what is there in a folder here.

    Args:
        key: where the user said it.
        owned: makes a folder and keeps other processes of this machine out of it; the string is what to call it.

    Raises:
        ConfigError: the URL is of no use, holds something else, or another command is writing it.
        RemoteError: it cannot be reached; at the end of the block, not all could be copied there.
    """
    remote = Remote(url, key)
    workers = config.training.num_workers > 0
    folder = _folder_here(config, remote)
    remote.check()
    with owned(folder, remote.url):
        copy = WorkingCopy(folder, remote, is_of_workers if workers else _of_ray)
        owner = Owner(remote, copy.name, Progress().say)
        adopt = _adopted(remote)
        owner.take()
        try:
            copy.take(adopt)
            run = RunAtUrl(copy, owner, workers)
            owner.say = lambda text: run.say(text)
            try:
                yield run
            except BaseException:
                try:
                    run.end(hurry=True)
                except RaydistillError as error:  # beside the reason why it ends
                    sys.stderr.write(f"{error}\n")
                raise
            run.end(hurry=False)
        finally:
            owner.release()


@contextlib.contextmanager
def fetched_run(url: str) -> Iterator[tuple[Path, Callable[..., None]]]:
    """A finished run at a URL, as far as its report and its student go, in a folder that goes at the end of the block.

    Yields:
        The folder, and what copies files of it, by name, back to the URL.

    Raises:
        ConfigError: the URL is of no use. RemoteError: it cannot be reached.
    """
    remote = Remote(url, "the run")
    remote.check()
    with tempfile.TemporaryDirectory(prefix="raydistill-run-") as name:
        folder = Path(name)
        wanted = [file for file in remote.names() if file in ("config.yaml", "report.json")]
        wanted += [f"student/{file}" for file in remote.find("student")]
        for file in wanted:
            with contextlib.suppress(FileNotFoundError):
                remote.fetch(folder / file, *file.split("/"))

        def send(*files: str) -> None:
            for file in files:
                with (folder / file).open("rb") as source:
                    remote.send(source, file)

        yield folder, send


@contextlib.contextmanager
def notes_at_url(url: str, key: str, config: Config) -> Iterator[Path]:
    """A folder for the log of a command that is no run, and what else it writes; copied to the URL at the end.

    Raises:
        ConfigError: the URL is of no use. RemoteError: it cannot be reached.
    """
    remote = Remote(url, key)
    remote.check()
    folder = _folder_here(config, remote)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot write to {folder}: {error.strerror}; set cache_dir to a folder of yours") from error
    if "log.txt" in remote.names() and not (folder / "log.txt").exists():
        remote.fetch(folder / "log.txt", "log.txt")

    def send() -> None:
        for file in sorted(BEFORE):
            if (folder / file).is_file():
                with (folder / file).open("rb") as source:
                    remote.send(source, file)

    try:
        yield folder
    except BaseException:
        with contextlib.suppress(RaydistillError):  # the reason why it ends says more
            send()
        raise
    send()


def _adopted(remote: Remote) -> list[str]:
    """Files that count though the URL has no manifest: those of a run that was copied there by hand.

    Raises:
        ConfigError: something else is there.
    """
    names = set(remote.names())
    if MANIFEST in names:
        return []
    if "config.yaml" in names:
        return [name for name in remote.find() if name != OWNER]
    if strangers := {name for name in names if not name.startswith(".")} - BEFORE - {OWNER}:
        raise ConfigError(
            f"{remote.url} is not empty and not a run folder (it holds {sorted(strangers)[0]}); choose another "
            f"{remote.key}"
        )
    return sorted(names & BEFORE)


def _of_ray(name: str) -> bool:
    """All else of a run without workers is copied."""
    return "/ray_train/" in name


def _folder_here(config: Config, remote: Remote) -> Path:
    return folder_of(Path(config.cache_dir).expanduser().absolute() / FOLDER, remote.url)
