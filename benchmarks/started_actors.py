"""What Ray itself keeps in an actor that starts and ends others, or that many processes call: the soak's lower limit.

A bare actor, without anything of ours, starts named actors, asks each a few things and ends it; then short-lived
processes call it. Told is how much its own memory grows for each.

    python benchmarks/started_actors.py [--actors 160] [--callers 60]
"""

from __future__ import annotations

import argparse
import datetime
import os
import subprocess
import sys
import time
from importlib.metadata import version

import numpy as np
import psutil
import ray

from raydistill.evaluation.assemble import machine

NAMESPACE, NAME, CALLS = "bare", "starter", 20
CALLER = f"""
import ray, sys
ray.init(sys.argv[1], log_to_driver=False, logging_level="ERROR")
starter = ray.get_actor("{NAME}", namespace="{NAMESPACE}")
for _ in range({CALLS}):
    ray.get(starter.pid.remote())
"""


class Started:
    def ping(self) -> int:
        return os.getpid()


class Starter:
    def __init__(self) -> None:
        self._kind = ray.remote(max_restarts=0)(Started)

    def start_and_end(self, count: int) -> None:
        for _ in range(count):
            name = f"started-{time.time_ns()}"
            self._kind.options(
                name=name, namespace=NAMESPACE, lifetime="detached", num_cpus=0, enable_task_events=False
            ).remote()
            handle = ray.get_actor(name, namespace=NAMESPACE)
            for _ in range(CALLS):
                ray.get(handle.ping.remote())
            ray.kill(handle)

    def pid(self) -> int:
        return os.getpid()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--actors", type=int, default=160)
    parser.add_argument("--callers", type=int, default=60)
    options = parser.parse_args()
    ray.init("local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    starter = (
        ray.remote(Starter)
        .options(name=NAME, namespace=NAMESPACE, lifetime="detached", num_cpus=0, enable_task_events=False)
        .remote()
    )
    process = psutil.Process(ray.get(starter.pid.remote()))
    address = ray.get_runtime_context().gcs_address

    def own_kib() -> float:
        return sum(part.private_dirty for part in process.memory_maps()) / 2**10

    def grown(steps: int, each: int, step) -> float:
        sizes = []
        for _ in range(steps):
            step(each)
            time.sleep(1)
            sizes.append(own_kib())
        rest = sizes[len(sizes) // 3 :]  # the first third warms up
        return float(np.polyfit(np.arange(len(rest)) * each, rest, 1)[0])

    def call(count: int) -> None:
        for _ in range(count):
            subprocess.run([sys.executable, "-c", CALLER, address], check=True)

    actors = grown(options.actors // 10, 10, lambda count: ray.get(starter.start_and_end.remote(count)))
    callers = grown(options.callers // 5, 5, call)
    print(f"{datetime.date.today()}, {machine()}; ray {version('ray')}")
    print(f"a bare actor: {actors:.1f} KiB for each of {options.actors} actors that it started and ended")
    print(f"a bare actor: {callers:.1f} KiB for each of {options.callers} processes that called it {CALLS} times")


if __name__ == "__main__":
    main()
