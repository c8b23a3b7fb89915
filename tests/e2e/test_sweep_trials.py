"""`raydistill tune`, as a user runs it: trials that fail, fall behind, are killed, are many or have no room."""

from __future__ import annotations

import os
import signal

from small_runs import PARTS, ROWS_WHEN_DISTILLED, Lab, assert_refused, finish, wait_until
from small_sweeps import ROWS, space_file, sweep_of


def test_a_killed_sweep_goes_on_with_what_it_had(lab: Lab) -> None:
    out = lab.new("sweep")
    slow = {"training": {**lab.settings()["training"], "num_steps": 200, "evaluate_every": 20}}
    space = space_file(lab, slow, search={"num_trials": 5, "max_concurrent_trials": 1})
    command = lab.start("tune", space, "--out", out)
    wait_until(lambda: "trial 1: retention" in (out / "log.txt").read_text() if (out / "log.txt").exists() else "")
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
    wait_until(lambda: list(out.glob("trials/*/checkpoints/latest.pt")))
    os.killpg(command.pid, signal.SIGINT)
    done = finish(command, limit_s=60)
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
    assert_refused(
        lab.run("tune", many, "--out", lab.new("sweep")),
        "3 CPU",
        "training.placement (of a trial)",
        "the cluster has 2",
    )


def test_a_trial_that_no_node_may_run_is_not_run_elsewhere(lab: Lab) -> None:
    placement = {"num_cpus": 1, "label_selector": {"role": "nobody"}}
    space = space_file(lab, {"training": {**lab.settings()["training"], "placement": placement}})
    named = "no node of the cluster has the labels {'role': 'nobody'} that training.placement (of a trial)"
    assert_refused(lab.run("tune", space, "--out", lab.new("sweep")), named)
    waited = lab.run("tune", space, "ray.autoscales=true", "ray.wait_s=10", "--out", lab.new("sweep"))
    assert waited.code == 2 and "for a trial (CPU 1, label role=nobody; free: CPU" in waited.errors[-1], waited.stderr


def test_a_function_defines_the_space_and_hyperband_stops_what_falls_behind(lab: Lab) -> None:
    out = lab.new("sweep")
    (lab.folder / "spaces.py").write_text(
        "def search(trial):\n    return {'training.learning_rate': trial.suggest_float('rate', 1e-3, 3e-3, log=True)}\n"
    )
    search = {"scheduler": "hyperband", "sampler": "random", "num_trials": 3}
    # Nothing is kept, so that each trial has the teacher in its own process and asks at every step.
    private = {"distill": {"soft_labels": "local"}, "store": {"fill": False, "path": str(lab.new("labels"))}}
    done = lab.run("tune", space_file(lab, private, space={}, define="spaces:search", search=search), "--out", out)
    assert done.code == 0, done.stderr
    trials = sweep_of(out)["trials"]
    plain_rows, steps = len(PARTS["validation"]) + len(PARTS["test"]), [trial["measures"]["step"] for trial in trials]
    assert sweep_of(out)["cost"]["teacher_samples"] == plain_rows + sum(steps) * ROWS_WHEN_DISTILLED
    assert len(trials) == 3 and {trial["state"] for trial in trials} <= {"whole", "stopped"}
    assert all(1e-3 <= trial["values"]["training.learning_rate"] <= 3e-3 for trial in trials)


def test_trials_of_ray_train_workers(lab: Lab) -> None:
    out = lab.new("sweep")
    training = {**lab.settings()["training"], "num_workers": 1, "placement": {"num_cpus": 1}}
    search = {"scheduler": "median", "num_trials": 2}
    done = lab.run("tune", space_file(lab, {"training": training}, search=search), "--out", out)
    assert done.code == 0, done.stderr
    assert [trial["state"] for trial in sweep_of(out)["trials"]] == ["whole"] * 2
    assert all(trial["alone"] for trial in sweep_of(out)["trials"])


def test_a_trial_whose_process_is_killed_is_told_and_the_others_go_on(lab: Lab) -> None:
    out = lab.new("sweep")
    slow = {"training": {**lab.settings()["training"], "num_steps": 300, "evaluate_every": 100}}
    command = lab.start(
        "tune", space_file(lab, slow, search={"num_trials": 3, "max_concurrent_trials": 1}), "--out", out
    )
    wait_until(lambda: list(out.glob("trials/*/checkpoints")))
    (trial,) = [each for each in lab.processes() if each.name().startswith("ray::Implicit")]
    trial.kill()
    done = finish(command)
    assert done.code == 0, done.stderr
    states = [each["state"] for each in sweep_of(out)["trials"]]
    assert states == ["failed", "whole", "whole"], sweep_of(out)["trials"]
    assert "its process ended" in sweep_of(out)["trials"][0]["reason"]
