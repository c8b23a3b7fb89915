"""Whether other processes take part of the machine: seconds measured beside them say little."""

from __future__ import annotations

import os
import threading
import time

import psutil

DISTURBED = 75  # exit status of a run that gave up
LOOK_S, FIRST_LOOK_S = 2.0, 4.0


class Neighbours:
    """Watches from when it is made."""

    def __init__(self) -> None:
        self._began, self._busy_s, self._own_s = time.perf_counter(), busy_s(), time.process_time()

    def share(self) -> float:
        """Of all cores, the part that other processes took since then."""
        others_s = busy_s() - self._busy_s - (time.process_time() - self._own_s)
        return max(0.0, others_s / (time.perf_counter() - self._began) / (os.cpu_count() or 1))

    def give_up_beyond(self, limit: float) -> None:
        """From now on: end this process as soon as others have taken more, for what it measures is worth nothing."""

        def look() -> None:
            time.sleep(FIRST_LOOK_S)
            while self.share() <= limit:
                time.sleep(LOOK_S)
            os._exit(DISTURBED)

        threading.Thread(target=look, daemon=True).start()


def busy_s() -> float:
    """Seconds that the cores worked since the start of the machine, added up."""
    times = psutil.cpu_times()._asdict()
    # A guest's time is in the user's already.
    return float(sum(value for name, value in times.items() if name not in ("idle", "iowait", "guest", "guest_nice")))


def quiet(limit: float, patience_s: float) -> bool:
    """Wait until others take no more than `limit` of the machine; False where they did not stop for so long."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        watched = Neighbours()
        time.sleep(LOOK_S)
        if watched.share() <= limit:
            return True
    return False
