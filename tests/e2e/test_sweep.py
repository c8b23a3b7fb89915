"""`raydistill tune`, as a user runs it: what it finds, what it costs, what it leaves."""

from __future__ import annotations

import csv
import json
import re
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml
from small_runs import Finished, Lab, assert_refused, wait_until
from small_sweeps import ROWS, T, space_file, sweep_of

from raydistill.config.loader import load_config


@pytest.fixture(scope="module")
def space(lab: Lab) -> Path:
    return space_file(lab)


@pytest.fixture(scope="module")
def finished(lab: Lab, space: Path) -> tuple[Path, Finished]:
    out = lab.new("sweep")
    done = lab.run("tune", space, "--out", out)
    assert done.code == 0, done.stderr
    return out, done


def test_a_sweep_writes_its_trials_and_names_the_best(finished: tuple[Path, Finished]) -> None:
    out, done = finished
    content = sweep_of(out)
    trials = content["trials"]
    assert [trial["state"] for trial in trials] == ["whole"] * 4
    best = max(trials, key=lambda trial: trial["measures"]["retention"])
    assert [trial["number"] for trial in trials if trial["best"]] == [best["number"]]
    with (out / "trials.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row[T]) for row in rows] == [trial["values"][T] for trial in trials]
    assert f"the best is trial {best['number']}" in done.stdout
    config = load_config(out / "best.yaml")
    assert config.distill.temperature == best["values"][T]


def test_the_first_trial_is_the_defaults(lab: Lab, finished: tuple[Path, Finished], space: Path) -> None:
    config = load_config(yaml.safe_load(space.read_text())["config"])
    assert sweep_of(finished[0])["trials"][0]["values"][T] == config.distill.temperature


def test_all_trials_together_ask_the_teachers_once(finished: tuple[Path, Finished]) -> None:
    assert sweep_of(finished[0])["cost"]["teacher_samples"] == ROWS


def test_the_student_alone_is_trained_once_where_only_the_teaching_is_searched(
    finished: tuple[Path, Finished],
) -> None:
    out, _ = finished
    assert len(list((out / "baseline").iterdir())) == 1
    assert len({trial["alone"]["retention"] for trial in sweep_of(out)["trials"]}) == 1
    assert all(trial["gain"] is not None for trial in sweep_of(out)["trials"])


def test_a_trial_trains_what_distill_trains(lab: Lab, finished: tuple[Path, Finished]) -> None:
    out, _ = finished
    run = lab.distilled(out / "best.yaml", "distill.soft_labels=stored", "ray.num_cpus=2")
    curve = json.loads((run / "report.json").read_text(encoding="utf-8"))["curves"]["distilled-seed0"]
    best = next(trial for trial in sweep_of(out)["trials"] if trial["best"])
    assert max(point["retention"] for point in curve) == pytest.approx(best["measures"]["retention"], abs=1e-6)


def test_called_again_it_is_done_and_with_more_trials_it_is_extended(
    lab: Lab, finished: tuple[Path, Finished], space: Path
) -> None:
    out, _ = finished
    before = sweep_of(out)["trials"]
    done = lab.run("tune", "--resume", out, "--trials", 6)
    assert done.code == 0, done.stderr
    after = sweep_of(out)["trials"]
    assert len(after) == 6
    assert [trial["measures"] for trial in after[:4]] == [trial["measures"] for trial in before]
    assert sweep_of(out)["cost"]["teacher_samples"] == ROWS  # of all calls: the store knew everything
    assert_refused(lab.run("tune", space_file(lab), "--out", out), "another space or config", "--resume")


def test_the_page_draws_the_student_alone_and_fetches_nothing(finished: tuple[Path, Finished]) -> None:
    page = (finished[0] / "sweep.html").read_text(encoding="utf-8")
    assert "the same student alone" in page and "Which parameter matters" in page and T in page
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=", page)


def test_optuna_dashboard_opens_the_study(finished: tuple[Path, Finished]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    executable = Path(sys.executable).with_name("optuna-dashboard")
    dashboard = subprocess.Popen(
        [executable, finished[0] / "study.log", "--port", str(port)], stderr=subprocess.DEVNULL
    )
    try:
        wait_until(lambda: studies_at(port), timeout_s=60)
        (study,) = studies_at(port)
        assert study["directions"] == ["maximize"]
    finally:
        dashboard.kill()
        dashboard.wait()


def studies_at(port: int) -> list[dict[str, Any]]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/studies", timeout=5) as answer:
            found: list[dict[str, Any]] = json.load(answer)["study_summaries"]
    except OSError:
        return []
    return found


def test_the_best_is_compared_with_the_default_over_new_seeds(lab: Lab) -> None:
    out = lab.new("sweep")
    rates = {"training.learning_rate": {"choice": [1e-5, 3e-3]}}
    slow = {"training": {**lab.settings()["training"], "learning_rate": 1e-5}}
    space = space_file(lab, slow, space=rates, search={"sampler": "grid", "num_trials": 2})
    done = lab.run("tune", space, "--out", out, "--seeds", 2)
    assert done.code == 0, done.stderr
    compared = sweep_of(out)["comparison"]
    assert compared["seeds"] == [1, 2] and not compared["same"]
    assert compared["retention"]["winner"] > compared["retention"]["defaults"]
    assert all(len(task) == 3 for task in compared["tasks"].values())
    assert "mean retention on the test split, 2 new seeds" in done.stdout
    # Both runs are whole; called again, nothing is trained again.
    reports = {path: path.read_text() for path in out.glob("compared/*/report.json")}
    assert len(reports) == 2
    again = lab.run("tune", "--resume", out, "--seeds", 2)
    assert again.code == 0, again.stderr
    assert {path: path.read_text() for path in reports} == reports


def test_several_objectives_give_a_front(lab: Lab) -> None:
    out = lab.new("sweep")
    widths = {"student.width": {"choice": [16, 32]}, "student.depth": {"choice": [1]}}
    goals = {"retention": "max", "parameters": "min"}
    space = space_file(lab, space=widths, objective=goals, search={"sampler": "grid", "num_trials": 2})
    done = lab.run("tune", space, "--out", out)
    assert done.code == 0, done.stderr
    trials = sweep_of(out)["trials"]
    small, large = sorted(trials, key=lambda trial: trial["measures"]["parameters"])
    assert small["best"]
    assert large["best"] == (large["measures"]["retention"] > small["measures"]["retention"])
    assert len(list((out / "baseline").iterdir())) == 2
    assert "retention against parameters" in (out / "sweep.html").read_text(encoding="utf-8")
