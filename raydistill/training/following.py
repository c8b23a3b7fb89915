"""What workers elsewhere are doing, read from the files that they write: their progress, and that they live."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from raydistill.errors import RemoteError
from raydistill.training.elsewhere import EVERY_S, ArmThere
from raydistill.training.events import read_events
from raydistill.training.metrics_log import METRICS_FILE, read_metrics
from raydistill.training.notices import LEAVING
from raydistill.training.plan import TrainingPlan

BEAT_S = 2.0


class Follower:
    """Hands on the lines that rank 0 adds to the metrics file, and what happened to any rank's teachers.

    Args:
        on_log: hears them, where the user looks.
    """

    def __init__(self, plan: TrainingPlan, on_log: Callable[[dict[str, Any]], None]) -> None:
        self.on_log, self._folder = on_log, plan.folder
        self._beat = plan.beat
        self._there = None if plan.at_url is None else ArmThere(plan)
        self._fetched_at, self._problem, self._noticed = 0.0, "", False
        self._shown, self._told = len(read_metrics(plan.folder / METRICS_FILE)), set(read_events(plan.folder))
        self._last_beat = self._read_beat()

    def look(self) -> None:
        """What is new since the last look."""
        self._fetch()
        lines, events = read_metrics(self._folder / METRICS_FILE), read_events(self._folder)
        for line in lines[self._shown :]:
            self.on_log(line)
        for at, what in events:
            if (at, what) not in self._told:  # another rank's older one may come later
                self.on_log({"event": what, "at": at})
                self._noticed |= what.startswith(LEAVING)
        self._shown, self._told = max(self._shown, len(lines)), self._told.union(events)

    def heard_notice(self) -> bool:
        """Whether a worker has heard since the last question that a node is about to go."""
        heard, self._noticed = self._noticed, False
        return heard

    def beats(self) -> bool:
        """Whether a worker has shown since the last question that it lives, or could not be seen. Clocks need not
        agree."""
        before, self._last_beat = self._last_beat, self._read_beat()
        return before != self._last_beat or bool(self._problem)

    def _fetch(self) -> None:
        """Of a run at a URL, now and then."""
        if self._there is None or time.monotonic() - self._fetched_at < EVERY_S:
            return
        try:
            self._there.fetch(whole=False)
            self._problem = ""
        except RemoteError as error:
            if not self._problem:
                self.on_log({"event": f"{error}: what the workers do is not seen meanwhile", "at": time.time()})
            self._problem = str(error)
        self._fetched_at = time.monotonic()

    def _read_beat(self) -> str:
        try:
            return self._beat.read_text(encoding="utf-8")
        except OSError:
            return ""


@contextlib.contextmanager
def beating(plan: TrainingPlan) -> Iterator[None]:
    """Show that this worker lives, for as long as the block lasts: a long step writes nothing else."""
    ended = threading.Event()

    def beat() -> None:
        with contextlib.suppress(OSError):
            plan.beat.parent.mkdir(parents=True, exist_ok=True)
        while not ended.wait(BEAT_S):
            with contextlib.suppress(OSError):
                plan.beat.write_text(str(time.time()), encoding="utf-8")

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
