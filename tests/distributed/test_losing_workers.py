"""Nodes that come and go while a student trains on them: what is lost are steps since a checkpoint, never the run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from machines import ROWS, assert_went_on, begun, config_of, machines
from small_runs import Lab, assert_same_student, finish, wait_until


@pytest.fixture(scope="module")
def undisturbed(lab: Lab) -> Path:
    """In one process, with both workers' rows."""
    return lab.distilled(lab.config())


@pytest.mark.parametrize(("nodes", "min_workers"), [(2, 1), (3, 2)], ids=["fewer go on", "a spare takes over"])
def test_a_lost_training_node_costs_the_steps_since_the_checkpoint(
    lab: Lab, undisturbed: Path, nodes: int, min_workers: int
) -> None:
    with machines(lab, nodes) as there:
        config = config_of(lab, min_workers=min_workers)
        out = begun(lab, config, undisturbed)
        there.gate.close(ROWS, after=6)
        command = there.start(config, out)
        victim = wait_until(there.gate.waiting, 300)[0]
        there.lose(there.node_of(victim))
        there.gate.open()
        assert_went_on(finish(command, 300), out, step=4)
    assert_same_student(out, undisturbed)


def test_a_node_that_comes_while_a_student_trains_is_used(lab: Lab, undisturbed: Path) -> None:
    """Ray Train looks for room once a minute."""
    with machines(lab, 1) as there:
        config = config_of(lab, min_workers=1)
        out = begun(lab, config, undisturbed)
        there.gate.close(ROWS, after=10)  # two parts a step: the only worker stops in the sixth; two never get there
        command = there.start(config, out)
        wait_until(there.gate.waiting, 300)
        there.add()
        done = finish(command, 300)
        assert_went_on(done, out, step=4)
        assert "went on from step 4 with 2 of 2 workers" in done.stderr
    assert_same_student(out, undisturbed)


def test_a_node_that_gives_notice_leaves_a_checkpoint(lab: Lab) -> None:
    """With a spare: Ray Train, which looks once a minute, might else make do with fewer before the workers go on."""
    longer = {"num_steps": 48, "evaluate_every": 40}
    config = config_of(lab, **longer)
    out = begun(lab, config, lab.distilled(lab.config(training={**lab.settings()["training"], **longer})))
    with machines(lab, 3) as there:
        there.gate.close(ROWS, after=10)
        command = there.start(config, out)
        node = there.node_of(wait_until(there.gate.waiting, 300)[0])
        subprocess.run(
            [sys.executable, "-m", "ray.scripts.scripts", "drain-node", "--address", there.cluster.address,
             "--node-id", node.node_id, "--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot",
             "--deadline-remaining-seconds", "60"],
            check=True, capture_output=True,
        )  # fmt: skip
        wait_until(there.draining)
        latest = out / "checkpoints" / "distilled-seed0" / "latest.pt"
        assert not latest.exists()
        there.gate.close(ROWS, after=30)
        wait_until(latest.exists)
        there.lose(node)
        there.gate.open()
        done = finish(command, 300)
        assert_went_on(done, out, step=20)
        assert "a node is about to go: checkpoint at step 20" in done.stderr
