"""Machines that come and go while a student trains: what is lost are steps since a checkpoint, never the run."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from small_runs import Finished, Gate, Lab, finish, report_of, student_weights, wait_until

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


def config_of(lab: Lab, teacher_of: Path, **training: Any) -> Path:
    settings = lab.settings()
    training = {
        **settings["training"], "num_workers": 2, "batch_size": ROWS,
        "placement": {"num_cpus": 1, "resources": {"student": 1}}, **training,
    }  # fmt: skip
    return lab.config(training=training, store={"path": str(lab.new("labels"))}, ray={"wait_s": 300})


@pytest.fixture(scope="module")
def undisturbed(lab: Lab) -> Path:
    """In one process, with both workers' rows."""
    return lab.distilled(lab.config())


def assert_same_student(left: Path, right: Path) -> None:
    one, two = student_weights(left), student_weights(right)
    for key in one:
        if not key.endswith("qkv.bias"):  # a key's bias cannot change attention: its gradient is rounding alone
            assert one[key] == pytest.approx(two[key], abs=1e-4), key


def assert_went_on(done: Finished, out: Path, step: int) -> None:
    assert done.code == 0, done.stderr[-3000:]
    told = [event["what"] for event in report_of(out)["events"]]
    assert any(f"distilled, seed 0: went on from step {step}" in what for what in told), told


@pytest.mark.parametrize(("nodes", "min_workers"), [(2, 1), (3, 2)], ids=["fewer go on", "a spare takes over"])
def test_a_lost_training_node_costs_the_steps_since_the_checkpoint(
    lab: Lab, undisturbed: Path, nodes: int, min_workers: int
) -> None:
    with machines(lab, nodes) as there:
        out = lab.new("run")
        there.gate.close(ROWS, after=6)
        command = there.start(config_of(lab, undisturbed, min_workers=min_workers), out)
        victim = wait_until(there.gate.waiting, 300)[0]
        there.lose(there.node_of(victim))
        there.gate.open()
        assert_went_on(finish(command, 300), out, step=4)
    assert_same_student(out, undisturbed)


def test_a_node_that_comes_while_a_student_trains_is_used(lab: Lab, undisturbed: Path) -> None:
    """Ray Train looks for room once a minute."""
    with machines(lab, 1) as there:
        out = lab.new("run")
        there.gate.close(ROWS, after=10)  # two parts a step: the only worker stops in the sixth; two never get there
        command = there.start(config_of(lab, undisturbed, min_workers=1), out)
        wait_until(there.gate.waiting, 300)
        there.add()
        done = finish(command, 300)
        assert_went_on(done, out, step=4)
        assert "went on from step 4 with 2 of 2 workers" in done.stderr
    assert_same_student(out, undisturbed)


def test_a_killed_driver_leaves_room_for_the_next_one(lab: Lab, undisturbed: Path) -> None:
    with machines(lab, 2) as there:
        out, config = lab.new("run"), config_of(lab, undisturbed)
        there.gate.close(ROWS, after=6)
        command = there.start(config, out)
        wait_until(there.gate.waiting, 300)
        command.kill()
        finish(command, 30)
        there.gate.open()
        assert_went_on(finish(there.start(config, out), 300), out, step=4)
    assert_same_student(out, undisturbed)


def test_a_node_that_gives_notice_leaves_a_checkpoint(lab: Lab, undisturbed: Path) -> None:
    with machines(lab, 2) as there:
        out, longer = lab.new("run"), {"num_steps": 48, "evaluate_every": 40, "min_workers": 1}
        there.gate.close(ROWS, after=10)
        command = there.start(config_of(lab, undisturbed, **longer), out)
        node = there.node_of(wait_until(there.gate.waiting, 300)[0])
        subprocess.run(
            [sys.executable, "-m", "ray.scripts.scripts", "drain-node", "--address", there.cluster.address,
             "--node-id", node.node_id, "--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot",
             "--deadline-remaining-seconds", "60"],
            check=True, capture_output=True,
        )  # fmt: skip
        wait_until(lambda: "draining" in _status(there))
        latest = out / "checkpoints" / "distilled-seed0" / "latest.pt"
        assert not latest.exists()
        there.gate.close(ROWS, after=30)
        wait_until(latest.exists)
        there.lose(node)
        there.gate.open()
        done = finish(command, 300)
        assert_went_on(done, out, step=20)
        assert "a node is about to go: checkpoint at step 20" in done.stderr


def _status(there: Machines) -> str:
    done = subprocess.run(
        [sys.executable, "-c",
         "import sys, ray; ray.init(address=sys.argv[1], log_to_driver=False, logging_level='ERROR');"
         "print('draining' if ray._private.state.state.get_draining_nodes() else 'none')", there.cluster.address],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout


def test_a_lost_head_ends_the_command_and_the_next_cluster_goes_on(lab: Lab, undisturbed: Path) -> None:
    out, config = lab.new("run"), config_of(lab, undisturbed)
    with machines(lab, 2) as there:
        there.gate.close(ROWS, after=6)
        command = there.start(config, out)
        wait_until(there.gate.waiting, 300)
        there.lose_all()
        there.gate.open()
        done = finish(command, 120)
        assert done.code not in (0, None)
        assert "Traceback" not in done.stderr, done.stderr[-3000:]
        for process in lab.processes():
            with contextlib.suppress(psutil.Error):
                process.kill()
    with machines(lab, 2) as there:
        assert_went_on(finish(there.start(config, out), 300), out, step=4)
    assert_same_student(out, undisturbed)


def test_a_cluster_without_room_is_said_and_not_waited_for_for_ever(lab: Lab, undisturbed: Path) -> None:
    with machines(lab, 1) as there:
        words = ["ray.wait_s=32", "ray.autoscales=true"]
        done = finish(there.start(config_of(lab, undisturbed), lab.new("run"), *words), 300)
    assert done.code == 2, done.stderr[-2000:]
    assert "waiting 25 s so far for 2 training workers (CPU 1, student 1 each; free: CPU" in done.stderr
    assert "no room in the cluster within 32 s" in done.errors[-1]
