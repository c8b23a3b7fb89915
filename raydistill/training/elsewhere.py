"""A run at a URL, trained by workers that share no folder with the command: each way of its files.

A worker has a folder of its own, which it fills from the URL and throws away in the end; rank 0 copies to the URL what
it writes there: each checkpoint at once, all else every few seconds. The command fetches it from there.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from filelock import FileLock, Timeout

from raydistill.atomic import reason
from raydistill.errors import RaydistillError, RemoteError
from raydistill.remote.copies import folder_of
from raydistill.remote.files import Entry, Remote
from raydistill.remote.outbox import Outbox
from raydistill.remote.owner import Disowned, check_owner
from raydistill.remote.sending import Sender, patiently
from raydistill.training.costs import COSTS_FILE
from raydistill.training.events import append_events
from raydistill.training.metrics_log import METRICS_FILE
from raydistill.training.places import BEST, LATEST, OF_RAY, OF_THE_COMMAND
from raydistill.training.plan import RunPlace, TrainingPlan

EVERY_S, LOOK_S = 4.0, 1.0  # between two copies of what is no checkpoint; between two looks for one
WORKERS = "run-workers"  # of the cache: folders of workers that live
KEPT = ".kept"  # marks one whose files could not be copied


class ArmThere:
    """What workers have written of one training, seen from the command: fetched to the plan's folder."""

    def __init__(self, plan: TrainingPlan) -> None:
        assert plan.at_url is not None
        self._folder, self._place = plan.folder, plan.at_url.place_of(plan.folder)
        self._remote = plan.at_url.remote()
        self._seen: dict[str, Entry] = {}
        self._turn = threading.Lock()

    def fetch(self, whole: bool) -> None:
        """Bring what has changed.

        Args:
            whole: checkpoints, too, and nothing stays here that is not there.

        Raises:
            RemoteError: the URL, or the folder, cannot be used.
        """
        with self._turn:
            there = {name: entry for name, entry in self._remote.find(self._place).items() if _is_written_there(name)}
            try:
                if whole:
                    self._drop_others(there)
                for name, entry in there.items():
                    if self._seen.get(name) != entry and (whole or not name.endswith(".pt")):
                        with contextlib.suppress(FileNotFoundError):  # it has just gone
                            self._remote.fetch(self._folder / name, self._place, *name.split("/"))
                            self._seen[name] = entry
            except OSError as error:
                raise RemoteError(f"cannot write to {self._folder} ({reason(error)}); free some space") from error

    def fetch_all(self) -> None:
        """The same, whole, in several attempts."""
        patiently(lambda: self.fetch(whole=True))

    def _drop_others(self, there: dict[str, Entry]) -> None:
        for path in [path for path in self._folder.rglob("*") if path.is_file()]:
            name = str(path.relative_to(self._folder))
            if _is_written_there(name) and name not in there:
                path.unlink()


class WorkersOutbox(Outbox):
    """Copies as long as the command that sent the worker owns the run.

    Attributes:
        lost: what it found instead.
    """

    def __init__(self, folder: Path, run: RunPlace, initial: str, rank: int) -> None:
        def skips(name: str) -> bool:
            # Of other ranks only what happened there is of interest.
            return name.startswith(f"{initial}/") or bool(rank and not name.rsplit("/", 1)[-1].startswith("events"))

        super().__init__(folder, run.remote(), skips)
        self._owner = run.owner
        self.lost: Disowned | None = None

    def send(self) -> bool:
        """See `Outbox.send`."""
        if not self.changed():
            return False
        self.check()
        return super().send()

    def check(self) -> None:
        """Whether the run is still the command's.

        Raises:
            Disowned: it is not. RemoteError: the URL cannot be used.
        """
        try:
            check_owner(self.remote, self._owner)
        except Disowned as error:
            self.lost = error
            raise


class Worker:
    """A worker's own copy.

    Attributes:
        plan: the training's, with the folders of this worker.
    """

    def __init__(self, plan: TrainingPlan, outbox: WorkersOutbox) -> None:
        self.plan, self._outbox = plan, outbox

    def check(self) -> None:
        """Called now and then.

        Raises:
            Disowned: another command has taken over the run.
        """
        if self._outbox.lost is not None:
            raise self._outbox.lost


@contextlib.contextmanager
def worker_folder(plan: TrainingPlan, rank: int) -> Iterator[Worker]:
    """This worker's own folder, with what it goes on from, for as long as the block lasts.

    Raises:
        RemoteError: the URL cannot be used, or what was written could not be copied there.
    """
    run, host = plan.at_url, socket.gethostname()
    assert run is not None
    with _own_folder(Path(plan.config.cache_dir).expanduser() / WORKERS, run.url) as folder:
        here = replace(run.moved(plan, folder), events_file=f"events-{rank}-{folder.name[:8]}.jsonl")
        initial, arm = run.place_of(plan.initial_student), run.place_of(plan.folder)
        outbox = WorkersOutbox(folder, run, initial, rank)
        patiently(outbox.check)
        patiently(lambda: _fetch_begin(outbox.remote, folder, initial, arm, rank))
        outbox.sent = outbox.here()
        sender = Sender(
            outbox, EVERY_S, lambda text: _note(here, f"{text} on {host}"), LOOK_S,
            stops=lambda: str(outbox.lost) if outbox.lost is not None else None,
        )  # fmt: skip
        sender.start()
        try:
            yield Worker(here, outbox)
        except BaseException:
            with contextlib.suppress(RaydistillError):  # the reason why it ends says more
                sender.finish(hurry=True)
            raise
        here.beat.unlink(missing_ok=True)
        try:
            sender.finish()
        except RemoteError as error:
            (folder / KEPT).touch()
            raise RemoteError(f"{error} on {host}") from error
        if rank == 0:
            outbox.remote.remove(arm, here.beat.name)


def _fetch_begin(remote: Remote, folder: Path, initial: str, arm: str, rank: int) -> None:
    of_student = remote.find(initial)
    if not of_student:
        raise RemoteError(f"{remote.url} has no {initial}, which the training begins with; run the same command again")
    wanted = [f"{initial}/{name}" for name in of_student]
    # Newer than, or as new as, the checkpoint is what is fetched after it: see `Outbox`.
    wanted += [f"{arm}/{name}" for name in (LATEST, COSTS_FILE, *(() if rank else (BEST, METRICS_FILE)))]
    for name in wanted:
        with contextlib.suppress(FileNotFoundError):
            remote.fetch(folder / name, *name.split("/"))


@contextlib.contextmanager
def _own_folder(root: Path, url: str) -> Iterator[Path]:
    """Removed at the end, as those of the dead are now; but for what could not be copied."""
    base = folder_of(root, url)
    folder = base / uuid.uuid4().hex
    try:
        base.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.with_suffix(".lock"))
        lock.acquire()
    except OSError as error:
        raise RemoteError(
            f"cannot write to {base} on {socket.gethostname()} ({reason(error)}); set cache_dir to a folder that every "
            "node can make"
        ) from error
    try:
        for other in base.glob("*.lock"):
            with contextlib.suppress(Timeout, OSError), FileLock(other, timeout=0):
                _remove(other)
        folder.mkdir()
        yield folder
    finally:
        _remove(folder.with_suffix(".lock"))
        lock.release()


def _remove(lock: Path) -> None:
    folder = lock.with_suffix("")
    if not (folder / KEPT).exists():
        shutil.rmtree(folder, ignore_errors=True)
        lock.unlink(missing_ok=True)


def _note(plan: TrainingPlan, text: str) -> None:
    with contextlib.suppress(OSError):
        append_events(plan.folder, [(time.time(), text)], plan.events_file)


def _is_written_there(name: str) -> bool:
    return name not in OF_THE_COMMAND and not name.startswith(OF_RAY)
