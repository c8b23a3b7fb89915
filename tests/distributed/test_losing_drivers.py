"""The command that trains, or the whole cluster, goes: the same command goes on, here or on the next cluster."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import psutil
import pytest
from machines import ROWS, assert_went_on, begun, config_of, machines
from small_runs import Lab, assert_same_student, finish, wait_until


@pytest.fixture(scope="module")
def undisturbed(lab: Lab) -> Path:
    """In one process, with both workers' rows."""
    return lab.distilled(lab.config())


def test_a_killed_driver_leaves_room_for_the_next_one(lab: Lab, undisturbed: Path) -> None:
    config = config_of(lab)
    out = begun(lab, config, undisturbed)
    with machines(lab, 2) as there:
        there.gate.close(ROWS, after=6)
        command = there.start(config, out)
        wait_until(lambda: len(there.gate.waiting()) == 2, 300)
        command.kill()
        finish(command, 30)
        # Ray ends its workers a moment later; through an open gate they would go on until then.
        wait_until(lambda: not any(map(psutil.pid_exists, there.gate.waiting())))
        there.gate.open()
        assert_went_on(finish(there.start(config, out), 300), out, step=4)
    assert_same_student(out, undisturbed)


def test_a_lost_head_ends_the_command_and_the_next_cluster_goes_on(lab: Lab, undisturbed: Path) -> None:
    config = config_of(lab)
    out = begun(lab, config, undisturbed)
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


def test_a_cluster_without_room_is_said_and_not_waited_for_for_ever(lab: Lab) -> None:
    with machines(lab, 1) as there:
        words = ["ray.wait_s=45", "ray.autoscales=true"]
        done = finish(there.start(config_of(lab), lab.new("run"), *words), 300)
    assert done.code == 2, done.stderr[-2000:]
    told = re.search(r"waiting (\d+) s so far for 2 training workers \(CPU 1, student 1 each; free: CPU", done.stderr)
    assert told is not None and int(told[1]) <= 30, done.stderr
    assert "no room in the cluster within 45 s" in done.errors[-1]
