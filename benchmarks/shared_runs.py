"""Two runs that share teachers and soft labels, against one run: what the teachers compute, and how long it takes.

Real commands: `raydistill distill` on the demo's pictures, with other seeds, a fresh store for each case, and as many
steps as it takes to hear of every training row in every view. The two runs are started at once, in one Ray that
belongs to neither (they share the pool and the store), and in a Ray each (they share the store only). Every process
that ever became a teacher is counted. Medians over rounds, each of which begins with another case.

    python benchmarks/shared_runs.py [--rounds 3] [--rows 4000] [--views 2]
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import psutil
import yaml

import raydistill
from raydistill.evaluation.assemble import machine

TARGET = 1.02
BATCH, HELD_OUT = 32, 200  # rows of a step; of the validation and of the test split
CPUS = 4  # that every Ray is told of
LIMIT_S = 900.0


@dataclass(frozen=True)
class Case:
    """So many runs at once, in one Ray or in a Ray each."""

    name: str
    num_runs: int
    shared_ray: bool


CASES = (
    Case("one run", 1, True),
    Case("two runs, one Ray", 2, True),
    Case("one run, its own Ray", 1, False),
    Case("two runs, a Ray each", 2, False),
)


@dataclass(frozen=True)
class Outcome:
    """What a case took: rows that teachers computed, rows that the store answered, seconds, processes."""

    samples: int
    cached: int
    wall_s: float
    num_teachers: int


def main() -> None:
    if sys.argv[1:] == ["--head"]:
        keep_ray_up()
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=4000, help="training rows; whole batches of 32")
    parser.add_argument("--views", type=int, default=2, help="of each")
    options = parser.parse_args()
    # Ray gives a new cluster a token, and asks nobody for it who names an address, unless this says so.
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["OMP_NUM_THREADS"] = "1"  # two runs and a teacher: more threads than cores would be what is measured
    rounds: list[dict[str, Outcome]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = write_config(folder, options)
        log = folder / "teach.txt"
        finish(start("teach", config, "--out", folder / "teach", log=log), log)
        with ray_of_nobody() as head:
            for number in range(options.rounds):
                first = number % len(CASES)
                outcomes: dict[str, Outcome] = {}
                for case in CASES[first:] + CASES[:first]:
                    outcomes[case.name] = measure(case, folder / f"{number}-{CASES.index(case)}", config, head)
                    print(f"round {number + 1}: {case.name}: {outcomes[case.name]}", file=sys.stderr, flush=True)
                rounds.append(outcomes)
    report(options, rounds)


def write_config(folder: Path, options: argparse.Namespace) -> Path:
    """The demo's picture task; the teacher is trained for a moment only: its answers take as long as a good one's."""
    whole = raydistill.load_config("demo").model_dump(mode="json")
    data = {
        **whole["tasks"]["clothes"]["data"], "max_train": options.rows, "max_validation": HELD_OUT,
        "max_test": HELD_OUT, "num_views": options.views,
    }  # fmt: skip
    teacher = whole["teachers"]["resnet"]
    brief = {**teacher, "allow_chance_level": True, "train": {**teacher["train"], "num_epochs": 0.05}}
    steps = options.rows * options.views // BATCH
    training = {"task_batch_size": {}, "batch_size": BATCH, "num_steps": steps, "evaluate_every": steps}
    content = {
        **whole, "name": "shared", "tasks": {"clothes": {**whole["tasks"]["clothes"], "data": data}},
        "teachers": {"resnet": brief}, "student": {**whole["student"], "embeddings_from": None},
        "distill": {**whole["distill"], "soft_labels": "remote"}, "training": {**whole["training"], **training},
    }  # fmt: skip
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path


def measure(case: Case, folder: Path, config: Path, head: tuple[int, str]) -> Outcome:
    """Run it.

    Args:
        head: process id and address of the Ray that belongs to no run.
    """
    folder.mkdir()
    where = f"ray.address={head[1]}" if case.shared_ray else f"ray.num_cpus={CPUS}"
    outs = [folder / f"run-{seed}" for seed in range(case.num_runs)]
    began = time.perf_counter()
    commands = [
        start("distill", config, f"seed={seed}", f"store.path={folder / 'store'}", where, "--out", out,
              log=out.with_suffix(".txt"))
        for seed, out in enumerate(outs)
    ]  # fmt: skip
    try:
        with teachers_below([head[0], *(command.pid for command in commands)]) as teachers:
            for command, out in zip(commands, outs, strict=True):
                finish(command, out.with_suffix(".txt"))
    finally:
        for command in commands:
            command.kill()  # where one failed, or the user has had enough
    wall_s = time.perf_counter() - began
    costs = [json.loads((out / "report.json").read_text(encoding="utf-8"))["cost"] for out in outs]
    samples, cached = (sum(cost[key] for cost in costs) for key in ("teacher_samples", "teacher_samples_cached"))
    wait_until_freed(head[0])
    return Outcome(samples, cached, wall_s, len(teachers))


@contextlib.contextmanager
def ray_of_nobody() -> Iterator[tuple[int, str]]:
    """Process id and address."""
    head = subprocess.Popen(
        [sys.executable, __file__, "--head"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert head.stdin is not None
    assert head.stdout is not None
    try:
        yield head.pid, head.stdout.readline().strip()
    finally:
        head.stdin.close()
        head.wait(60)


def keep_ray_up() -> None:
    """Until stdin ends."""
    import ray

    ray.init("local", num_cpus=CPUS, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    print(ray.get_runtime_context().gcs_address, flush=True)
    sys.stdin.read()


@contextlib.contextmanager
def teachers_below(roots: list[int]) -> Iterator[set[int]]:
    """Process ids of all teachers that come up meanwhile. A process is one for seconds at least: looks find it."""
    seen: set[int] = set()
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.2):
            for root in roots:
                seen.update(living_teachers(root))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield seen
    finally:
        over.set()
        watcher.join()


def living_teachers(root: int) -> set[int]:
    found = set()
    with contextlib.suppress(psutil.Error):
        for process in psutil.Process(root).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if (process.cmdline() or [""])[0].startswith("ray::TeacherReplica"):
                    found.add(process.pid)
    return found


def wait_until_freed(root: int) -> None:
    """The next case finds no pool that is still warm."""
    ends = time.monotonic() + 30
    while living_teachers(root):
        if time.monotonic() > ends:
            sys.exit("all runs have ended, and a teacher is still running after 30 s")
        time.sleep(0.1)


def start(*words: object, log: Path) -> subprocess.Popen[bytes]:
    """`raydistill WORDS…`"""
    with log.open("wb") as file:
        command = [sys.executable, "-m", "raydistill.cli", *map(str, words)]
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, cwd=log.parent)


def finish(command: subprocess.Popen[bytes], log: Path) -> None:
    try:
        code: int | None = command.wait(LIMIT_S)
    except subprocess.TimeoutExpired:
        code = None
    if code != 0:
        what = f"failed with exit code {code}" if code is not None else f"still ran after {LIMIT_S:.0f} s"
        sys.exit(f"a run {what}:\n{log.read_text(encoding='utf-8')[-3000:]}")


def report(options: argparse.Namespace, rounds: list[dict[str, Outcome]]) -> None:
    """Medians, ratios, the target, and whether all did the same work. Exits with an error where they did not."""
    steps = options.rows * options.views // BATCH
    print(f"{datetime.date.today()}, {machine()}; torch {version('torch')}, ray {version('ray')}")
    print(f"{options.rounds} round(s), {options.rows:,} rows in {options.views} view(s), {steps:,} steps of {BATCH}\n")
    print(f"{'case':24}{'samples':>10}{'÷ one':>8}{'s':>8}{'spread':>18}{'÷ one':>8}{'teachers':>10}")
    for case in CASES:
        alone = next(other.name for other in CASES if (other.num_runs, other.shared_ray) == (1, case.shared_ray))
        own = [outcomes[case.name] for outcomes in rounds]
        pairs = [(outcomes[case.name], outcomes[alone]) for outcomes in rounds]
        seconds = [outcome.wall_s for outcome in own]
        samples = statistics.median(mine.samples / other.samples for mine, other in pairs)
        wall = statistics.median(mine.wall_s / other.wall_s for mine, other in pairs)
        teachers = statistics.median(outcome.num_teachers for outcome in own)
        print(
            f"{case.name:24}{statistics.median(outcome.samples for outcome in own):10,.0f}{samples:8.3f}"
            f"{statistics.median(seconds):8.1f}{f'{min(seconds):.1f}…{max(seconds):.1f}':>18}{wall:8.2f}{teachers:10g}"
        )
        if case.num_runs > 1:
            verdict = "holds" if samples <= TARGET else "is missed"
            print(f"  teacher samples of both ÷ one: {samples:.3f}, target {TARGET} at most: {verdict}")
    heard = options.rows // BATCH * BATCH * options.views + 2 * HELD_OUT
    for outcomes in rounds:
        for case in CASES:
            got = outcomes[case.name].samples + outcomes[case.name].cached
            if got != heard * case.num_runs:
                sys.exit(f"{case.name}: {got:,} rows were heard, not {heard * case.num_runs:,}: not the same work")


if __name__ == "__main__":
    main()
