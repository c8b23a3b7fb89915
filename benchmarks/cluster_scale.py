"""A pool of many machines, on one: many replicas that wait, on many logical nodes, asked by several students.

Supervisor, clients and replicas are the real ones, in processes of their own, on the raylets of a `Cluster` on this
machine; only what a replica loads is not a model: it waits. Stage by stage there are more replicas. `ideal` is what so
many replicas give that do nothing but wait. CPU is in cores, memory is resident. In the last stage a tenth of the
replicas is killed at once: told is when the supervisor has noticed the last of them, when all are replaced, what the
students got meanwhile, and that no answer was lost.

    python benchmarks/cluster_scale.py [--nodes 32] [--replicas 32 64 128 256] [--students 8] [--seconds 30]
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import signal
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from datetime import date
from importlib.metadata import version
from typing import Any

import psutil
import ray
from peers.neighbours import busy_s
from peers.waiting import TEACHER, joined, request, start_supervisor, waiting_config
from ray.cluster_utils import Cluster

from raydistill.config.models import Config
from raydistill.evaluation.assemble import machine
from raydistill.soft_labels.source import Pending

MIB = 2**20
NODE_RESOURCE = "teacher_node"
STARTED_WITHIN_S = 900.0  # hundreds of processes on few cores
OF_MANY_NODES = {  # what Ray does for each node would else be most of what the one machine does
    "RAY_worker_maximum_startup_concurrency": "1",
    "RAY_health_check_timeout_ms": "60000",
    "RAY_memory_monitor_refresh_ms": "0",
    "REPORTER_UPDATE_INTERVAL_MS": "60000",
    "RAY_metrics_report_interval_ms": "60000",
    "MALLOC_ARENA_MAX": "1",
}


@dataclass(frozen=True)
class Stage:
    """Rates are over all students; `memory` in MiB and `cores` are by who."""

    replicas: int
    samples_per_s: float
    cores: dict[str, float]
    memory: dict[str, float]


class Student:
    """Asks all the time, and counts. Runs in an actor."""

    def __init__(self, config: Config, replicas: int, ahead: int, rows: int) -> None:
        self._client, self._views = joined(config, replicas, STARTED_WITHIN_S), request(rows)
        self._rows, self._ahead = rows, ahead
        self._pending: deque[Pending] = deque()

    def pid(self) -> int:
        return os.getpid()

    def ask_for(self, seconds: float) -> tuple[int, list[float]]:
        """Wrong answers, and when each answer came, in seconds since the epoch."""
        wrong, times = 0, list[float]()
        ends = time.time() + seconds
        while len(self._pending) < self._ahead:
            self._pending.append(self._client.ask(TEACHER, self._views))
        while time.time() < ends:
            answer = self._pending.popleft().result()
            wrong += answer.logits.shape[0] != self._rows
            times.append(time.time())
            self._pending.append(self._client.ask(TEACHER, self._views))
        return wrong, times

    def close(self) -> None:
        for asked in self._pending:
            asked.result()
        self._client.close()


@dataclass
class Watched:
    """Processes by who they are."""

    supervisor: int
    students: list[int] = field(default_factory=list)
    replicas: list[int] = field(default_factory=list)

    def cores_s(self) -> dict[str, float]:
        return {
            "supervisor": of_process(self.supervisor), "students": sum(map(of_process, self.students)),
            "replicas": sum(map(of_process, self.replicas)), "machine": busy_s(),
        }  # fmt: skip

    def memory(self) -> dict[str, float]:
        driver = psutil.Process()
        return {
            "driver": driver.memory_info().rss / MIB,
            "supervisor": psutil.Process(self.supervisor).memory_info().rss / MIB,
            "a student": sum(psutil.Process(pid).memory_info().rss for pid in self.students) / MIB / len(self.students),
            "a replica": sum(psutil.Process(pid).memory_info().rss for pid in self.replicas) / MIB / len(self.replicas),
            "machine": psutil.virtual_memory().used / MIB,
        }


def of_process(pid: int) -> float:
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=32)
    parser.add_argument("--replicas", type=int, nargs="+", default=[32, 64, 128, 256])
    parser.add_argument("--students", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=30.0, help="of a stage")
    parser.add_argument("--rows", type=int, default=64, help="of a request")
    parser.add_argument("--wait-ms", type=float, default=1_000.0)
    parser.add_argument("--killed", type=float, default=0.1, help="share of the replicas, in the last stage")
    options = parser.parse_args()
    for name, value in OF_MANY_NODES.items():
        os.environ.setdefault(name, value)
    most = max(options.replicas)
    each = -(-most // options.nodes)
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 2 * options.students, "include_dashboard": False}
    )
    try:
        for number in range(options.nodes):
            cluster.add_node(wait=False, num_cpus=0, resources={NODE_RESOURCE: each}, object_store_memory=80 * MIB)
            say(f"node {number + 1} of {options.nodes}")
        cluster.wait_for_nodes(timeout=300)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        measure(options)
    finally:
        ray.shutdown()
        cluster.shutdown()


def measure(options: argparse.Namespace) -> None:
    supervisor = start_supervisor()
    watched = Watched(ray.get(supervisor.pid.remote()))
    stages = []
    students: list[Any] = []
    for replicas in options.replicas:
        config = config_of(options, replicas)
        earlier, students = students, start_students(options, config, replicas)
        ray.get([student.close.remote() for student in earlier])
        for student in earlier:
            ray.kill(student)
        watched.students = ray.get([student.pid.remote() for student in students])
        watched.replicas = pids(supervisor)
        ray.get([student.ask_for.remote(2 * options.wait_ms / 1e3) for student in students])  # warm
        before, began = watched.cores_s(), time.time()
        got = ray.get([student.ask_for.remote(options.seconds) for student in students])
        took_s, after = time.time() - began, watched.cores_s()
        assert not any(wrong for wrong, _ in got)
        # Without the first answers, which were on their way before.
        since = began + 2 * options.wait_ms / 1e3
        times = [moment for _, each in got for moment in each if since <= moment < began + options.seconds]
        rate = len(times) * options.rows / (began + options.seconds - since)
        cores = {name: (after[name] - before[name]) / took_s for name in after}
        stages.append(Stage(replicas, rate, cores, watched.memory()))
        show(options, stages)
    summary(stages, killed(options, supervisor, students))


def config_of(options: argparse.Namespace, replicas: int) -> Config:
    plain = waiting_config(options.wait_ms / 1e3, replicas).model_dump(mode="json")
    plain["teachers"][TEACHER]["placement"] = {"num_cpus": 0, "resources": {NODE_RESOURCE: 1}, "strategy": "spread"}
    return Config.model_validate(plain)


def start_students(options: argparse.Namespace, config: Config, replicas: int) -> list[Any]:
    actor: Any = ray.remote(num_cpus=1)(Student)
    ahead = max(2, 2 * replicas // options.students)
    students = [actor.remote(config, replicas, ahead, options.rows) for _ in range(options.students)]
    ray.get([student.pid.remote() for student in students])
    return students


def pids(supervisor: Any) -> list[int]:
    (status,) = ray.get(supervisor.status.remote())
    return [pid for _, _, pid in status.replicas if pid is not None]


def killed(options: argparse.Namespace, supervisor: Any, students: list[Any]) -> dict[str, float]:
    """A part of the replicas at once, while all students ask."""
    before = pids(supervisor)
    victims = set(random.Random(0).sample(before, max(1, int(options.killed * len(before)))))
    seconds = max(60.0, options.seconds)
    calm_s = 2 * options.wait_ms / 1e3
    asking = [student.ask_for.remote(seconds) for student in students]
    time.sleep(calm_s + options.wait_ms / 1e3)
    at = time.time()
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    noticed_s = replaced_s = float("nan")
    while time.time() < at + seconds - calm_s - 6.0:
        now = pids(supervisor)
        if noticed_s != noticed_s and not victims.intersection(now):
            noticed_s = time.time() - at
        if not victims.intersection(now) and len(now) >= len(before):
            replaced_s = time.time() - at
            break
        time.sleep(0.05)
    got = ray.get(asking)
    times = sorted(moment for _, each in got for moment in each)
    during = sum(at <= moment < at + replaced_s for moment in times) * options.rows / replaced_s
    calm = sum(at - calm_s <= moment < at for moment in times) * options.rows / calm_s
    gap = max(later - earlier for earlier, later in itertools.pairwise(times))
    return {"killed": len(victims), "noticed_s": noticed_s, "replaced_s": replaced_s, "calm": calm, "during": during,
            "gap_s": gap, "wrong": sum(wrong for wrong, _ in got)}  # fmt: skip


def show(options: argparse.Namespace, stages: list[Stage]) -> None:
    """The last stage, as soon as it is measured."""
    stage = stages[-1]
    if len(stages) == 1:
        print(f"{date.today()}, {machine()}; ray {version('ray')}")
        print(
            f"{options.nodes} logical nodes on this machine, {options.students} students, {options.seconds:g} s a "
            f"stage, requests of {options.rows} rows, {options.wait_ms:g} ms each\n"
        )
        print(f"{'replicas':>8}{'samples/s':>11}{'÷ ideal':>9}  cores:" + "".join(f"{name:>12}" for name in stage.cores)
              + "   MiB:" + "".join(f"{name:>12}" for name in stage.memory))  # fmt: skip
    ideal = stage.replicas * options.rows / (options.wait_ms / 1e3)
    print(f"{stage.replicas:8}{stage.samples_per_s:11,.0f}{stage.samples_per_s / ideal:9.3f}        "
          + "".join(f"{cores:12.3f}" for cores in stage.cores.values()) + "       "
          + "".join(f"{mib:12,.0f}" for mib in stage.memory.values()), flush=True)  # fmt: skip


def summary(stages: list[Stage], kill: dict[str, float]) -> None:
    first, last = stages[0], stages[-1]
    grown = {name: (last.memory[name] - first.memory[name]) * 1024 for name in ("driver", "supervisor", "a student")}
    more = max(1, last.replicas - first.replicas)
    print(
        "\nmemory for each further replica: " + ", ".join(f"{name} {kib / more:.0f} KiB" for name, kib in grown.items())
    )
    ratio = kill["during"] / kill["calm"]
    print(
        f"{kill['killed']:.0f} of {last.replicas} replicas killed at once: noticed after {kill['noticed_s']:.2f} s, "
        f"all replaced after {kill['replaced_s']:.1f} s; samples/s {kill['during']:,.0f} until then, "
        f"{kill['calm']:,.0f} before ({ratio:.2f}); longest time without any answer {kill['gap_s']:.2f} s; "
        f"wrong or lost answers {kill['wrong']:.0f}"
    )


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
