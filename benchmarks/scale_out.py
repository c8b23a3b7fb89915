"""How far one client and one supervisor carry: replicas that wait 50 ms a request instead of computing.

Supervisor, client and replicas are the real ones; only what a replica loads is not a model. Waiting costs nothing, so
one machine can hold many, until what a call itself costs has used up its cores. `linear` is so many times the samples
a second of the first stage, `ideal` those of replicas that do nothing but wait. CPU is given in cores: of this process
(the client), of the supervisor, of all replicas together, of Ray's own processes, and of the whole machine, other
people's work included.

    python benchmarks/scale_out.py [--most 64] [--rounds 5] [--seconds 1.5] [--rows 64] [--ahead 2]
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version

import psutil
import ray
from peers.neighbours import busy_s
from peers.waiting import TEACHER, joined, request, start_supervisor, waiting_config

from raydistill.commands.cluster import cluster
from raydistill.soft_labels.source import Pending
from raydistill.teachers.pool.client import PoolClient

TARGET, CPUS_LAST = 0.9, 0.9  # of linear; of all cores: beyond it they do not last any more


@dataclass(frozen=True)
class Round:
    samples_per_s: float
    cores: dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most", type=int, default=64, help="replicas in the last stage; the stages double")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.5, help="of a round")
    parser.add_argument("--rows", type=int, default=64, help="of a request")
    parser.add_argument("--wait-ms", type=float, default=50.0)
    parser.add_argument("--ahead", type=int, default=2, help="requests under way for each replica")
    options = parser.parse_args()
    # Ray would warn of so many processes on so few cores; these only sleep.
    os.environ.setdefault("RAY_worker_maximum_startup_concurrency", str(options.most))
    wait_s = options.wait_ms / 1e3
    stages = [2**power for power in range(options.most.bit_length())]
    measured: dict[int, list[Round]] = {}
    with cluster(waiting_config(wait_s, 1)):
        supervisor = start_supervisor()
        watched = Processes(ray.get(supervisor.pid.remote()))
        previous: PoolClient | None = None
        for replicas in stages:
            client = joined(waiting_config(wait_s, replicas), replicas)
            if previous is not None:
                previous.close()
            statuses = ray.get(supervisor.status.remote())
            watched.replicas = [pid for _, _, pid in statuses[0].replicas if pid is not None]
            measured[replicas] = list(rounds(options, client, replicas, watched))
            rate = statistics.median(each.samples_per_s for each in measured[replicas])
            print(f"{replicas} replicas: {rate:,.0f} samples/s", file=sys.stderr, flush=True)
            previous = client
        assert previous is not None
        previous.close()
    report(options, measured)


class Processes:
    """CPU seconds of who takes part, so far."""

    def __init__(self, supervisor: int) -> None:
        self._supervisor, self.replicas = supervisor, list[int]()

    def busy_s(self) -> dict[str, float]:
        seconds = {"client": of_process(os.getpid()), "supervisor": of_process(self._supervisor),
                   "replicas": sum(of_process(pid) for pid in self.replicas)}  # fmt: skip
        known = {os.getpid(), self._supervisor, *self.replicas}
        own = [child.pid for child in psutil.Process().children(recursive=True) if child.pid not in known]
        return {**seconds, "ray": sum(of_process(pid) for pid in own), "machine": busy_s()}


def of_process(pid: int) -> float:
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)


def rounds(options: argparse.Namespace, client: PoolClient, replicas: int, watched: Processes) -> Iterator[Round]:
    """With every replica busy all the time; the first round warms up and is not given."""
    views = request(options.rows)
    pending: deque[Pending] = deque(client.ask(TEACHER, views) for _ in range(options.ahead * replicas))
    for round_ in range(options.rounds + 1):
        before, began, answers = watched.busy_s(), time.perf_counter(), 0
        while (passed_s := time.perf_counter() - began) < options.seconds or not answers:
            pending.popleft().result()
            pending.append(client.ask(TEACHER, views))
            answers += 1
        after = watched.busy_s()
        if round_:
            cores = {name: (after[name] - before[name]) / passed_s for name in after}
            yield Round(answers * options.rows / passed_s, cores)
    for asked in pending:
        asked.result()


def report(options: argparse.Namespace, measured: dict[int, list[Round]]) -> None:
    from raydistill.evaluation.assemble import machine

    num_cores = os.cpu_count() or 1
    print(f"{date.today()}, {machine()}; ray {version('ray')}")
    print(
        f"{options.rounds} rounds of {options.seconds:g} s a stage, requests of {options.rows} rows, "
        f"{options.ahead} under way for each replica, {options.wait_ms:g} ms each\n"
    )
    names = ("client", "supervisor", "replicas", "ray", "machine")
    print(f"{'replicas':>8}{'samples/s':>11}{'spread':>18}{'÷ linear':>10}{'÷ ideal':>9}{'calls/s':>9}"
          + "".join(f"{name:>11}" for name in names))  # fmt: skip
    ideal = options.rows / (options.wait_ms / 1e3)
    first = statistics.median(each.samples_per_s for each in measured[1])
    ratios, cores, lasting = {}, {}, []
    for replicas, each in measured.items():
        rates = [one.samples_per_s for one in each]
        rate, spread = statistics.median(rates), f"{min(rates):,.0f}…{max(rates):,.0f}"
        cores[replicas] = {name: statistics.median(one.cores[name] for one in each) for name in names}
        ratios[replicas] = rate / (replicas * first)
        if cores[replicas]["machine"] < CPUS_LAST * num_cores:
            lasting.append(replicas)
        print(f"{replicas:8}{rate:11,.0f}{spread:>18}{ratios[replicas]:10.3f}{rate / (replicas * ideal):9.3f}"
              f"{rate / options.rows:9,.0f}"
              + "".join(f"{cores[replicas][name]:11.2f}" for name in names))  # fmt: skip
    print()
    if lasting:
        worst = min(ratios[replicas] for replicas in lasting)
        verdict = "holds" if worst >= TARGET else "is missed"
        words = f"while CPUs last (to {max(lasting)} replicas, {CPUS_LAST:.0%} of the cores): {worst:.3f} of linear"
        print(f"{words}; target {TARGET} at least: {verdict}")
    else:
        print(f"no verdict: more than {CPUS_LAST:.0%} of the cores were taken in every stage; end what else runs here")
    behind = next((replicas for replicas, ratio in ratios.items() if ratio < TARGET), None)
    if behind is None:
        print(f"{max(ratios)} replicas: not saturated yet")
    else:
        of_client, of_replicas, of_all = (cores[behind][name] for name in ("client", "replicas", "machine"))
        print(
            f"behind from {behind} replicas on, where the client takes {of_client:.2f} cores, the replicas "
            f"{of_replicas:.2f} and everything together {of_all:.2f} of {num_cores}"
        )
    per_call = cores[max(cores)]["client"] / (rate / options.rows)
    print(f"a call costs the client {per_call * 1e3:.2f} ms of CPU in the last stage: a core of its own is full at "
          f"{1 / per_call:,.0f} calls/s")  # fmt: skip


if __name__ == "__main__":
    main()
