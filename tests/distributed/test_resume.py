"""A killed `distill` goes on where it stood, and its student is the one of an uninterrupted run, bit for bit."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from small_runs import ROWS_WHEN_DISTILLED, Lab, differing, finish, report_of, wait_until


@pytest.fixture(scope="module")
def uninterrupted(lab: Lab) -> Path:
    return lab.distilled(lab.config(student={"size": "tiny", "width": 32, "depth": 1, "num_heads": 2, "dropout": 0.2}))


@pytest.fixture(scope="module")
def resumed(lab: Lab, uninterrupted: Path) -> Path:
    out, gate = lab.new("run"), lab.gate().close(rows=ROWS_WHEN_DISTILLED, after=6)
    # A store of its own: what a run finds there, it does not ask.
    words = ["distill", uninterrupted / "config.yaml", f"store.path={lab.new('labels')}", "--out", out]
    command = lab.start(*words, gate=gate)
    wait_until(gate.waiting)
    command.send_signal(signal.SIGKILL)
    assert finish(command).code == -signal.SIGKILL
    assert (out / "checkpoints" / "distilled-seed0" / "latest.pt").is_file()
    assert not (out / "report.json").exists()
    gate.open()
    done = lab.run(*words)
    assert done.code == 0, done.stderr
    return out


def test_a_run_killed_after_a_checkpoint_ends_with_the_student_of_an_uninterrupted_one(
    uninterrupted: Path, resumed: Path
) -> None:
    assert differing(uninterrupted, resumed) == {}


def test_the_report_tells_where_the_run_went_on(resumed: Path) -> None:
    told = [event["what"] for event in report_of(resumed)["events"]]
    assert any("distilled, seed 0: went on from step 4" in what for what in told), told


def test_the_curves_and_counts_are_those_of_an_uninterrupted_run(uninterrupted: Path, resumed: Path) -> None:
    whole, parts = report_of(uninterrupted), report_of(resumed)
    assert parts["curves"] == whole["curves"]
    assert parts["tasks"] == whole["tasks"]
    assert parts["cost"]["student_samples"] == whole["cost"]["student_samples"]


def test_no_step_is_logged_twice(resumed: Path) -> None:
    logs = list(resumed.rglob("metrics.jsonl"))
    assert logs
    for log in logs:
        lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
        # A validating step has two lines: of its losses, and of its scores.
        told = [(line.get("run"), line["step"], "total_loss" in line) for line in lines]
        assert told and len(told) == len(set(told))
