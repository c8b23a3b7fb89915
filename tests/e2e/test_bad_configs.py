"""A config that cannot be meant is refused in one line, before anything is loaded or written."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_runs import Lab, assert_refused, teacher


def test_an_unknown_key_is_refused_with_the_nearest_valid_one(lab: Lab) -> None:
    done = lab.run("distill", lab.config(distil={"temperature": 3}))
    assert_refused(done, "unknown key 'distil'", "did you mean 'distill'")


def test_an_unknown_key_of_an_override_is_refused(lab: Lab) -> None:
    done = lab.run("distill", lab.config(), "training.num_stepz=3")
    assert_refused(done, "training.num_stepz", "num_steps")


def test_a_wrong_type_is_refused_with_its_place_and_value(lab: Lab) -> None:
    done = lab.run("distill", lab.config(), "training.num_steps=many")
    assert_refused(done, "training.num_steps", "integer", "many")


def test_a_number_out_of_range_is_refused(lab: Lab) -> None:
    assert_refused(lab.run("distill", lab.config(), "distill.temperature=0"), "distill.temperature", "greater than 0")


def test_a_missing_config_file_is_refused_with_the_recipes_that_there_are(lab: Lab) -> None:
    assert_refused(lab.run("distill", "nowhere.yaml"), "nowhere.yaml", "demo")


def test_a_key_given_twice_is_refused_with_its_line(lab: Lab) -> None:
    path = lab.config()
    path.write_text(path.read_text() + "name: another\n")
    line = len(path.read_text().splitlines())
    assert_refused(lab.run("distill", path), str(path), f"line {line}", "'name' is given twice")


def test_broken_yaml_is_refused_with_its_line(lab: Lab) -> None:
    path = lab.config()
    path.write_text("name: digits\ntasks: [\n")
    assert_refused(lab.run("distill", path), str(path), "line", "not valid YAML")


def test_a_word_that_is_no_override_is_refused(lab: Lab) -> None:
    assert_refused(lab.run("distill", lab.config(), "temperature"), "temperature", "key=value")


def test_a_teacher_of_an_unknown_task_is_refused_with_the_tasks(lab: Lab) -> None:
    done = lab.run("distill", lab.config(teachers={"expert": teacher("numbers")}))
    assert_refused(done, "teachers.expert.task", "numbers", "digits")


@pytest.mark.parametrize("command", ["distill", "label"])
def test_a_task_without_a_teacher_is_refused(lab: Lab, command: str) -> None:
    out = lab.new("run")
    assert_refused(lab.run(command, lab.config(teachers={}), "--out", out), "'digits' without a teacher", "teachers")
    assert not out.exists()


def test_a_folder_of_something_else_is_refused_and_left_alone(lab: Lab) -> None:
    out = lab.new("mine")
    out.mkdir()
    (out / "thesis.txt").write_text("chapter one")
    assert_refused(lab.run("distill", lab.config(), "--out", out), str(out), "not a run folder", "--out")
    assert {path.name for path in out.iterdir()} == {"thesis.txt"}


def test_a_cache_that_cannot_be_made_is_refused(lab: Lab) -> None:
    file = lab.new("file")
    file.touch()
    done = lab.run("distill", lab.config(cache_dir=str(file / "cache")), "--out", lab.new("run"))
    assert_refused(done, str(file / "cache"), "cache_dir")


@pytest.mark.parametrize("command", ["evaluate", "report"])
def test_a_folder_that_is_no_run_has_no_report(lab: Lab, tmp_path: Path, command: str) -> None:
    assert_refused(lab.run(command, tmp_path), str(tmp_path), "not a run folder")


@pytest.mark.parametrize("command", ["evaluate", "report"])
def test_an_unfinished_run_is_refused_with_what_finishes_it(lab: Lab, tmp_path: Path, command: str) -> None:
    (tmp_path / "config.yaml").write_text(lab.config().read_text())
    assert_refused(lab.run(command, tmp_path), str(tmp_path), "raydistill distill", "config.yaml")
    assert {path.name for path in tmp_path.iterdir()} == {"config.yaml"}


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["distill"], "config"),
        (["distill", "demo", "--bogus"], "--bogus"),
        (["distil", "demo"], "distil"),
        (["distill", "demo", "--seeds", "0"], "--seeds"),
    ],
    ids=["no config", "unknown option", "unknown command", "no seeds"],
)
def test_a_wrong_command_line_is_refused_by_name(lab: Lab, words: list[str], named: str) -> None:
    assert_refused(lab.run(*words), named)
