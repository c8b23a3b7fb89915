"""A long time of students that come, ask, leave or are killed, in one Ray: does anything grow, is anything left?

Threads of this process and processes of their own join one pool of teachers, fill and read one store, and leave, or
are killed; replicas are killed now and then. Every two minutes all leave, and the pool has to end. Recorded: MiB of the
supervisor, of this process and of Ray's own processes (what they wrote themselves; torch's libraries, 300 MiB, are a
process's own only while no other one maps them) and of everything together (PSS); threads and open files of this
process; actors; files in the store. Growth is measured over the moments in which nobody is there, the first third of
them left out: Ray fills its caches then.

    python benchmarks/soak.py [--minutes 30] [--students 3] [--every 30] [--records FILE]
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from importlib.metadata import version
from pathlib import Path

import numpy as np
import psutil
import ray
from passing_students import ProcessStudent, ThreadStudent, make_config, save_random_teacher

from raydistill.config.models import Config
from raydistill.evaluation.assemble import machine
from raydistill.soft_labels.store import LabelStore, open_store
from raydistill.teachers.pool.launcher import RayLauncher
from raydistill.teachers.pool.names import ANY_REPLICA_PREFIX, SUPERVISOR, SUPERVISOR_PREFIX

CYCLE_S, STUDENT_S, KILL_EVERY_S = 120.0, (5.0, 30.0), 20.0
STORE_BYTES = 1_000_000  # a few splits
FREED_S, SUPERVISOR_ENDS_S = 15.0, 90.0
FLAT = 0.05  # growth an hour, of the size
FIGURES = ("supervisor", "driver", "ray", "all", "threads", "files", "actors", "store")
Record = dict[str, float]


class Crowd:
    """Who is there, and who kills.

    Attributes:
        counts: of what happened.
        failures: lines; there should be none.
    """

    def __init__(self, folder: Path, config: Config, most: int) -> None:
        self._folder, self._config, self._most = folder, config, most
        self._address = ray.get_runtime_context().gcs_address
        self._draw = random.Random(0)
        self._students: list[ThreadStudent | ProcessStudent] = []
        self._kill_at = time.monotonic() + KILL_EVERY_S
        self.counts: Counter[str] = Counter()
        self.failures: list[str] = []

    def tick(self, come: bool) -> None:
        """See who has left, let the next one come, kill whom it hits."""
        for student in [student for student in self._students if student.over()]:
            self._students.remove(student)
            if student.error:
                self.failures.append(student.error)
        if come and len(self._students) < self._most:
            self._come()
        if time.monotonic() >= self._kill_at:
            self._kill_at = time.monotonic() + self._draw.uniform(0.5, 1.5) * KILL_EVERY_S
            self._kill()

    @property
    def is_gone(self) -> bool:
        return not self._students

    def _come(self) -> None:
        self.counts["students"] += 1
        seconds, number = self._draw.uniform(*STUDENT_S), self.counts["students"]
        split = f"split-{int(time.monotonic() // (CYCLE_S / 2))}"  # the same for all who come at about one time
        if any(isinstance(student, ThreadStudent) for student in self._students):
            self._students.append(ProcessStudent(self._folder, self._address, seconds, split, number))
        else:
            self._students.append(ThreadStudent(self._config, seconds, split, number))

    def _kill(self) -> None:
        processes = [each.process for each in self._students if isinstance(each, ProcessStudent)]
        if processes and self._draw.random() < 0.5:
            self._draw.choice(processes).kill()
            self.counts["students killed"] += 1
        elif replicas := serving_pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._draw.choice(replicas), signal.SIGKILL)
                self.counts["replicas killed"] += 1


def serving_pids() -> list[int]:
    found = RayLauncher().find(SUPERVISOR)
    if not found:
        return []
    pools = ray.get(found[SUPERVISOR].status.remote(), timeout=10)
    return [pid for pool in pools for _, state, pid in pool.replicas if state == "serving" and pid is not None]


def actors() -> list[str]:
    return [name for prefix in (SUPERVISOR_PREFIX, ANY_REPLICA_PREFIX) for name in RayLauncher().find(prefix)]


def record(began: float, store: LabelStore, is_gone: bool) -> Record:
    """All figures of now."""
    driver = psutil.Process()
    sizes = dict.fromkeys(FIGURES[:4], 0.0)
    for process in [driver, *driver.children(recursive=True)]:
        with contextlib.suppress(psutil.Error):
            memory, title = process.memory_full_info(), " ".join(process.cmdline())
            sizes["all"] += memory.pss / 2**20
            what = "driver" if process == driver else "supervisor" if title.startswith("ray::SupervisorActor") else ""
            if what or ("/ray/" in title and "passing_students" not in title):
                sizes[what or "ray"] += sum(part.private_dirty for part in process.memory_maps()) / 2**20
    files = sum(path.is_file() for path in store.folder.rglob("*"))
    return {
        "minutes": (time.monotonic() - began) / 60, **sizes, "threads": driver.num_threads(),
        "files": driver.num_fds(), "actors": len(actors()), "store": files, "gone": is_gone,
    }  # fmt: skip


def soak(options: argparse.Namespace, folder: Path) -> tuple[list[Record], Crowd]:
    """Records, and what happened meanwhile."""
    config = make_config(folder)
    save_random_teacher(config)
    store, crowd, records = open_store(config), Crowd(folder, config, options.students), []

    def take(is_gone: bool = False) -> None:
        store.prune(STORE_BYTES)
        records.append(record(began, store, is_gone))
        line = ", ".join(f"{name} {value:,.1f}" for name, value in records[-1].items())
        print(f"{line}; {dict(crowd.counts)}", file=sys.stderr, flush=True)
        if options.records:
            with options.records.open("a", encoding="utf-8") as file:
                file.write(json.dumps(records[-1]) + "\n")

    seconds = 60 * options.minutes
    began = time.monotonic()
    ends, next_record = began + seconds, began
    cycle_s = min(CYCLE_S, seconds / 6)
    all_leave = began + cycle_s
    while True:
        now = time.monotonic()
        crowd.tick(come=now < min(ends, all_leave))
        if now >= next_record:
            take()
            next_record = now + options.every
        if now >= min(ends, all_leave) and crowd.is_gone:
            check_freed(crowd)
            take(is_gone=True)
            if now >= ends:
                return records, crowd
            all_leave = time.monotonic() + cycle_s
        time.sleep(0.2)


def check_freed(crowd: Crowd) -> None:
    """The last lease has ended, or ends now where its student was killed."""
    ends = time.monotonic() + FREED_S
    while (left := list(RayLauncher().find(ANY_REPLICA_PREFIX))) and time.monotonic() < ends:
        time.sleep(0.2)
    crowd.counts["pools ended"] += not left
    if left:
        crowd.failures.append(f"nobody holds a lease, and {left} still run after {FREED_S:.0f} s")


def left_over() -> list[str]:
    """Actors that do not end by themselves, then processes that do not end with Ray."""
    ends = time.monotonic() + SUPERVISOR_ENDS_S
    while (left := actors()) and time.monotonic() < ends:
        time.sleep(1)
    ray.shutdown()
    _, alive = psutil.wait_procs(psutil.Process().children(recursive=True), timeout=20)
    return left + [" ".join(process.cmdline())[:100] for process in alive]


def growth(records: list[Record], name: str) -> float:
    """Least squares, an hour, over the moments in which nobody is there; the first third of them is the warm-up."""
    gone = [each for each in records if each["gone"]]
    gone = gone[-(-len(gone) // 3) :]
    if len(gone) < 3:
        return float("nan")
    slope, _ = np.polyfit([each["minutes"] / 60 for each in gone], [each[name] for each in gone], 1)
    return float(slope)


def report(records: list[Record], crowd: Crowd, left: list[str]) -> int:
    """Print it all; the exit code."""
    print(f"{datetime.date.today()}, {machine()}; ray {version('ray')}, torch {version('torch')}")
    print(", ".join(f"{count} {what}" for what, count in crowd.counts.items()), end="")
    print(f" in {records[-1]['minutes']:.0f} minutes; MiB, counts\n")
    print(f"{'':22}{'minutes':>8}" + "".join(f"{name:>12}" for name in FIGURES))
    going, gone = ([each for each in records if bool(each["gone"]) == is_gone] for is_gone in (False, True))
    for where, some in (("", going), (", nobody there", gone)):
        last = len(some) - 1
        for what, at in {"start": 0, "a tenth": -(-last // 10), "middle": last // 2, "end": last}.items():
            figures = "".join(f"{some[at][name]:12,.1f}" for name in FIGURES)
            print(f"{what + where:22}{some[at]['minutes']:8.1f}{figures}")
    slopes = {name: growth(records, name) for name in FIGURES}
    print(f"{'growth an hour':30}" + "".join(f"{slopes[name]:+12,.1f}" for name in FIGURES))
    for name in ("supervisor", "driver", "all"):
        share = slopes[name] / float(np.mean([each[name] for each in gone]))
        verdict = "too short to tell" if np.isnan(share) else "flat" if share <= FLAT else "NOT FLAT"
        print(f"{name}: {share:+.1%} an hour, {verdict} (target {FLAT:.0%} at most)")
    for failure in crowd.failures:
        print(f"FAILED: {failure}")
    print(f"left over: {len(left)} actors or processes (target 0)", *left, sep="\n  ")
    return int(bool(left or crowd.failures))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--students", type=int, default=3, help="at one time")
    parser.add_argument("--every", type=float, default=30, help="seconds between two records")
    parser.add_argument("--records", type=Path, help="file for all records, a line of JSON each")
    options = parser.parse_args()
    # Ray prints to stdout what it thinks of every killed process.
    with contextlib.redirect_stdout(sys.stderr), tempfile.TemporaryDirectory() as folder:
        ray.init("local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        records, crowd = soak(options, Path(folder))
        left = left_over()
    sys.exit(report(records, crowd, left))


if __name__ == "__main__":
    main()
