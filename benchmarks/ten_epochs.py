"""Ten epochs of distillation: raydistill against torchdistill and against a loop written by hand.

All three train the same student from the same weights on the same rows, views, loss, optimizer, schedule, precision and
threads; each run is a fresh process on the CPU. The peers ask the teacher in every step of every epoch. raydistill asks
once for each view, fills its store and reads it from then on. In the same rounds: T, the seconds that the teacher alone
computes for an epoch, and S, the seconds of an epoch without a teacher.

Timed is what lies between loading the models and the last step; for raydistill that includes its log, its checkpoint
and its validation, which the peers are spared. A run waits until the machine is free, and is broken off and repeated
where other processes take more than a tenth of it.

    python benchmarks/ten_epochs.py [--rounds 5] [--rows 2560] [--epochs 10] [--views 1]
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

WAYS = ("raydistill", "torchdistill", "by hand", "student alone", "teacher alone")
SLACK = 1.1
PATIENCE_S = 3_600.0  # for others to leave the machine
COMPARED_STEP, TOLERANCE = 20, 0.02  # before rounding has grown; relative
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=2560, help="training rows; whole batches of 64")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--views", type=int, default=1, help="distinct views of a row: so many epochs fill the store")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of torch, in every process")
    parser.add_argument("--others", type=float, default=0.1, help="share of the machine that other processes may take")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)  # in the processes that are timed
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        print(json.dumps(run_here(options)))
        return
    if options.views > options.epochs:
        parser.error(f"--views {options.views} is more than --epochs {options.epochs}: nothing would be read again")

    from peers import setting, torchdistill_box

    from raydistill.errors import RaydistillError

    try:
        torchdistill_box.check_installed()
        with tempfile.TemporaryDirectory() as folder:
            setting.prepare(Path(folder), options.rows, options.views, options.epochs)
            rounds: list[dict[str, dict[str, Any]]] = []
            with contextlib.suppress(KeyboardInterrupt):  # whole rounds are worth a report
                for number in range(options.rounds):
                    rounds.append(one_round(options, Path(folder), number))
    except RaydistillError as error:
        sys.exit(str(error))
    if not rounds:
        sys.exit("stopped before a whole round was measured")
    report(options, rounds)


def run_here(options: argparse.Namespace) -> dict[str, Any]:
    """One way, in this process."""
    import torch
    from peers import hand_written, setting, torchdistill_box
    from peers.neighbours import DISTURBED, Neighbours

    torch.set_num_threads(options.threads)
    given = setting.Setting(options.folder, options.epochs)
    watched = Neighbours()
    watched.give_up_beyond(options.others)
    if options.way == "teacher alone":
        outcome = setting.Outcome(hand_written.teacher_epoch_s(given))
    elif options.way == "raydistill":
        from peers import ours

        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            outcome = ours.train(given, Path(folder))
    elif options.way == "torchdistill":
        outcome = torchdistill_box.train(given)
    else:
        outcome = hand_written.train(given, with_teacher=options.way == "by hand")
    others = watched.share()
    if others > options.others:
        sys.exit(DISTURBED)
    return {**dataclasses.asdict(outcome), "others": others}


def one_round(options: argparse.Namespace, folder: Path, number: int) -> dict[str, dict[str, Any]]:
    """Every way once, each round beginning with another: what slows a machine down for a while hits all alike."""
    first = number % len(WAYS)
    outcomes: dict[str, dict[str, Any]] = {}
    for way in WAYS[first:] + WAYS[:first]:
        outcomes[way] = run_apart(options, folder, way)
        print(f"round {number + 1}: {way}: {outcomes[way]['seconds']:.2f} s", file=sys.stderr, flush=True)
    return outcomes


def run_apart(options: argparse.Namespace, folder: Path, way: str) -> dict[str, Any]:
    """One way, in a process of its own that has the machine to itself."""
    from peers.neighbours import DISTURBED, quiet

    words = [f"--way={way}", f"--epochs={options.epochs}", f"--threads={options.threads}", f"--folder={folder}"]
    environment = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(options.threads))}
    command = [sys.executable, __file__, *words, f"--others={options.others}"]
    broken_off = 0
    while quiet(options.others, PATIENCE_S):
        began = time.perf_counter()
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode == 0:
            outcome: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
            return outcome | {"process_s": time.perf_counter() - began, "broken_off": broken_off}
        if done.returncode != DISTURBED:
            sys.exit(f"{way} failed:\n{done.stderr}")
        broken_off += 1
    sys.exit(f"{way}: other processes keep this machine busy; end them, or measure beside them with --others 1")


def report(options: argparse.Namespace, rounds: list[dict[str, dict[str, Any]]]) -> None:
    """Medians, ratios, the target, and whether all did the same work. Exits with an error where they did not."""
    from raydistill.evaluation.assemble import machine

    steps, epochs = options.rows * options.epochs // 64, options.epochs
    print(f"{datetime.date.today()}, {machine()}; torch {version('torch')}, torchdistill {version('torchdistill')}")
    print(
        f"{len(rounds)} round(s) of {epochs} epochs, {options.rows:,} rows in {options.views} view(s), "
        f"{steps:,} steps of 64 rows, {options.threads} thread(s)\n"
    )
    print(f"{'way':16}{'s':>8}{'spread':>16}{'others':>8}{'process s':>11}{'asked':>9}{'stored':>9}{'loss 20':>10}"
          f"{'loss end':>10}{'accuracy':>10}")  # fmt: skip
    for way in WAYS:
        runs = [outcomes[way] for outcomes in rounds]
        seconds = [run["seconds"] for run in runs]
        line = f"{way:16}{statistics.median(seconds):8.2f}{spread(seconds):>16}"
        line += f"{max(run['others'] for run in runs):8.0%}{statistics.median(run['process_s'] for run in runs):11.1f}"
        if way != "teacher alone":
            losses = runs[-1]["losses"]
            line += f"{runs[-1]['asked']:9,}{runs[-1]['from_store']:9,}{losses[str(min(COMPARED_STEP, steps))]:10.4f}"
            line += f"{losses[str(steps)]:10.4f}{runs[-1]['accuracy']:10.3f}"
        print(line + ("   (an epoch)" if way == "teacher alone" else ""))

    broken_off = sum(run["broken_off"] for outcomes in rounds for run in outcomes.values())
    print(
        f"\nothers: the most that other processes took of the machine; {broken_off} run(s) broken off because of them"
    )
    # Ratios of one round each: its runs shared the machine's mood.
    teacher = [outcomes["teacher alone"]["seconds"] for outcomes in rounds]
    student = [outcomes["student alone"]["seconds"] / epochs for outcomes in rounds]
    targets = [
        SLACK * (options.views * t + epochs * s) / (epochs * (t + s)) for t, s in zip(teacher, student, strict=True)
    ]
    target = statistics.median(targets)
    print(f"T {statistics.median(teacher):.3f} s, S {statistics.median(student):.3f} s an epoch")
    filled = "T" if options.views == 1 else f"{options.views}·T"
    print(f"target ({filled} + {epochs}·S) / ({epochs}·(T + S)) × {SLACK}: {target:.3f} ({spread(targets)})")
    for peer in ("torchdistill", "by hand"):
        ratios = [outcomes["raydistill"]["seconds"] / outcomes[peer]["seconds"] for outcomes in rounds]
        ratio = statistics.median(ratios)
        verdict = "holds" if ratio <= target else "is missed"
        print(f"raydistill ÷ {peer}: {ratio:.3f} ({spread(ratios)}): the target {verdict}")
    check_same_work(options, rounds[-1], min(COMPARED_STEP, steps))


def spread(values: list[float]) -> str:
    return f"{min(values):.3f}…{max(values):.3f}"


def check_same_work(options: argparse.Namespace, outcomes: dict[str, dict[str, Any]], step: int) -> None:
    losses = {way: outcomes[way]["losses"][str(step)] for way in WAYS[:3]}
    if max(losses.values()) > min(losses.values()) * (1.0 + TOLERANCE):
        sys.exit(f"the ways did not do the same work: losses at step {step} are {losses}")
    asked, stored = outcomes["raydistill"]["asked"], outcomes["raydistill"]["from_store"]
    rows, epochs, views = options.rows, options.epochs, options.views
    if (asked, stored) != (rows * views, rows * (epochs - views)):
        sys.exit(f"raydistill asked {asked} rows and read {stored}: {rows} rows in {views} view(s) were expected")


if __name__ == "__main__":
    main()
