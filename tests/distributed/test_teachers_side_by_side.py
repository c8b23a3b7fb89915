"""Teachers trained at once, as Ray tasks."""

from __future__ import annotations

import json
from typing import Any

import pytest
from safetensors.numpy import load_file
from small_runs import Lab, teacher

import raydistill
from raydistill import TeacherError
from raydistill.config.loader import load_config
from raydistill.teachers.teacher import load_teacher

pytestmark = pytest.mark.usefixtures("cluster")

PLACED = {**teacher()["train"], "placement": {"num_cpus": 1}}


def two_teachers(second: dict[str, Any]) -> dict[str, Any]:
    return {"first": teacher(train=PLACED), "second": teacher(train=PLACED, options=second)}


def test_two_teachers_trained_at_once_land_in_the_cache_and_load(lab: Lab) -> None:
    settings = lab.settings(teachers=two_teachers({"width": 48}), cache_dir=str(lab.new("cache")))
    folders = raydistill.teach(settings, out=lab.new("run"))
    assert set(folders) == {"first", "second"}
    for name, folder in folders.items():
        card = json.loads(next(folder.glob("*.json")).read_text(encoding="utf-8"))
        assert card["validation_accuracy"] > 0.5
        loaded = load_teacher(load_config(settings), name, tuple("0123456789"))
        assert loaded.num_parameters == sum(value.size for value in load_file(folder / "model.safetensors").values())
    assert not list(folders["first"].parent.glob("*.unfinished"))


def test_a_teacher_trained_as_a_task_is_the_one_trained_in_this_process(lab: Lab) -> None:
    trained = {}
    for where, train in (("task", PLACED), ("here", teacher()["train"])):
        settings = lab.settings(teachers={"expert": teacher(train=train)}, cache_dir=str(lab.new("cache")))
        trained[where] = load_file(raydistill.teach(settings, out=lab.new("run"))["expert"] / "model.safetensors")
    for key, value in trained["here"].items():
        assert trained["task"][key] == pytest.approx(value, abs=1e-4), key


def test_a_teacher_whose_training_fails_is_named_with_the_reason(lab: Lab) -> None:
    settings = lab.settings(
        teachers=two_teachers({"broken": "the weights are on strike"}), cache_dir=str(lab.new("cache"))
    )
    with pytest.raises(TeacherError, match=r"teacher 'second'.*the weights are on strike"):
        raydistill.teach(settings, out=lab.new("run"))
