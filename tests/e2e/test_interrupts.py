"""Ctrl-C, as a terminal sends it: to the command and all it started. It ends at once, and the same command goes on."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from small_runs import (
    PARTS,
    ROWS_WHEN_DISTILLED,
    ROWS_WHEN_LABELLING,
    ROWS_WHEN_TAUGHT,
    Lab,
    assert_refused,
    differing,
    finish,
    report_of,
    teacher,
    wait_until,
)

IN_A_TASK = {"expert": teacher(train={**teacher()["train"], "placement": {"num_cpus": 1}})}


@pytest.fixture(scope="module")
def undisturbed(lab: Lab) -> Path:
    return lab.distilled(lab.config())


@pytest.mark.parametrize(
    ("changes", "rows", "after"),
    [
        ({}, ROWS_WHEN_TAUGHT, 30),
        ({"teachers": IN_A_TASK}, ROWS_WHEN_TAUGHT, 30),
        ({"distill": {"soft_labels": "stored"}}, ROWS_WHEN_LABELLING, 3),
        ({}, ROWS_WHEN_DISTILLED, 6),
    ],
    ids=["teacher training", "teacher training in a Ray task", "labelling by actors", "student training"],
)
def test_ctrl_c_ends_a_command_at_once_and_the_same_command_goes_on(
    lab: Lab, undisturbed: Path, changes: dict[str, Any], rows: int, after: int
) -> None:
    out, gate = lab.new("run"), lab.gate().close(rows, after)
    config = lab.config(cache_dir=str(lab.new("cache")), **changes)
    command = lab.start("distill", config, "--out", out, gate=gate)
    wait_until(gate.waiting)
    os.killpg(command.pid, signal.SIGINT)
    done = finish(command, limit_s=60)
    assert done.code == 130, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    wait_until(lambda: not lab.processes(), timeout_s=20)
    assert {path.name for path in out.iterdir()} <= {
        ".lock", "config.yaml", "log.txt", "labelling.json", "metrics.jsonl", "checkpoints", "tensorboard",
    }  # fmt: skip

    gate.open()
    again = lab.run("distill", config, "--out", out)
    assert again.code == 0, again.stderr
    # A teacher that had one thread elsewhere rounds as it did here; its labels come in other batches where stored.
    assert "distill" in changes or differing(out, undisturbed) == {}
    # Last, so that all of the above is looked at first: the user is told that nothing is lost.
    assert done.errors == ["stopped; the same command goes on from here"]


@pytest.mark.parametrize("everyone", [False, True], ids=["the command", "all that it started"])
def test_sigterm_says_so_too(lab: Lab, undisturbed: Path, everyone: bool) -> None:
    out, gate = lab.new("run"), lab.gate().close(ROWS_WHEN_DISTILLED, 6)
    config = lab.config(store={"path": str(lab.new("labels"))})
    command = lab.start("distill", config, "--out", out, gate=gate)
    wait_until(gate.waiting)
    (os.killpg if everyone else os.kill)(command.pid, signal.SIGTERM)
    done = finish(command, limit_s=120)
    assert "stopped; the same command goes on from here" in done.errors
    assert everyone or done.code == 143
    assert "Traceback" not in done.stderr and "SIGTERM received" not in done.stderr
    wait_until(lambda: not lab.processes(), timeout_s=30)

    gate.open()
    again = lab.run("distill", config, "--out", out)
    assert again.code == 0, again.stderr
    assert differing(out, undisturbed) == {}


def test_sigterm_while_ray_starts_says_so_as_well(lab: Lab) -> None:
    out = lab.new("run")
    command = lab.start("distill", lab.config(distill={"soft_labels": "remote"}), "--out", out)
    wait_until((out / "log.txt").exists)
    time.sleep(1.0)  # Ray takes several
    command.send_signal(signal.SIGTERM)
    done = finish(command, limit_s=120)
    assert (done.code, done.errors) == (143, ["stopped; the same command goes on from here"]), done.stderr
    wait_until(lambda: not lab.processes(), timeout_s=30)


def test_what_a_killed_process_had_labelled_is_in_the_report(lab: Lab) -> None:
    out, gate = lab.new("run"), lab.gate().close(ROWS_WHEN_LABELLING, 1)
    config = lab.config(store={"path": str(lab.new("labels"))}, distill={"soft_labels": "stored"})
    command = lab.start("distill", config, "--out", out, gate=gate)
    wait_until(gate.waiting)
    wait_until((out / "labelling.json").exists)
    os.killpg(command.pid, signal.SIGKILL)
    finish(command)
    wait_until(lambda: not lab.processes(), timeout_s=30)
    gate.open()
    assert lab.run("distill", config, "--out", out).code == 0
    samples = report_of(out)["cost"]["teacher_samples"]
    every_row = len(PARTS["train"]) * 2 + len(PARTS["validation"]) + len(PARTS["test"])
    assert every_row <= samples <= every_row + ROWS_WHEN_LABELLING  # the batch before may not have been written yet


def test_a_ray_that_the_environment_names_has_to_be_there(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    for words in (["teachers"], ["distill", lab.config(distill={"soft_labels": "remote"}, ray={})]):
        assert_refused(lab.run(*words, limit_s=120), "RAY_ADDRESS '127.0.0.1:1'")
