"""How much memory a run takes at its worst moment."""

from __future__ import annotations

import threading

import psutil


class PeakMemory:
    """Watches this process and all below it (a Ray of our own included) until the block ends.

    Attributes:
        peak_bytes: the largest sum of resident set sizes seen. Pages that several processes share count once for
            each, so this is an upper bound.
    """

    def __init__(self, every_s: float = 1.0) -> None:
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
                total += each.memory_info().rss
            except psutil.Error:
                continue  # it ended while we looked
        return total

    def __enter__(self) -> PeakMemory:
        self.peak_bytes = self._now(psutil.Process())
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()
