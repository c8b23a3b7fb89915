"""What `raydistill plan` predicts, against real pools: supervisor, client, replicas, stream and store are real.

Only teacher and student do nothing but wait, a time for each row: one machine can then hold many replicas. In the cases
of shared cores they compute instead, for as long. Each case is measured in rounds of micro-batches that nobody has seen
before, from the moment that all are at work until nothing is left to ask; the probe that the prediction begins with is
made in this process, as `raydistill plan` does it.

    python benchmarks/plan_against_pools.py [--rounds 3] [--steps 60] [--rows 64] [--only NAME]
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import itertools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from importlib.metadata import version
from pathlib import Path

import numpy as np
import psutil
from numpy.typing import NDArray
from peers.neighbours import busy_s
from peers.waiting import NUM_CLASSES, spend, start_supervisor

import raydistill
from raydistill.commands.cluster import cluster
from raydistill.commands.probe import probe_store
from raydistill.config.models import Config
from raydistill.data.batch import ViewBatch
from raydistill.planning.demand import STUDENT
from raydistill.planning.measured import Work
from raydistill.planning.rates import Crew, Server, Steady, steady_local, steady_remote
from raydistill.planning.room import Spot
from raydistill.soft_labels.source import StepViews
from raydistill.soft_labels.stream import LabelStream
from raydistill.soft_labels.tables import RunTables, TaughtSplit
from raydistill.teachers.pool.canary import canary_views
from raydistill.teachers.pool.client import PoolClient
from raydistill.teachers.pool.messages import PoolSpec
from raydistill.timing import median_ms

TARGET, SIDE, STARTED_S, WARM = 0.15, 8, 400.0, 8
QUIET = 0.1  # of the machine that others may take


@dataclass(frozen=True)
class Waiting:
    """A teacher: milliseconds a row of one replica, and replicas."""

    row_ms: float
    replicas: int = 1


@dataclass(frozen=True)
class Case:
    """Attributes:
    step_ms: of the student's own step.
    known: share of the rows that the store has.
    computes: instead of waiting.
    disturbed: of each round, whether others took part of the machine.
    """

    name: str
    step_ms: float
    teachers: Mapping[str, Waiting]
    window: int = 8
    known: float = 0.0
    computes: bool = False
    keeps: bool = True
    disturbed: list[bool] = field(default_factory=list)


CASES = [
    Case("student-bound", 40, {"a": Waiting(0.3)}),
    Case("teacher-bound, one replica", 10, {"a": Waiting(0.8)}),
    Case("teacher-bound, three replicas", 8, {"a": Waiting(1.2, 3)}),
    Case("balanced", 30, {"a": Waiting(0.9, 2)}),
    Case("window of 2, eight replicas", 10, {"a": Waiting(1.5, 8)}, window=2),
    Case("two tasks, the slow one three times", 25, {"a": Waiting(0.3), "b": Waiting(1.6, 3)}),
    Case("two tasks, teachers alike", 10, {"a": Waiting(0.6, 2), "b": Waiting(0.6, 2)}),
    Case("half in the store, teacher-bound", 10, {"a": Waiting(1.2)}, known=0.5),
    Case("half in the store, student-bound", 45, {"a": Waiting(1.2)}, known=0.5),
    Case("all in the store", 10, {"a": Waiting(1.2)}, known=1.0),
    Case("nothing kept", 10, {"a": Waiting(0.8, 2)}, keeps=False),
    Case("short steps and answers", 1, {"a": Waiting(0.03, 2)}),
    Case("shared cores", 30, {"a": Waiting(0.5, 2)}, computes=True),
    Case("shared cores, teacher-bound", 5, {"a": Waiting(1.0, 1)}, computes=True),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60, help="micro-batches of a round that are timed")
    parser.add_argument("--rows", type=int, default=64, help="of a task in a micro-batch")
    parser.add_argument("--patience", type=float, default=120.0, help="seconds of a case to wait for a quiet machine")
    parser.add_argument("--only", help="the cases whose name has this in it")
    options = parser.parse_args()
    os.environ.setdefault("RAY_worker_maximum_startup_concurrency", "8")
    cases = [case for case in CASES if not options.only or options.only in case.name]
    found = []
    with tempfile.TemporaryDirectory() as folder, cluster(config_of(cases[0], Path(folder))):
        start_supervisor()
        for number, case in enumerate(cases):
            predicted = prediction(case, options.rows)
            config = config_of(case, Path(folder) / str(number))
            rates = list(measured(case, config, options))
            found.append((case, predicted, rates))
            print(f"{case.name}: {statistics.median(rates):,.0f} samples/s", file=sys.stderr, flush=True)
    report(options, found)


def config_of(case: Case, cache: Path) -> Config:
    data = {"source": "disk", "path": "-", "image_size": SIDE, "grayscale": True, "augment": False}
    return raydistill.load_config(
        {
            "name": "plan-against-pools",
            "cache_dir": str(cache),
            "tasks": {f"of_{name}": {"domain": "vision", "data": data} for name in case.teachers},
            "teachers": {
                name: {"task": f"of_{name}", "loader": "python", "model": "none", "min_replicas": each.replicas,
                       "window": case.window, "placement": {"num_cpus": 0},
                       "options": {"row_s": each.row_ms / 1e3, "computes": case.computes}}
                for name, each in case.teachers.items()
            },
            "store": {"fill": case.keeps},
            "ray": {"num_cpus": os.cpu_count() or 1},
        }
    )  # fmt: skip


def prediction(case: Case, rows: int) -> Steady:
    """What the model makes of one probed micro-batch of everybody."""
    cores = 1.0 if case.computes else 0.0

    def crew(name: str, seconds: float, num_rows: int, replicas: int = 1) -> Crew:
        probed_s = median_ms(lambda: spend(seconds, case.computes), budget_s=0.3) / 1e3
        return Crew(name, Work(num_rows, 0.0, probed_s, cores), (Server(Spot(0)),) * replicas)

    student = crew(STUDENT, case.step_ms / 1e3, rows * len(case.teachers))
    asked = [crew(name, each.row_ms * rows / 1e3, rows, each.replicas) for name, each in case.teachers.items()]
    missing = {each.name: 1 - case.known for each in asked} if case.known < 1 else {}
    keeping_s, reading_s = probe_store(rows, NUM_CLASSES) if case.keeps else (0.0, 0.0)
    store_s = len(asked) * (keeping_s if missing else reading_s)
    if not missing:
        return steady_local(student, [], {}, store_s)
    return steady_remote(student, asked, missing, case.window, [float(os.cpu_count() or 1)], store_s)


def measured(case: Case, config: Config, options: argparse.Namespace) -> Iterator[float]:
    """Samples a second of each round; what others disturbed is done again."""
    labels = tuple(str(number) for number in range(NUM_CLASSES))
    steps = WARM + options.steps + case.window
    num_rows = steps * options.rows
    specs = {
        name: PoolSpec(hashlib.sha256(f"{case.name} {name}".encode()).hexdigest(), name, config, labels,
                       canary_views(config.tasks[f"of_{name}"]), tuple(sys.path))
        for name in case.teachers
    }  # fmt: skip
    client = PoolClient(specs)
    deadline = time.monotonic() + STARTED_S
    while any(client.link(name).num_serving < each.replicas for name, each in case.teachers.items()):
        if time.monotonic() > deadline:
            sys.exit(f"{case.name}: not all replicas serve after {STARTED_S:.0f} s")
        time.sleep(0.05)
    done, began = 0, time.monotonic()
    try:
        for attempt in itertools.count():
            taught = {
                name: TaughtSplit(name, f"of_{name}", "train", f"rows {attempt}", num_rows, NUM_CLASSES, (0,))
                for name in case.teachers
            }
            tables = RunTables(config, taught) if case.keeps else None
            try:
                if tables is not None and case.known:
                    know(tables, case, num_rows)
                stream = LabelStream(config, config.teachers, client, tables, lets_go=False)
                order = np.random.default_rng(attempt).permutation(num_rows).reshape(steps, options.rows)
                watch = Others()
                rate = rate_of(case, stream, order)
                quiet = watch.share() <= QUIET
            finally:
                if tables is not None:
                    tables.close()
            if quiet or time.monotonic() - began > options.patience:
                case.disturbed.append(not quiet)
                yield rate
                done += 1
            if done == options.rounds:
                return
    finally:
        client.close()


def know(tables: RunTables, case: Case, num_rows: int) -> None:
    rows = np.random.default_rng(1).permutation(num_rows)[: round(case.known * num_rows)]
    for name in case.teachers:
        tables.open(name, 0).write(rows, np.zeros((len(rows), NUM_CLASSES), np.float16))
    tables.close()


class Others:
    """The part of the machine that neither this process nor any that it started has taken since then."""

    def __init__(self) -> None:
        self._began = self._look()

    def share(self) -> float:
        passed_s, busy, ours = (now - then for now, then in zip(self._look(), self._began, strict=True))
        return max(0.0, busy - ours) / passed_s / (os.cpu_count() or 1)

    def _look(self) -> tuple[float, float, float]:
        own = psutil.Process()
        seconds = 0.0
        for process in [own, *own.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                seconds += times.user + times.system
        return time.perf_counter(), busy_s(), seconds


def rate_of(case: Case, stream: LabelStream, batches: NDArray[np.int64]) -> float:
    views = [{f"of_{name}": request(rows) for name in case.teachers} for rows in batches]
    times = []
    for _ in stream.stream(iter(views)):
        times.append(time.perf_counter())
        spend(case.step_ms / 1e3, case.computes)
    last = len(times) - case.window  # from here on nothing is asked any more
    rows: StepViews = views[0]
    return (last - WARM) * sum(len(each) for each in rows.values()) / (times[last] - times[WARM])


def request(rows: NDArray[np.int64]) -> ViewBatch:
    pixels = np.zeros((len(rows), SIDE, SIDE, 1), np.uint8)
    return ViewBatch("vision", pixels, np.full(len(rows), -1, np.int64), rows, 0)


def report(options: argparse.Namespace, found: list[tuple[Case, Steady, list[float]]]) -> None:
    from raydistill.evaluation.assemble import machine

    print(f"{date.today()}, {machine()}; ray {version('ray')}")
    print(f"{options.rounds} rounds of {options.steps} micro-batches of {options.rows} rows a task\n")
    print(f"{'case':38}{'predicted':>10}{'measured':>10}{'spread':>18}{'predicted ÷ measured':>22}  bound")
    ratios = {}
    for case, predicted, rates in found:
        median, spread = statistics.median(rates), f"{min(rates):,.0f}…{max(rates):,.0f}"
        ratios[case.name] = predicted.samples_per_s / median
        print(f"{case.name:38}{predicted.samples_per_s:10,.0f}{median:10,.0f}{spread:>18}"
              f"{ratios[case.name]:22.3f}  {predicted.bound}")  # fmt: skip
    worst = max(ratios, key=lambda name: abs(ratios[name] - 1))
    holds = "holds" if all(abs(ratio - 1) <= TARGET for ratio in ratios.values()) else "is missed"
    print(f"\nfurthest off: {worst}, {ratios[worst]:.3f}; target within {TARGET:.0%}: {holds}")
    disturbed = sum(sum(case.disturbed) for case, _, _ in found)
    rounds = options.rounds * len(found)
    print(f"{disturbed} of {rounds} rounds beside others who took more than {QUIET:.0%} of the machine")


if __name__ == "__main__":
    main()
