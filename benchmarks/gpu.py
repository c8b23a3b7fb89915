"""Three claims on one GPU: the pool, the warm store and ten epochs, at the sizes of a real training.

The teacher is a ResNet-50 for pictures of 224 pixels and 1,000 classes, the student of size `base`, both in bf16 where
the GPU has it; the pictures are random. `--share`: one GPU for both. `--no-share`: the teacher keeps to a second GPU
where there is one, else to the processor.

1. pool: samples a second through a replica ÷ direct calls of the same model on the same device.
2. store: a training step with a warm store ÷ the same step without a teacher.
3. epochs: wall clock of the whole training, raydistill ÷ a loop written by hand that asks the teacher in every step.
   raydistill asks once, fills its store and reads it from then on: from a pool where the teacher has a device of its
   own, else in the student's process. T is an epoch of the teacher's forward passes, S one of the student alone. All
   models but the student are loaded before the clock starts.

Medians of interleaved rounds; ratios are of one round each.

    python benchmarks/gpu.py [--no-share] [--rounds 5] [--claims pool store epochs]
    python benchmarks/gpu.py --device cpu --tiny     # tries the script out where there is no GPU
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from peers.on_device import by_hand, teacher_epoch_s, with_raydistill
from peers.synthetic import TASK, TEACHER, TINY, Sizes, Synthetic, make

from raydistill.commands.labels import label_job
from raydistill.config.models import Config
from raydistill.evaluation.assemble import machine
from raydistill.soft_labels.source import Labeller, total_cost
from raydistill.soft_labels.stream import LabelStream
from raydistill.soft_labels.tables import RunTables
from raydistill.teachers.labelling import LabelJob, label_split
from raydistill.teachers.local import LocalTeachers
from raydistill.teachers.teacher import Teacher, load_teacher

if TYPE_CHECKING:
    from raydistill.teachers.pool.opening import Pools

CLAIMS = ("pool", "store", "epochs")
POOL_LEAST, STORE_MOST, SLACK = 0.95, 1.03, 1.1
POOL_BATCHES, STORE_STEPS = 40, 60
COMPARED_STEP, TOLERANCE = 20, 0.02  # of the losses, relative, before rounding has grown


@dataclass(frozen=True)
class Bench:
    """Attributes:
    device: the student's.
    teacher: in this process, on its own device.
    ask: makes who answers for it while a student trains.
    """

    given: Synthetic
    folder: Path
    device: torch.device
    teacher: Teacher
    ask: Callable[[], Labeller]
    rounds: int

    def config(self, num_steps: int, store: str) -> Config:
        config = self.given.config
        training = config.training.model_copy(update={"num_steps": num_steps, "evaluate_every": num_steps})
        kept = config.store.model_copy(update={"path": str(self.folder / store)})
        return config.model_copy(update={"training": training, "store": kept})

    def job(self, config: Config) -> LabelJob:
        return label_job(config, {TASK: self.given.data}, TEACHER, self.teacher.fingerprint, "train")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", action=argparse.BooleanOptionalAction, default=True, help="one GPU for both")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--claims", nargs="+", choices=CLAIMS, default=list(CLAIMS))
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="models and pictures of a toy")
    parser.add_argument("--threads", type=int, default=min(4, os.cpu_count() or 1), help="of torch, in every process")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit("there is no GPU here; `--device cpu --tiny` tries the script out on the processor")
    torch.set_num_threads(options.threads)
    student, teacher = devices(options)
    sizes = TINY if options.tiny else Sizes()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        given = make(sizes, Path(folder), teacher.type == "cuda", options.threads)
        pools = None if options.share and "pool" not in options.claims else stack.enter_context(pool_of(given))
        loaded = load_teacher(given.config, TEACHER, given.data.label_names, str(teacher))
        local = {TEACHER: loaded}
        ask = pools.client if pools and not options.share else lambda: LocalTeachers(dict(local))
        bench = Bench(given, Path(folder), student, loaded, ask, options.rounds)
        print(f"{date.today()}, {machine()}; Python {platform.python_version()}, torch {torch.__version__}, "
              f"ray {installed('ray')}")  # fmt: skip
        precision = "bf16" if loaded.bf16 else "fp32"
        print(f"teacher {sizes.teacher} on {teacher}, {precision}; student {sizes.student} on {student}; "
              f"{options.threads} thread(s), {options.rounds} rounds; {dataclasses.asdict(sizes)}\n")  # fmt: skip
        if pools and "pool" in options.claims:
            pool_claim(bench, pools)
        if "store" in options.claims:
            store_claim(bench)
        if "epochs" in options.claims:
            epochs_claim(bench, sizes)


def devices(options: argparse.Namespace) -> tuple[torch.device, torch.device]:
    """The student's and the teacher's. Ray gives a replica the first GPU: the student then takes the second."""
    if options.device == "cpu":
        return torch.device("cpu"), torch.device("cpu")
    if options.share:
        return torch.device("cuda:0"), torch.device("cuda:0")
    if torch.cuda.device_count() > 1:
        return torch.device("cuda:1"), torch.device("cuda:0")
    return torch.device("cuda:0"), torch.device("cpu")


@contextlib.contextmanager
def pool_of(given: Synthetic) -> Iterator[Pools]:
    from raydistill.commands.cluster import cluster
    from raydistill.teachers.pool.opening import open_pools

    with cluster(given.config), open_pools(given.config, {TASK: given.data.label_names}, lambda line: None) as pools:
        yield pools


def pool_claim(bench: Bench, pools: Pools) -> None:
    from pool_throughput import through_pool

    rows, window = bench.given.config.training.batch_size, bench.given.config.teachers[TEACHER].window
    starts = [step % bench.given.steps_per_epoch * rows for step in range(POOL_BATCHES)]
    batches = [bench.given.data.train.views(np.arange(start, start + rows)) for start in starts]

    def rate(run: Callable[[], object]) -> float:
        began = time.perf_counter()
        run()
        return rows * len(batches) / (time.perf_counter() - began)

    rates = interleaved(bench.rounds, {
        "pool": lambda: rate(lambda: through_pool(pools.labeller, batches, window)),
        "direct": lambda: rate(lambda: [bench.teacher.logits(views) for views in batches]),
    })  # fmt: skip
    told(rates, "samples/s", ",.0f")
    ratios = divided(rates, "pool", "direct")
    ratio = statistics.median(ratios)
    print(f"1. pool ÷ direct: {shown(ratios)}; target {POOL_LEAST} at least: {verdict(ratio >= POOL_LEAST)}\n")


def store_claim(bench: Bench) -> None:
    config = bench.config(STORE_STEPS, "warm")
    job, labeller = bench.job(config), bench.ask()
    label_split(config, job, labeller, print, lambda line: None)
    labeller.close()

    def step_ms(with_store: bool) -> float:
        source = LabelStream(config, config.teachers, None, RunTables(config, {TEACHER: job.taught}))
        with tempfile.TemporaryDirectory(dir=bench.folder) as folder:
            done = with_raydistill(
                bench.given, config, bench.device, Path(folder), (lambda: source) if with_store else None
            )
        return done.seconds * 1e3 / STORE_STEPS

    times = interleaved(bench.rounds, {"warm store": lambda: step_ms(True), "no teacher": lambda: step_ms(False)})
    told(times, "ms a step", ".2f")
    ratios = divided(times, "warm store", "no teacher")
    holds = statistics.median(ratios) <= STORE_MOST
    print(f"2. warm store ÷ no teacher: {shown(ratios)}; target {STORE_MOST} at most: {verdict(holds)}\n")


def epochs_claim(bench: Bench, sizes: Sizes) -> None:
    given, steps, epochs = bench.given, bench.given.config.training.num_steps, sizes.num_epochs
    losses: dict[str, dict[int, float]] = {}

    def ours() -> float:
        with tempfile.TemporaryDirectory(dir=bench.folder) as folder:
            config = bench.config(steps, f"{Path(folder).name}/store")
            tables = RunTables(config, {TEACHER: bench.job(config).taught})
            source = LabelStream(config, config.teachers, bench.ask(), tables)
            done = with_raydistill(given, config, bench.device, Path(folder) / "run", lambda: source)
        cost, rows = total_cost(source.cost().values()), sizes.num_rows
        if (cost.samples, cost.samples_cached) != (rows, rows * (epochs - 1)):
            sys.exit(f"raydistill asked {cost.samples} rows and read {cost.samples_cached}, not {rows} once each")
        losses["raydistill"] = done.losses
        return done.seconds

    def theirs() -> float:
        done = by_hand(given, bench.device, bench.teacher, steps)
        losses["by hand"] = done.losses
        return done.seconds

    times = interleaved(bench.rounds, {
        "raydistill": ours, "by hand": theirs, "T": lambda: teacher_epoch_s(given, bench.teacher),
        "S": lambda: by_hand(given, bench.device, None, steps).seconds / epochs,
    })  # fmt: skip
    told(times, "s", ".3f")
    step = min(COMPARED_STEP, steps)
    compared = {way: each[step] for way, each in losses.items()}
    if max(compared.values()) > min(compared.values()) * (1.0 + TOLERANCE):
        sys.exit(f"the ways did not do the same work: losses at step {step} are {compared}")
    pairs = zip(times["T"], times["S"], strict=True)
    target = statistics.median(SLACK * (t + epochs * s) / (epochs * (t + s)) for t, s in pairs)
    ratios = divided(times, "raydistill", "by hand")
    holds = statistics.median(ratios) <= target
    print(f"3. {epochs} epochs, raydistill ÷ by hand: {shown(ratios)}; target (T + {epochs}·S) / ({epochs}·(T + S)) × "
          f"{SLACK} = {target:.3f} at most: {verdict(holds)}")  # fmt: skip


def interleaved(rounds: int, ways: dict[str, Callable[[], float]]) -> dict[str, list[float]]:
    """What each way returns, in each round; the first round warms up and is not given."""
    values: dict[str, list[float]] = {way: [] for way in ways}
    names = list(ways)
    for round_ in range(rounds + 1):
        # Each round begins with another: what slows a machine down for a while hits all alike.
        first = round_ % len(names)
        for way in names[first:] + names[:first]:
            value = ways[way]()
            if round_:
                values[way].append(value)
    return values


def told(values: dict[str, list[float]], unit: str, form: str) -> None:
    for way, each in values.items():
        print(f"   {way:12}{statistics.median(each):{form}} {unit} ({min(each):{form}}…{max(each):{form}})")


def divided(values: dict[str, list[float]], way: str, base: str) -> list[float]:
    return [one / other for one, other in zip(values[way], values[base], strict=True)]


def shown(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.3f} ({min(ratios):.3f}…{max(ratios):.3f})"


def verdict(holds: bool) -> str:
    return "holds" if holds else "is missed"


def installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    main()
