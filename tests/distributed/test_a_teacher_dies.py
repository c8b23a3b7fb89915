"""A teacher that dies or hangs while it is asked costs time, and nothing else; one that is gone is named."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from small_runs import ROWS_WHEN_DISTILLED, ROWS_WHEN_LABELLING, Lab, differing, finish, report_of, teacher, wait_until


@pytest.fixture(scope="module")
def quiet(lab: Lab) -> Path:
    """A run to which nothing happens."""
    return lab.distilled(lab.config(cache_dir=str(lab.new("cache")), distill={"soft_labels": "remote"}))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["dies", "hangs"])
def test_the_student_of_a_run_whose_teacher_fails_is_the_undisturbed_one(
    lab: Lab, quiet: Path, how: signal.Signals
) -> None:
    out, gate = lab.new("run"), lab.gate().close(rows=ROWS_WHEN_DISTILLED, after=3)
    config = lab.config(
        cache_dir=str(lab.new("cache")), teachers={"expert": teacher(timeout_s=8)}, distill={"soft_labels": "remote"}
    )
    command = lab.start("distill", config, "--out", out, gate=gate)
    (victim,) = wait_until(gate.waiting)
    assert victim != command.pid
    os.kill(victim, how)
    gate.open()
    done = finish(command)
    assert done.code == 0, done.stderr
    assert differing(quiet, out) == {}
    report = report_of(out)
    assert report["tasks"] == report_of(quiet)["tasks"]
    figures = report["teachers"]["expert"]
    assert figures["failovers"] >= 1 and figures["worst_gap_s"] > 0
    assert figures["samples"] == report_of(quiet)["teachers"]["expert"]["samples"]
    assert any("replica" in event["what"] and event["at_s"] > 0 for event in report["events"])


def test_a_teacher_killed_while_it_labels_is_replaced(lab: Lab) -> None:
    out, gate = lab.new("run"), lab.gate().close(rows=ROWS_WHEN_LABELLING, after=3)
    config = lab.config(cache_dir=str(lab.new("cache")), distill={"soft_labels": "stored"})
    command = lab.start("distill", config, "--out", out, gate=gate)
    (victim,) = wait_until(gate.waiting)
    os.kill(victim, signal.SIGKILL)
    gate.open()
    done = finish(command)
    assert done.code == 0, done.stderr
    assert any("replica" in event["what"] for event in report_of(out)["events"])
