"""`raydistill tune`, as a user runs it: what it finds, what it costs, and what a kill or Ctrl-C leaves."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml
from small_runs import PARTS, Finished, Lab, assert_refused, finish, wait_until

from raydistill.config.loader import load_config

pytestmark = pytest.mark.timeout(280)

T, W = "distill.temperature", "distill.hard_weight"
NUM_VIEWS = 2  # the default
ROWS = len(PARTS["train"]) * NUM_VIEWS + len(PARTS["validation"]) + len(PARTS["test"])


def space_file(lab: Lab, config: dict[str, Any] | None = None, **changes: Any) -> Path:
    """Temperature and weight over the lab's digits, with a store of its own."""
    path = lab.new("space").with_suffix(".yaml")
    settings = {"store": {"path": str(lab.new("labels"))}, "distill": {"soft_labels": "remote"}, **(config or {})}
    content = {
        "config": str(lab.config(**settings)),
        "space": {T: {"float": [1, 6], "log": True}, W: {"float": [0.0, 0.8]}},
        "search": {"num_trials": 4}, **changes,
    }  # fmt: skip
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path


def sweep_of(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "sweep.json").read_text(encoding="utf-8"))
    return content


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


def test_a_killed_sweep_goes_on_with_what_it_had(lab: Lab) -> None:
    out = lab.new("sweep")
    slow = {"training": {**lab.settings()["training"], "num_steps": 200, "evaluate_every": 20}}
    space = space_file(lab, slow, search={"num_trials": 5, "max_concurrent_trials": 1})
    command = lab.start("tune", space, "--out", out)
    wait_until(lambda: "trial 1: retention" in (out / "log.txt").read_text() if (out / "log.txt").exists() else "", 150)
    os.killpg(command.pid, signal.SIGKILL)
    finish(command)
    results = {path.parent.name: path.read_text() for path in out.glob("trials/*/result.json")}
    assert len(results) >= 2
    wait_until(lambda: not lab.processes(), timeout_s=30)

    done = lab.run("tune", "--resume", out)
    assert done.code == 0, done.stderr
    trials = sweep_of(out)["trials"]
    assert [trial["state"] for trial in trials] == ["whole"] * 5
    for name, text in results.items():
        assert (out / "trials" / name / "result.json").read_text() == text


def test_ctrl_c_ends_it_at_once_and_says_how_to_go_on(lab: Lab) -> None:
    out = lab.new("sweep")
    slow = {"training": {**lab.settings()["training"], "num_steps": 4_000, "evaluate_every": 20}}
    command = lab.start("tune", space_file(lab, slow), "--out", out)
    wait_until(lambda: list(out.glob("trials/*/checkpoints/latest.pt")), 150)
    os.killpg(command.pid, signal.SIGINT)
    done = finish(command, limit_s=30)
    assert done.code == 130, done.stderr
    assert done.errors == [f"stopped; go on with: raydistill tune --resume {out}"]
    wait_until(lambda: not lab.processes(), timeout_s=20)


def test_a_trial_that_fails_is_told_with_its_reason_and_the_others_go_on(lab: Lab) -> None:
    out = lab.new("sweep")
    rates = {"training.learning_rate": {"choice": [1e-3, 1e30]}}
    done = lab.run("tune", space_file(lab, space=rates, search={"sampler": "grid", "num_trials": 9}), "--out", out)
    assert done.code == 0, done.stderr
    by_rate = {trial["values"]["training.learning_rate"]: trial for trial in sweep_of(out)["trials"]}
    assert by_rate[1e-3]["state"] == "whole" and by_rate[1e30]["state"] == "failed"
    assert "no number" in by_rate[1e30]["reason"] and "no number" in done.stdout


def test_a_trial_that_falls_behind_is_stopped_and_no_result_beside_the_others(lab: Lab) -> None:
    out = lab.new("sweep")
    # The default, 3e-3, is tried first; whoever learns nothing is behind it at every step.
    rates = {"training.learning_rate": {"choice": [3e-3, 1e-9, 2e-9]}}
    points = [{"training.learning_rate": 1e-9}, {"training.learning_rate": 2e-9}]
    search = {"scheduler": "asha", "num_trials": 3, "max_concurrent_trials": 1, "initial_points": points}
    training = {**lab.settings()["training"], "num_steps": 40}
    done = lab.run("tune", space_file(lab, {"training": training}, space=rates, search=search), "--out", out)
    assert done.code == 0, done.stderr
    trials = sweep_of(out)["trials"]
    assert [trial["state"] for trial in trials] == ["whole", "stopped", "stopped"], trials
    assert [trial["measures"]["step"] for trial in trials] == [40, 8, 8]
    assert [trial["best"] for trial in trials] == [True, False, False]
    assert "stopped at step" in done.stderr


def test_trials_that_change_what_teachers_see_have_keys_of_their_own(lab: Lab) -> None:
    out = lab.new("sweep")
    views = {"tasks.digits.data.num_views": {"choice": [1, 2]}}
    done = lab.run("tune", space_file(lab, space=views, search={"sampler": "grid", "num_trials": 2}), "--out", out)
    assert done.code == 0, done.stderr
    trials = sweep_of(out)["trials"]
    assert {trial["values"]["tasks.digits.data.num_views"] for trial in trials} == {1, 2}
    assert [trial["state"] for trial in trials] == ["whole"] * 2, [trial["reason"] for trial in trials]
    assert sweep_of(out)["cost"]["teacher_samples"] == ROWS  # one view is the first of two


def test_one_core_is_enough_and_none_is_refused(lab: Lab) -> None:
    placed = {"expert": {**lab.settings()["teachers"]["expert"], "placement": {"num_cpus": 1}}}
    one = space_file(lab, {"ray": {"num_cpus": 1}, "teachers": placed}, search={"num_trials": 2})
    done = lab.run("tune", one, "--out", lab.new("sweep"))
    assert done.code == 0, done.stderr
    training = {**lab.settings()["training"], "placement": {"num_cpus": 3}}
    many = space_file(lab, {"ray": {"num_cpus": 2}, "training": training})
    assert_refused(lab.run("tune", many, "--out", lab.new("sweep")), "a trial asks for 3 CPU", "the cluster has 2")


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


def test_a_function_defines_the_space_and_hyperband_stops_what_falls_behind(lab: Lab) -> None:
    out = lab.new("sweep")
    (lab.folder / "spaces.py").write_text(
        "def search(trial):\n    return {'training.learning_rate': trial.suggest_float('rate', 1e-3, 3e-3, log=True)}\n"
    )
    search = {"scheduler": "hyperband", "sampler": "random", "num_trials": 3}
    done = lab.run("tune", space_file(lab, space={}, define="spaces:search", search=search), "--out", out)
    assert done.code == 0, done.stderr
    trials = sweep_of(out)["trials"]
    assert len(trials) == 3 and trials[0]["state"] == "whole"
    assert all(1e-3 <= trial["values"]["training.learning_rate"] <= 3e-3 for trial in trials)


def test_trials_of_ray_train_workers(lab: Lab) -> None:
    out = lab.new("sweep")
    training = {**lab.settings()["training"], "num_workers": 1, "placement": {"num_cpus": 1}}
    search = {"scheduler": "median", "num_trials": 2}
    done = lab.run("tune", space_file(lab, {"training": training}, search=search), "--out", out)
    assert done.code == 0, done.stderr
    assert [trial["state"] for trial in sweep_of(out)["trials"]] == ["whole"] * 2
    assert all(trial["alone"] for trial in sweep_of(out)["trials"])
