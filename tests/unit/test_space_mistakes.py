"""A search space is checked before Ray starts: each mistake is one line that names the place."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from raydistill.errors import ConfigError
from raydistill.tuning.checking import base_config, check_space
from raydistill.tuning.space import Space, load_space

T = "distill.temperature"


def content(**changes: Any) -> dict[str, Any]:
    return {"name": "x", "config": "demo", "space": {T: {"float": [1, 4]}}, **changes}


def checked(**changes: Any) -> Space:
    space = load_space(content(**changes))
    return check_space(space, base_config(space))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"space": {}}, ["space is empty"]),
        ({"space": {"distill.temprature": {"float": [1, 4]}}}, ["distill.temprature", "did you mean 'temperature'"]),
        ({"space": {T: {"float": [4, 4]}}}, [T, "range is empty"]),
        ({"space": {T: {"float": [4, 1]}}}, [T, "low is 4 and high is 1"]),
        ({"space": {T: {"float": [0, 4], "log": True}}}, [T, "log needs a range above 0"]),
        ({"space": {T: {"float": [0, 4]}}}, ["space.distill.temperature", "greater than 0"]),
        ({"space": {T: {"float": [1, 4], "int": [1, 4]}}}, [T, "exactly one of"]),
        ({"space": {T: {"float": [1, 4], "log": True, "step": 1}}}, [T, "log and step"]),
        ({"space": {T: {"choice": []}}}, [T, "choice is empty"]),
        ({"space": {"student.depth": {"int": [True, 3]}}}, ["student.depth.int", "[low, high]"]),
        ({"space": {T: {"float": 3}}}, ["[low, high]"]),
        ({"space": {T: 3}}, [T, "section of `key: value`"]),
        ({"search": {"num_trials": True}}, ["search.num_trials", "not true"]),
        ({"space": {T: {"choice": [1, "hot"]}}}, ["space.distill.temperature", "valid number", "hot"]),
        ({"space": {"student.depth": {"int": [2, 6], "step": 0.5}}}, ["student.depth", "whole"]),
        ({"space": {"student.depth": {"float": [2, 6]}}}, ["space.student.depth", "integer"]),
        ({"space": {T: {"flaot": [1, 4]}}}, ["unknown key", "did you mean 'float'"]),
        ({"objective": {"retntion": "max"}}, ["no measure 'retntion'", "did you mean 'retention'"]),
        ({"objective": {"validation.moods": "max"}}, ["no measure 'validation.moods'"]),
        ({"objective": {"retention": "most"}}, ["objective.retention"]),
        ({"objective": {}}, ["objective"]),
        ({"constraints": {"parameters": {}}}, ["constraints.parameters", "at_most or at_least"]),
        (
            {"objective": {"retention": "max", "bytes": "min"}, "search": {"scheduler": "asha"}},
            ["asha", "one objective", "retention, bytes"],
        ),
        ({"search": {"num_trials": 0}}, ["search.num_trials", "greater than 0"]),
        ({"search": {"sampler": "grid"}}, ["grid needs a step", T]),
        ({"search": {"sampler": "annealing"}}, ["search.sampler"]),
        ({"search": {"sampler": "nsga2"}}, ["nsga2", "several objectives"]),
        ({"search": {"initial_points": [{T: 9}]}}, ["initial_points[0]", "none of 1…4"]),
        (
            {
                "space": {
                    "student.size": {"choice": ["tiny", "small"]},
                    "student.depth": {"int": [2, 4], "when": {"student.size": "small"}},
                },
                "search": {"initial_points": [{"student.size": "tiny", "student.depth": 3}]},
            },
            ["initial_points[0]", "student.depth is searched when student.size is 'small' only"],
        ),
        ({"search": {"initial_points": [{"distill.temprature": 2}]}}, ["initial_points[0]", "did you mean"]),
        ({"constants": {"distill.hard_weigth": 1}}, ["constants", "did you mean 'hard_weight'"]),
        ({"base": {"distill.hard_weigth": 1}}, ["did you mean 'hard_weight'"]),
        ({"space": {T: {"float": [1, 4], "when": {"student.sise": "tiny"}}}}, [T, "student.sise", "not searched"]),
        (
            {"space": {"student.size": {"choice": ["tiny"]}, T: {"float": [1, 4], "when": {"student.size": "vast"}}}},
            [T, "'vast'", "none of ['tiny']"],
        ),
        ({"space": {"distill.task_weights.*.x": {"float": [1, 4]}}}, ["space.distill.task_weights"]),
        ({"space": {"distill.task_w*": {"float": [1, 4]}}}, ["one whole name"]),
        ({"space": {"training.num_steps": {"int": [10, 20]}}}, ["training.num_steps", "cannot differ between trials"]),
        ({"constants": {"ray.num_cpus": 1}}, ["constants.ray.num_cpus", "one Ray", "under base"]),
        ({"space": {"training.placement.num_cpus": {"int": [1, 2]}}}, ["training.placement", "how many trials fit"]),
        ({"space": {"student.width": {"int": [30, 64]}}}, ["space.student.width", "30 is not a multiple"]),
        ({"objective": {"teacher_samples": "min"}}, ["did you mean 'teacher_rows'"]),
        ({"space": {"training": {"choice": [{"num_steps": 4}]}}}, ["changes training.num_steps"]),
        ({"constants": {"training": {"num_steps": 4}}}, ["constants", "changes training.num_steps"]),
        ({"space": {" distill.temperature": {"float": [1, 4]}}}, ["no blanks"]),
        ({"space": {T: {"float": [1, 4], "step": 10}}}, [T, "miss 4"]),
        ({"space": {T: {"choice": [1, 1.0]}}}, [T, "1.0 twice"]),
        ({"constants": {T: 2}}, [T, "set the same"]),
        ({"space": {"distill.task_weights": {"choice": [{}]}, "distill.task_weights.clothes": {"float": [1, 2]}}},
         ["distill.task_weights and distill.task_weights.clothes set the same"]),
        ({"space": {"distill.task_weights.*": {"float": [1, 2]}, "distill.task_weights.clothes": {"float": [1, 2]}}},
         ["distill.task_weights.clothes a second time"]),
        ({"space": {"student.size": {"choice": ["tiny"]}, T: {"float": [1, 4], "when": {"student.size": []}}}},
         [T, "one of no values"]),
        ({"space": {"student.depth": {"int": [1, 3]}, T: {"float": [1, 4], "when": {"student.depth": 77}}}},
         [T, "77", "none of 1…3"]),
        ({"search": {"initial_points": [{T: float("nan")}]}}, ["initial_points[0]", "none of 1…4"]),
        ({"search": {"seed": 2**32}}, ["search.seed"]),
        ({"space": {T: {"float": [1, 4], "step": 1e-9}}, "search": {"sampler": "grid"}}, ["grid has", "points"]),
        ({"constraints": {"parameters": {"at_most": 5, "at_least": 10}}}, ["parameters", "nothing is"]),
        ({"define": "nowhere:space", "space": {}}, ["nowhere"]),
        ({"define": "sys:exit", "space": {}}, ["define 'sys:exit' failed", "SystemExit"]),
        ({"define": "math:floor", "space": {}}, ["define 'math:floor' failed", "TypeError"]),
        ({"define": "builtins:repr", "space": {}}, ["define 'builtins:repr' returned str"]),
        ({"define": "nowhere", "space": {}}, ["module:function"]),
        ({"define": "math:sin"}, ["do not go together"]),
        ({"config": "dmeo"}, ["dmeo"]),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_that_names_its_place(changes: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as refused:
        checked(**changes)
    for word in words:
        assert word in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_star_stands_for_every_name() -> None:
    space = checked(space={"distill.task_weights.*": {"float": [0.5, 2]}})
    assert list(space.space) == [f"distill.task_weights.{name}" for name in ("clothes", "language", "sentiment")]


def test_a_space_that_was_written_down_is_read_again() -> None:
    space = load_space(content(space={T: {"float": [1, 4], "log": True}, "student.depth": {"int": [2, 4]}}))
    assert load_space(space.model_dump(mode="json", by_alias=True)) == space


def test_all_that_is_shipped_is_checked() -> None:
    from raydistill.tuning.space import list_spaces

    for path in list_spaces().values():
        space = load_space(path)
        assert space.description and check_space(space, base_config(space)).space


def test_a_space_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(ConfigError, match=r"no search space 'smok'.*smoke"):
        load_space("smok")


def test_an_installed_package_brings_its_spaces(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=root, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    words = [sys.executable, "-c", "from raydistill.tuning.space import list_spaces; print(*list_spaces())"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "installed")}
    found = subprocess.run(words, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True)
    assert found.stdout.split() == sorted(path.stem for path in (root / "search_spaces").glob("*.yaml"))
