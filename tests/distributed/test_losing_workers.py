"""Nodes that come and go while a student trains on them: what is lost are steps since a checkpoint, never the run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from machines import ROWS, assert_went_on, begun, config_of, machines
from small_runs import Lab, assert_same_student, finish, report_of, wait_until

from raydistill.training.events import read_events
from raydistill.training.notices import LEAVING, MOST_STEPS


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
    longer = {"num_steps": 48, "evaluate_every": 40, "max_failures": 0}
    config = config_of(lab, **longer)
    out = begun(lab, config, lab.distilled(lab.config(training={**lab.settings()["training"], **longer})))
    with machines(lab, 3) as there:
        there.gate.close(ROWS, after=10)
        command = there.start(config, out)
        node = there.node_of(wait_until(there.gate.waiting, 300)[0])
        there.give_notice(node, within_s=600)
        wait_until(there.heard_of_it)
        arm = out / "checkpoints" / "distilled-seed0"
        assert not (arm / "latest.pt").exists()
        there.gate.close(ROWS, after=30)
        wait_until(lambda: LEAVING in str(read_events(arm)))
        there.lose(node)
        there.gate.open()
        done = finish(command, 300)
    told = re.search(r"a node is about to go: checkpoint at step (\d+)", done.stderr)
    assert told, done.stderr[-3000:]
    step = int(told[1])
    assert 10 <= step <= 10 + MOST_STEPS
    assert_went_on(done, out, step)
    assert "a node went that had given notice" in done.stderr


def test_a_node_that_goes_before_the_next_step_is_told(lab: Lab, undisturbed: Path) -> None:
    config = config_of(lab, max_failures=0)
    out = begun(lab, config, undisturbed)
    with machines(lab, 3) as there:
        there.gate.close(ROWS, after=2)
        command = there.start(config, out)
        node = there.node_of(wait_until(there.gate.waiting, 300)[0])
        there.give_notice(node, within_s=5)
        arm = out / "checkpoints" / "distilled-seed0"
        wait_until(lambda: "interrupted by node preemption" in str(read_events(arm)))
        there.lose(node)
        there.gate.open()
        done = finish(command, 300)
    assert done.code == 0, done.stderr[-3000:]
    assert "interrupted by node preemption" in str(report_of(out)["events"])
    assert_same_student(out, undisturbed)
