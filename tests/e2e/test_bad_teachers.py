"""A wrong teacher is loud, and so is a run that its cluster cannot hold."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file
from small_runs import Lab, assert_refused, teacher, write_digits


@pytest.fixture(scope="module")
def checkpoint(lab: Lab) -> Path:
    """Of a good teacher of ten digits."""
    out = lab.new("run")
    done = lab.run("teach", lab.config(), "--out", out)
    assert done.code == 0, done.stderr
    return Path(json.loads((out / "teachers.json").read_text(encoding="utf-8"))["expert"]["checkpoint"])


def refused(lab: Lab, config: dict[str, Any], *words: str) -> None:
    out = lab.new("run")
    assert_refused(lab.run("distill", lab.config(**config), "--out", out), *words)
    assert {path.name for path in out.glob("*")} <= {"config.yaml", "log.txt", "labelling.json"}


def test_a_teacher_of_other_labels_is_refused_with_both_lists(lab: Lab, checkpoint: Path) -> None:
    parity = write_digits(lab.new("parity"), lambda digit: ("even", "odd")[digit % 2])
    data = {"source": "imagefolder", "path": str(parity), "image_size": 8, "grayscale": True}
    config = {
        "tasks": {"parity": {"domain": "vision", "data": data}},
        "teachers": {"expert": teacher("parity", checkpoint=str(checkpoint))},
    }
    refused(lab, config, "teacher 'expert'", "'even', 'odd'", "'8', '9'", "label_names")


def test_a_checkpoint_with_missing_weights_is_refused_with_their_names(lab: Lab, checkpoint: Path) -> None:
    cut = shutil.copytree(checkpoint, lab.new("checkpoint"))
    weights = load_file(cut / "model.safetensors")
    del weights["layers.3.weight"]
    save_file(weights, cut / "model.safetensors")
    config = {"teachers": {"expert": teacher(checkpoint=str(cut))}}
    refused(lab, config, "teacher 'expert'", str(cut), "1 missing (layers.3.weight)", "teachers.expert")


def test_a_checkpoint_cut_short_is_refused(lab: Lab, checkpoint: Path) -> None:
    cut = shutil.copytree(checkpoint, lab.new("checkpoint"))
    file = cut / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    config = {"teachers": {"expert": teacher(checkpoint=str(cut))}}
    refused(lab, config, "teacher 'expert'", str(file), "not a readable safetensors file")


def test_a_missing_checkpoint_is_refused(lab: Lab) -> None:
    config = {"teachers": {"expert": teacher(checkpoint="/nowhere/expert")}}
    refused(lab, config, "teacher 'expert'", "/nowhere/expert", "teachers.expert.checkpoint")


def test_a_teacher_at_chance_level_is_refused_unless_allowed(lab: Lab) -> None:
    train = {**teacher()["train"], "num_epochs": 0.01, "learning_rate": 1e-9}
    refused(
        lab, {"teachers": {"expert": teacher(train=train)}},
        "teacher 'expert' is at chance level", "'digits'", "teachers.expert.allow_chance_level=true",
    )  # fmt: skip
    lab.distilled(lab.config(teachers={"expert": teacher(train=train, allow_chance_level=True)}))


def test_a_model_that_cannot_be_built_is_refused(lab: Lab) -> None:
    config = {"teachers": {"expert": teacher(model="gated_teacher:no_such_network")}}
    refused(lab, config, "teacher 'expert'", "no_such_network", "teachers.expert")


@pytest.mark.parametrize(
    ("placement", "named"), [({"num_cpus": 64}, ["64 CPU", "has 4"]), ({"num_cpus": 1, "num_gpus": 2}, ["2 GPU"])]
)
def test_a_run_that_does_not_fit_the_cluster_is_refused(lab: Lab, placement: dict[str, Any], named: list[str]) -> None:
    config = {"teachers": {"expert": teacher(placement=placement)}, "distill": {"soft_labels": "stored"}}
    refused(lab, config, "teachers.expert.placement", *named)


def test_a_cluster_that_does_not_answer_is_refused_with_its_address(lab: Lab) -> None:
    config = {"ray": {"address": "127.0.0.1:9"}, "distill": {"soft_labels": "stored"}}
    refused(lab, config, "127.0.0.1:9", "ray start --head")
