"""Samples a second through the pool, against the same model called directly in this process.

One replica and one client that keeps a window of requests under way, as a student's stream does. The model is the
demo's clothes ResNet; replica and direct calls have as many torch threads each, work on the same micro-batches and give
the same bits. `direct` is what a replica does for a request: views in, float16 logits out. `forward only` is its part
that a training loop by hand would not share with its student: the forward pass of tensors that are prepared already.
Then requests of one row, many of which are under way at a time: what a call costs beside its forward pass.

Medians of interleaved rounds; ratios are of one round each.

    python benchmarks/pool_throughput.py [--rounds 7] [--batches 40] [--threads 1] [--window 4]
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peers import setting
from peers.setting import TASK, TEACHER, Setting

import raydistill
from raydistill.commands.cluster import cluster
from raydistill.data.batch import ViewBatch
from raydistill.evaluation.assemble import machine
from raydistill.precision import autocast
from raydistill.soft_labels.source import Answer, Pending
from raydistill.teachers.pool.client import PoolClient
from raydistill.teachers.pool.opening import open_pools
from raydistill.teachers.teacher import Teacher

TARGET = 0.95
ROWS, SMALL_REQUESTS, SMALL_WINDOW = 64, 400, 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batches", type=int, default=40, help=f"of {ROWS} rows, in a round")
    parser.add_argument("--threads", type=int, default=1, help="of torch, in the replica and in direct calls")
    parser.add_argument("--window", type=int, default=4, help="micro-batches under way")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        setting.prepare(Path(folder), options.batches * ROWS, 1, 1)
        given = Setting(Path(folder), 1)
        cores = max(os.cpu_count() or 1, options.threads + 1)
        words = [f"teachers.{TEACHER}.placement.num_cpus={options.threads}", f"ray.num_cpus={cores}",
                 "distill.soft_labels=remote"]  # fmt: skip
        config = raydistill.load_config(given.config.model_dump(mode="json"), words)
        with cluster(config), open_pools(config, {TASK: given.data.label_names}, lambda line: None) as pools:
            report(options, *measure(options, given, pools.labeller))


def measure(
    options: argparse.Namespace, given: Setting, client: PoolClient
) -> tuple[dict[str, list[float]], list[float]]:
    """Requests a second, and the share of the time that the replica computed, of every round."""
    teacher = given.load_teacher()
    batches = [given.data.train.views(drawn.rows, drawn.view) for drawn in given.epoch(0)]
    small = [batches[0].take(np.array([row % ROWS])) for row in range(SMALL_REQUESTS)]
    prepared = [teacher.network.prepare(views) for views in batches]

    def forward_only() -> None:
        with torch.inference_mode(), autocast(setting.CPU, teacher.bf16):
            for inputs in prepared:
                teacher.network.logits(inputs)

    ways: dict[str, tuple[int, Callable[[], Any]]] = {
        "pool": (len(batches), lambda: through_pool(client, batches, options.window)),
        "direct": (len(batches), lambda: [teacher.logits(views) for views in batches]),
        "forward only": (len(batches), forward_only),
        "pool, 1 row": (len(small), lambda: through_pool(client, small, SMALL_WINDOW)),
        "direct, 1 row": (len(small), lambda: [teacher.logits(views) for views in small]),
    }
    check_same_answers(client, teacher, batches)
    rates: dict[str, list[float]] = {way: [] for way in ways}
    busy: list[float] = []
    for round_ in range(options.rounds + 1):
        # Each round begins with another: what slows a machine down for a while hits all alike.
        order = list(ways)[round_ % len(ways) :] + list(ways)[: round_ % len(ways)]
        for way in order:
            count, run = ways[way]
            began = time.perf_counter()
            answers = run()
            seconds = time.perf_counter() - began
            if round_:  # the first one warms up
                rates[way].append(count / seconds)
                if way == "pool":
                    busy.append(sum(answer.busy_s for answer in answers) / seconds)
    return rates, busy


def through_pool(client: PoolClient, batches: list[ViewBatch], window: int) -> list[Answer]:
    """The answers in order, `window` requests under way."""
    pending: deque[Pending] = deque()
    answers: list[Answer] = []
    for views in batches:
        pending.append(client.ask(TEACHER, views))
        if len(pending) >= window:
            answers.append(pending.popleft().result())
    return answers + [request.result() for request in pending]


def check_same_answers(client: PoolClient, teacher: Teacher, batches: list[ViewBatch]) -> None:
    for views, answer in zip(batches, through_pool(client, batches, 1), strict=True):
        if not np.array_equal(answer.logits, teacher.logits(views)):
            sys.exit("pool and direct calls do not give the same bits: they do not do the same work")


def report(options: argparse.Namespace, rates: dict[str, list[float]], busy: list[float]) -> None:
    print(f"{date.today()}, {machine()}; torch {version('torch')}, ray {version('ray')}")
    print(
        f"{options.rounds} rounds of {options.batches} micro-batches of {ROWS} rows, {options.window} under way, and "
        f"of {SMALL_REQUESTS} of one row, {SMALL_WINDOW} under way; {options.threads} thread(s)\n"
    )
    print(f"{'way':16}{'calls/s':>10}{'samples/s':>12}{'spread':>20}")
    for way, values in rates.items():
        rows = 1 if way.endswith("1 row") else ROWS
        median, spread = statistics.median(values), f"{min(values) * rows:,.0f}…{max(values) * rows:,.0f}"
        print(f"{way:16}{median:10,.1f}{median * rows:12,.0f}{spread:>20}")
    print()
    ratio, words = compared(rates, "pool", "direct")
    print(f"{words}; target {TARGET} at least: {'holds' if ratio >= TARGET else 'is missed'}")
    print(f"the replica computed for {statistics.median(busy):.1%} of that time ({min(busy):.1%}…{max(busy):.1%})")
    print(compared(rates, "pool", "forward only")[1])
    print(compared(rates, "pool, 1 row", "direct, 1 row")[1])


def compared(rates: dict[str, list[float]], way: str, base: str) -> tuple[float, str]:
    ratios = [one / other for one, other in zip(rates[way], rates[base], strict=True)]
    ratio = statistics.median(ratios)
    return ratio, f"{way} ÷ {base}: {ratio:.3f} ({min(ratios):.3f}…{max(ratios):.3f})"


if __name__ == "__main__":
    main()
