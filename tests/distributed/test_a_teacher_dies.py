"""A teacher that is gone, or that does not answer, ends the run with its name: never a hang."""

from __future__ import annotations

import os
import signal

import pytest
from small_runs import ROWS_WHEN_DISTILLED, ROWS_WHEN_LABELLING, Lab, finish, teacher, wait_until

pytestmark = pytest.mark.timeout(200)


@pytest.mark.parametrize(("source", "rows"), [("stored", ROWS_WHEN_LABELLING), ("remote", ROWS_WHEN_DISTILLED)])
def test_a_teacher_killed_while_it_is_asked_is_named(lab: Lab, source: str, rows: int) -> None:
    out, gate = lab.new("run"), lab.gate().close(rows=rows, after=3)
    config = lab.config(cache_dir=str(lab.new("cache")), distill={"soft_labels": source})
    command = lab.start("distill", config, "--out", out, gate=gate)
    (victim,) = wait_until(gate.waiting)
    assert victim != command.pid
    os.kill(victim, signal.SIGKILL)
    done = finish(command, limit_s=60)
    assert done.code == 2, done.stderr
    assert len(done.errors) == 1, done.stderr
    assert done.errors[0].startswith("error: teacher 'expert': its actor died")
    assert not (out / "report.json").exists()


def test_a_teacher_that_does_not_answer_in_time_is_named(lab: Lab) -> None:
    gate = lab.gate().close(rows=ROWS_WHEN_LABELLING, after=3)
    config = lab.config(
        cache_dir=str(lab.new("cache")),
        teachers={"expert": teacher(timeout_s=10)},
        distill={"soft_labels": "stored"},
    )
    done = lab.run("distill", config, "--out", lab.new("run"), gate=gate, limit_s=90)
    assert done.code == 2, done.stderr
    assert len(done.errors) == 1, done.stderr
    assert "teacher 'expert': no reply within 10 s" in done.errors[0]
    assert "teachers.expert.timeout_s" in done.errors[0]
