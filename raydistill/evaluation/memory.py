"""How much memory a run takes at its worst moment."""

from __future__ import annotations

import threading
from pathlib import Path

import psutil


class PeakMemory:
    """Watches this process and all below it (a Ray of our own included) until the block ends.

    Attributes:
        peak_bytes: the largest sum of resident memory seen. On Linux a page that several processes share is divided
            among them (proportional set size); elsewhere it counts for each, an upper bound.
    """

    def __init__(self, every_s: float = 2.0) -> None:
        self.peak_bytes = 0
        self._every_s = every_s
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        process = psutil.Process()
        while not self._stopped.wait(self._every_s):
            self.peak_bytes = max(self.peak_bytes, self._now(process))

    @staticmethod
    def _now(process: psutil.Process) -> int:
        total = 0
        for each in [process, *process.children(recursive=True)]:
            try:
                total += _resident(each)
            except (psutil.Error, OSError):
                continue  # it ended while we looked
        return total

    def __enter__(self) -> PeakMemory:
        self.peak_bytes = self._now(psutil.Process())
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()


def _resident(process: psutil.Process) -> int:
    rollup = Path(f"/proc/{process.pid}/smaps_rollup")
    if rollup.exists():
        for line in rollup.read_text(encoding="ascii").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return int(process.memory_info().rss)
