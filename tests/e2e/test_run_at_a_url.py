"""`--out URL` and data at a URL, as whole commands: killed, and gone on with where nothing but the URL is left."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from small_runs import (
    ROWS_WHEN_DISTILLED,
    Lab,
    assert_refused,
    checkpoint_of,
    differing,
    finish,
    report_of,
    wait_until,
)

import raydistill


@pytest.fixture(scope="module")
def undisturbed(lab: Lab) -> Path:
    return lab.distilled(lab.config())


def checkpoint_is_there(run: Path) -> bool:
    """Whole, as the manifest at the URL says."""
    manifest = run / "manifest.json"
    return manifest.is_file() and "checkpoints/distilled-seed0/latest.pt" in json.loads(manifest.read_text())["files"]


def visible(run: Path) -> set[str]:
    return {
        str(path.relative_to(run))
        for path in run.rglob("*")
        if path.is_file() and "tfevents" not in path.name and not path.name.startswith(".")
    }


def test_a_killed_run_goes_on_where_only_its_url_is_left(lab: Lab, undisturbed: Path) -> None:
    run, gate = lab.new("bucket") / "run", lab.gate().close(ROWS_WHEN_DISTILLED, after=6)
    words = ["distill", undisturbed / "config.yaml", f"store.path={lab.new('labels')}", "--out", f"file://{run}"]
    command = lab.start(*words, gate=gate)
    wait_until(gate.waiting)
    wait_until(lambda: checkpoint_is_there(run))
    command.send_signal(signal.SIGKILL)
    finish(command)
    wait_until(lambda: not lab.processes())
    gate.open()
    shutil.rmtree(lab.cache / "runs")
    done = lab.run(*words)
    assert done.code == 0, done.stderr
    assert differing(undisturbed, run) == {}
    told = [event["what"] for event in report_of(run)["events"]]
    assert any("distilled, seed 0: went on from step 4" in what for what in told), told
    assert "looking for 25 s whether it still is" in done.stderr
    assert f"the student is in file://{run}/student" in done.stderr
    assert visible(run) == visible(undisturbed) | {"manifest.json", "checkpoints/distilled-seed0/events.jsonl"}


def test_ctrl_c_leaves_all_at_the_url_and_the_same_machine_goes_on_at_once(
    lab: Lab, undisturbed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, gate = lab.new("bucket") / "run", lab.gate().close(ROWS_WHEN_DISTILLED, after=6)
    words = ["distill", undisturbed / "config.yaml", f"store.path={lab.new('labels')}", "--out", f"file://{run}"]
    command = lab.start(*words, gate=gate)
    wait_until(gate.waiting)
    os.killpg(command.pid, signal.SIGINT)
    done = finish(command, limit_s=60)
    assert (done.code, done.errors) == (130, ["stopped; the same command goes on from here"]), done.stderr
    assert checkpoint_is_there(run) and not (run / "owner.json").exists()
    wait_until(lambda: not lab.processes())
    gate.open()
    done = lab.run(*words)
    assert done.code == 0 and "looking for" not in done.stderr, done.stderr
    assert differing(undisturbed, run) == {}

    (run / "report.html").unlink()
    raydistill.report(f"file://{run}")
    assert f"report: file://{run}/report.html" in capsys.readouterr().out
    raydistill.evaluate(f"file://{run}")
    assert (run / "report.html").is_file() and (run / "evaluation.json").is_file()


def test_data_at_a_url_gives_the_same_student(lab: Lab, undisturbed: Path) -> None:
    words = [undisturbed / "config.yaml", f"tasks.digits.data.path=file://{lab.digits}"]
    run = lab.distilled(*words, f"teachers.expert.checkpoint={checkpoint_of(undisturbed / 'config.yaml')}")
    assert differing(undisturbed, run) == {}
    assert report_of(run)["cost"]["teacher_samples"] == 0  # the same rows: the store knows them


def test_a_url_that_cannot_be_reached_is_one_line(lab: Lab, undisturbed: Path) -> None:
    config = undisturbed / "config.yaml"
    assert_refused(lab.run("distill", config, "--out", "ftp://127.0.0.1:1/run"), "--out ftp://127.0.0.1:1/run")
    assert_refused(lab.run("report", "nonsense://run"), "nonsense://run is no URL that is known here")
    assert_refused(lab.run("tune", "smoke", "--out", f"file://{lab.folder}/sweep"), "a sweep cannot lie at the URL")
    place = "tasks.digits.data.path"
    assert_refused(lab.run("distill", config, f"{place}=ftp://127.0.0.1:1/x", "--out", lab.new("run")), place)
