"""Clusters of several nodes on one machine, each with room for a training worker, that tests take apart."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from small_runs import Finished, Gate, Lab, report_of

ROWS = 10  # of each of two workers


class Machines:
    """A head that trains nothing, and nodes for one training worker each."""

    def __init__(self, lab: Lab, count: int) -> None:
        from ray.cluster_utils import Cluster

        self.lab, self.gate = lab, Gate(lab.new("gate"))
        self.nodes: list[Any] = []
        with self._environment():
            self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        for _ in range(count):
            self.add()

    def add(self) -> None:
        """A node more."""
        with self._environment():
            self.nodes.append(self.cluster.add_node(num_cpus=1, resources={"student": 1}))

    @contextlib.contextmanager
    def _environment(self) -> Iterator[None]:
        """Of all processes of a node."""
        with pytest.MonkeyPatch.context() as patch:
            for key, value in self.lab.environment(self.gate).items():
                patch.setenv(key, value)
            yield

    def start(self, config: Path, out: Path, *words: str) -> subprocess.Popen[str]:
        """`distill`, in a process of its own."""
        address = f"ray.address={self.cluster.address}"
        return self.lab.start("distill", config, address, *words, "--out", out, gate=self.gate)

    def node_of(self, worker: int) -> Any:
        """Where a process runs."""
        (node,) = [
            node for node in self.nodes
            if psutil.Process(worker).ppid() == node.all_processes["raylet"][0].process.pid
        ]  # fmt: skip
        return node

    def give_notice(self, node: Any, within_s: int) -> None:
        """As a cloud does before it takes a spot node back."""
        subprocess.run(
            [sys.executable, "-m", "ray.scripts.scripts", "drain-node", "--address", self.cluster.address,
             "--node-id", node.node_id, "--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot",
             "--deadline-remaining-seconds", str(within_s)],
            check=True, capture_output=True,
        )  # fmt: skip

    def heard_of_it(self) -> bool:
        """Whether rank 0 knows of a notice: Ray Train, which looks every few seconds, has no other sign of it."""
        logs = Path(self.cluster.head_node.get_logs_dir_path()) / "train"
        return any("Rank 0 received preemption signal" in path.read_text() for path in logs.glob("*worker*"))

    def lose(self, node: Any) -> None:
        """As if its power were cut: its workers would outlive their raylet by a second."""
        kill_workers(node)
        self.cluster.remove_node(node, allow_graceful=False)
        self.nodes.remove(node)

    def lose_all(self) -> None:
        """The head, and with it the cluster."""
        for node in self.nodes:
            kill_workers(node)
        for processes in self.cluster.head_node.all_processes.values():
            for each in processes:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(each.process.pid, signal.SIGKILL)


def kill_workers(node: Any) -> None:
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    for process in raylet.children(recursive=True):
        with contextlib.suppress(psutil.Error):
            process.kill()


@contextlib.contextmanager
def machines(lab: Lab, count: int) -> Iterator[Machines]:
    made = Machines(lab, count)
    try:
        yield made
    finally:
        made.gate.open()
        made.cluster.shutdown()


def config_of(lab: Lab, **training: Any) -> Path:
    """Two training workers, on a node each."""
    settings = lab.settings()
    training = {
        **settings["training"], "num_workers": 2, "batch_size": ROWS,
        "placement": {"num_cpus": 1, "resources": {"student": 1}}, **training,
    }  # fmt: skip
    return lab.config(training=training, store={"path": str(lab.new("labels"))}, ray={"wait_s": 300})


def assert_went_on(done: Finished, out: Path, step: int) -> None:
    assert done.code == 0, done.stderr[-3000:]
    told = [event["what"] for event in report_of(out)["events"]]
    assert any(f"distilled, seed 0: went on from step {step}" in what for what in told), told


def begun(lab: Lab, config: Path, finished: Path) -> Path:
    """A run folder of this config where the student alone is trained already: that is nothing to take machines from.

    Args:
        finished: a run of the same students.
    """
    out = lab.new("run")
    (out / "checkpoints").mkdir(parents=True)
    shutil.copy(config, out / "config.yaml")
    for part in ("alone-seed0", "initial-seed0"):
        shutil.copytree(finished / "checkpoints" / part, out / "checkpoints" / part)
    shutil.copy(finished / "checkpoints" / "inputs.json", out / "checkpoints")
    return out
