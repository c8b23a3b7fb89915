"""The folder of one run: what lies where, whose it is, and whether to go on or to start over."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from raydistill.commands.folders import owned, write_atomically
from raydistill.commands.in_job import RUNS, place_to_write
from raydistill.commands.run_at_url import BEFORE, RunAtUrl, fetched_run, notes_at_url, run_at_url
from raydistill.config.difference import ELSEWHERE, difference
from raydistill.config.loader import dump_config, load_config
from raydistill.config.models import Config
from raydistill.config.text import expand
from raydistill.errors import ConfigError, first_line
from raydistill.remote import is_url
from raydistill.remote.copies import NAME

OURS = {".lock", NAME, *BEFORE}  # what a folder may hold before its first distillation


class RunFolder:
    """Paths of a run.

    Args:
        path: of the folder.
        url: that the folder is a copy of.
        at_url: this command's work on it.

    Attributes:
        starts_over: what an earlier run left is dropped as this one begins.
        only_unsent: the run is finished, and its URL lacks some of it.
    """

    starts_over = only_unsent = False

    def __init__(self, path: str | Path, url: str | None = None, at_url: RunAtUrl | None = None) -> None:
        self.path = expand(path).absolute()
        self.at_url = at_url
        self.called = url or (at_url.url if at_url is not None else str(self.path))
        self.config = self.path / "config.yaml"
        self.report = self.path / "report.json"
        self.html = self.path / "report.html"
        self.log = self.path / "log.txt"
        self.metrics = self.path / "metrics.jsonl"
        self.student = self.path / "student"
        self.checkpoints = self.path / "checkpoints"
        self.tensorboard = self.path / "tensorboard"
        self.inputs = self.checkpoints / "inputs.json"
        self.ledger = self.path / "labelling.json"

    def initial(self, seed: int) -> Path:
        """The student that both arms of a seed start from."""
        return self.checkpoints / f"initial-seed{seed}"

    def arm(self, arm: str, seed: int) -> Path:
        """The checkpoints of one training."""
        return self.checkpoints / f"{arm}-seed{seed}"

    def name_of(self, path: Path) -> str:
        """Where the user finds a file of the run."""
        return f"{self.called}/{path.relative_to(self.path)}"

    def read_config(self) -> Config:
        """The run's resolved config.

        Raises:
            ConfigError: this is not a run folder.
        """
        if not self.config.is_file():
            raise ConfigError(
                f"{self.called} is not a run folder: it has no config.yaml; name one that `distill` wrote"
            )
        return load_config(self.config)

    def read_report(self) -> dict[str, Any]:
        """The content of report.json.

        Raises:
            ConfigError: the run has none, or not a whole one.
        """
        if not self.report.is_file():
            self.read_config()
            raise ConfigError(
                f"the run {self.called} is not finished: no report.json; run `raydistill distill` on its config.yaml"
            )
        try:
            content: dict[str, Any] = json.loads(self.report.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ConfigError(f"{self.report} is not valid JSON ({error}); run `raydistill distill` again") from error
        return content

    def check_inputs(self, inputs: dict[str, str]) -> None:
        """A run goes on only with the data and the teachers that it began with.

        Args:
            inputs: fingerprints by what they are of.

        Raises:
            ConfigError: names what has changed.
        """
        if not self.inputs.is_file():
            write_atomically(self.inputs, json.dumps(inputs, indent=1))
            return
        try:
            before: dict[str, str] = dict(json.loads(self.inputs.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise ConfigError(
                f"{self.inputs} is damaged ({first_line(error)}), and nobody knows what the run began with; start over "
                "with --again"
            ) from error
        changed = [what for what in inputs if before.get(what) != inputs[what]]
        if changed:
            raise ConfigError(
                f"{', '.join(changed)} changed since the run in {self.called} began; start over with --again, or "
                "choose another --out"
            )

    def begin(self, config: Config) -> None:
        """From here on the folder is this run's: not before nothing refuses it, so that a mistake costs no results.

        Raises:
            ConfigError: it cannot be written.
            RemoteError: it is at a URL, which cannot be.
        """
        if self.starts_over:
            self.clear()
            self.starts_over = False
        # With more seeds than before: stopped and called again, it goes on.
        self.report.unlink(missing_ok=True)
        self.html.unlink(missing_ok=True)
        write_atomically(self.config, dump_config(config))
        if self.at_url is not None:
            self.at_url.now()

    def clear(self) -> None:
        """Drop what an earlier run of the same config left."""
        for folder in (self.checkpoints, self.tensorboard, self.student):
            shutil.rmtree(folder, ignore_errors=True)
        for file in (self.report, self.html, self.metrics, self.ledger, self.path / "evaluation.json"):
            file.unlink(missing_ok=True)
        if self.at_url is not None and self.at_url.workers:
            self.at_url.drop_arms()


def run_path(config: Config, out: str | Path | None) -> Path | str:
    """`--out`, or runs/NAME; a string where it is a URL: see `place_to_write`."""
    return place_to_write(out, config.name)


@contextlib.contextmanager
def open_run(config: Config, out: str | Path | None, again: bool = False) -> Iterator[RunFolder]:
    """The folder of a run, ours for as long as the block lasts; nothing in it changes before `RunFolder.begin`.

    An unfinished run of the same config goes on where it stopped; a finished one starts over, or, where only more
    seeds are asked for, goes on with the new ones.

    Args:
        again: start over, whatever is there.

    Raises:
        ConfigError: the folder belongs to another config, to another process or to something else, or cannot be made.
        RemoteError: it is a URL that cannot be reached; at the end of the block, not all could be copied there.
    """
    place = run_path(config, out)
    if isinstance(place, str):
        with run_at_url(place, "--out" if out is not None else RUNS, config, owned) as at_url:
            folder = RunFolder(at_url.folder, at_url=at_url)
            _claim(folder, config, again)
            at_url.begin()
            yield folder
        return
    folder = RunFolder(place)
    with owned(folder.path):
        _claim(folder, config, again)
        yield folder


@contextlib.contextmanager
def read_run(run: str | Path) -> Iterator[tuple[RunFolder, Callable[..., None]]]:
    """A run that was written before, wherever it lies.

    Yields:
        Its folder, and what is to be called with the names of files that were changed in it.
    """
    if is_url(run):
        with fetched_run(str(run)) as (path, send):
            yield RunFolder(path, str(run).rstrip("/")), send
    else:
        yield RunFolder(run), lambda *files: None


@contextlib.contextmanager
def folder_for_notes(config: Config, out: str | Path | None) -> Iterator[Path]:
    """Where a command that is no run writes its log: see `notes_at_url`."""
    place = run_path(config, out)
    if isinstance(place, str):
        with notes_at_url(place, "--out" if out is not None else RUNS, config) as folder:
            yield folder
    else:
        yield place.absolute()


def _claim(folder: RunFolder, config: Config, again: bool) -> None:
    if again and folder.config.is_file():
        folder.starts_over = True
    elif folder.config.is_file():
        try:
            old = folder.read_config()
        except ConfigError as error:
            raise ConfigError(f"{error}; or start over with --again") from error
        changed = difference(
            old.model_dump(mode="json", exclude=ELSEWHERE), config.model_dump(mode="json", exclude=ELSEWHERE)
        )
        if changed and (folder.checkpoints.exists() or folder.report.is_file()):
            raise ConfigError(
                f"{folder.called} holds a run of another config ({changed}); choose another name or --out, or replace "
                "it with --again"
            )
        finished = folder.report.is_file() and config.num_seeds <= old.num_seeds
        # Finished, and the URL could not be reached in the end: only that is left to do.
        unsent = folder.at_url is not None and not folder.at_url.has(folder.report)
        folder.only_unsent = finished and unsent
        folder.starts_over = bool(changed) or (finished and not unsent)
    elif any(entry.name not in OURS for entry in folder.path.iterdir()):
        raise ConfigError(f"{folder.path} is not empty and not a run folder; choose another --out")
