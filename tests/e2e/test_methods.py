"""Ensembles, feature losses, balancing and experts in whole runs; and combinations that make no sense."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from small_runs import Lab, assert_refused, differing, report_of, teacher, write_digits

LOW, HIGH = [str(digit) for digit in range(6)], [str(digit) for digit in range(4, 10)]
LAYER = {"teacher": "expert", "teacher_layer": "layers.2"}


def train_section(seed: int) -> dict[str, Any]:
    return {**teacher()["train"], "seed": seed}


def two_tasks(lab: Lab) -> dict[str, Any]:
    """Digits, and whether they are even."""
    parity = lab.folder / "parity"
    if not parity.exists():
        write_digits(parity, lambda digit: ("even", "odd")[digit % 2])
    data = {"source": "imagefolder", "image_size": 8, "grayscale": True}
    return {
        "digits": {"domain": "vision", "data": {**data, "path": str(lab.digits)}},
        "parity": {"domain": "vision", "data": {**data, "path": str(parity)}},
    }


def test_teachers_of_partly_overlapping_classes_make_one_ensemble(lab: Lab) -> None:
    teachers = {
        "low": teacher(label_names=LOW, partial_labels=True),
        "high": teacher(label_names=HIGH, partial_labels=True),
    }
    run = lab.distilled(lab.config(teachers=teachers, distill={"soft_labels": "stored", "fusion": "confidence"}))
    task = report_of(run)["tasks"]["digits"]
    assert all(value > 0.7 for value in task["teachers"].values()), task["teachers"]  # on the classes that they know
    assert task["fusion"]["strategy"] == "confidence"
    assert task["fusion"]["by_strategy"].keys() == {"mean_logits", "mean_probabilities", "best", "entropy"}
    trust = task["fusion"]["trust"]
    for label, low, high in zip(task["label_names"], trust["low"], trust["high"], strict=True):
        if low is not None:
            assert low + high == pytest.approx(1.0)
        if low is not None and label in "0123":  # labelled rows of these are the one's alone
            assert low > high
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "Teachers together" in page and "trusted on" in page
    assert "of the 6 of 10 classes that it knows" in (run / "log.txt").read_text(encoding="utf-8")


def test_without_saying_so_a_teacher_of_other_classes_is_refused(lab: Lab) -> None:
    config = lab.config(teachers={"low": teacher(label_names=LOW)})
    assert_refused(lab.run("distill", config, "--out", lab.new("run")), "'low'", "teachers.low.partial_labels=true")


@pytest.mark.parametrize("way", ["local", "remote"])
def test_features_travel_and_are_learned_from(lab: Lab, way: str) -> None:
    features = {
        "deep": {**LAYER, "loss": "hint", "student_layer": "trunk.blocks.0"},
        "relations": {**LAYER, "loss": "rkd_distance", "weight": 0.5},
        "alike": {**LAYER, "loss": "similarity", "student_layer": "stems.vision"},
    }
    plain = lab.distilled(lab.config(distill={"soft_labels": way}))
    run = lab.distilled(lab.config(distill={"soft_labels": way, "features": features}))
    assert differing(plain, run)
    metrics = (run / "metrics.jsonl").read_text(encoding="utf-8")
    assert all(f'"digits/{name}"' in metrics for name in features)
    training_rows = 12 * 20  # asked anew in every step, whatever the store has
    assert report_of(run)["cost"]["teacher_samples"] >= training_rows
    if way == "remote":
        other = lab.distilled(lab.config(distill={"soft_labels": "local", "features": features}))
        assert max(differing(other, run).values(), default=0.0) < 1e-4


def test_features_that_the_store_keeps_are_asked_once(lab: Lab) -> None:
    features = {"deep": {**LAYER, "loss": "hint"}}
    asked = lab.distilled(lab.config(distill={"soft_labels": "local", "features": features}))
    config = lab.config(distill={"soft_labels": "auto", "features": features}, store={"features": True})
    runs = [lab.distilled(config) for _ in range(2)]
    for run in runs:
        assert max(differing(asked, run).values(), default=0.0) < 1e-6
    assert report_of(runs[1])["cost"]["teacher_samples"] == 0
    assert "layer" in lab.run("store", "list", str(config)).stdout


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"distill": {"soft_labels": "local", "features": {"deep": {**LAYER, "student_layer": "trunk.blokcs.0"}}}},
         ("'trunk.blokcs.0'", "did you mean 'trunk.blocks.0'")),
        ({"student": {"classifier": {"loader": "torchvision", "model": "resnet999"}}}, ("student.classifier",)),
        ({"student": {"trunk": "transformers", "encoder": {"model": "no-such-kind"}}}, ("student.encoder",)),
        ({"student": {"trunk": "transformers", "layers_from": "expert"}}, ("student.layers_from", "'expert'")),
    ],
    ids=["layer", "classifier", "encoder", "lender"],
)  # fmt: skip
def test_a_student_that_cannot_be_is_refused_before_a_teacher_is_taught(
    lab: Lab, changes: dict[str, Any], words: tuple[str, ...]
) -> None:
    config = lab.config(cache_dir=str(lab.new("cache")), **changes)
    done = lab.run("distill", config, "--out", lab.new("run"))
    assert_refused(done, *words)
    assert "training" not in done.stderr


def test_a_layer_that_is_not_there_is_one_line_before_anything_trains(lab: Lab) -> None:
    features = {"deep": {**LAYER, "teacher_layer": "layers.9"}}
    config, out = lab.config(distill={"soft_labels": "local", "features": features}), lab.new("run")
    assert_refused(lab.run("distill", config, "--out", out), "'expert'", "'layers.9'", "did you mean")
    assert not (out / "checkpoints" / "alone-seed0").exists()


def test_experts_and_balanced_tasks_are_told_in_the_report(lab: Lab) -> None:
    teachers = {"expert": teacher(), "odd": teacher("parity"), "odd-too": teacher("parity", train=train_section(7))}
    config = lab.config(
        tasks=two_tasks(lab), teachers=teachers,
        student={"width": 32, "depth": 1, "num_heads": 2, "patch_size": 4, "trunk": "experts"},
        distill={
            "soft_labels": "stored", "balancing": "upgrad", "fusion": "gate", "task_losses": {"parity": "dkd"},
            "balancing_options": {"measure_every": 4},
        },
    )  # fmt: skip
    run = lab.distilled(config)
    report = report_of(run)
    balancing = report["balancing"]
    assert balancing["method"] == "upgrad" and balancing["measured"] == 3
    assert balancing["weight"].keys() == {"digits", "parity"} and -1 <= balancing["cosine"]["digits~parity"] <= 1
    assert sum(balancing["loss_share"].values()) == pytest.approx(1.0)
    for shares in report["routing"].values():
        assert sum(shares) == pytest.approx(1.0)
    assert report["tasks"]["parity"]["teachers"].keys() == {"odd", "odd-too"}
    assert report["tasks"]["parity"]["fusion"]["strategy"] == "gate" and "fusion" not in report["tasks"]["digits"]
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "Tasks together" in page and "Experts of the trunk" in page
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8")
    assert "balance/cosine/digits~parity" in lines
    assert all(math.isfinite(task["student_distilled"]) for task in report["tasks"].values())


def test_rows_without_a_label_train_on_soft_labels_alone_mixed_with_others(lab: Lab) -> None:
    run = lab.distilled(
        lab.config(tasks=two_tasks(lab), teachers={"expert": teacher(), "odd": teacher("parity")}),
        "training.label_fraction=0.1", "training.num_steps=60", "training.evaluate_every=30",
    )  # fmt: skip
    for task in report_of(run)["tasks"].values():
        assert task["num_labelled"] == 64 and task["num_train"] == 640
        assert task["student_distilled"] > task["student_alone"] - 0.05


def test_methods_are_listed_and_told(lab: Lab) -> None:
    listed = lab.run("methods")
    assert listed.code == 0
    for name in ("dkd", "rkd_angle", "aekd", "nash_mtl", "reformer"):
        assert f" {name} " in listed.stdout
    told = lab.run("methods", "dkd").stdout
    assert "distill.loss: dkd" in told and "Zhao" in told and "distill.loss_options.dkd" in told
    assert_refused(lab.run("methods", "dkdd"), "no method 'dkdd'", "did you mean 'dkd'")


def test_the_methods_page_is_what_the_docstrings_say() -> None:
    from raydistill.commands.methods import catalogue, markdown

    for method in catalogue():
        assert method.summary and method.source and method.use.startswith("Use it when"), method.name
    page = (Path(__file__).parents[2] / "docs" / "methods.md").read_text(encoding="utf-8")
    assert markdown().strip() in page
