"""A multilabel and a regression task, two teachers each, from data to predictions in the user's units."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import other_kinds
import pytest
import tiny
import yaml
from small_runs import report_of

import raydistill
from raydistill.commands.distill import Distilled

STUDENT = {**tiny.STUDENT, "dropout": 0.0}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("kinds")
    other_kinds.write_sentences(root / "sentences.jsonl")
    return {
        "name": "kinds",
        "cache_dir": str(root / "cache"),
        "tasks": other_kinds.sections(root / "sentences.jsonl"),
        "teachers": {
            f"{task}-{seed}": other_kinds.teacher(task, seed) for task in ("tags", "score") for seed in (0, 1)
        },
        "student": STUDENT,
        "distill": {"soft_labels": "local", "fusion": "confidence", "task_fusions": {"score": "mean_logits"}},
        "training": {
            "num_steps": 150, "batch_size": 16, "evaluate_every": 50, "precision": "fp32", "learning_rate": 3e-3,
            "label_fraction": 0.3,
        },
    }  # fmt: skip


@pytest.fixture(scope="module")
def run(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Distilled:
    return raydistill.distill(settings, out=tmp_path_factory.mktemp("run") / "kinds")


def test_teachers_and_student_learn_both_and_the_report_says_so(run: Distilled) -> None:
    report = report_of(run.folder)
    tags, score = report["tasks"]["tags"], report["tasks"]["score"]
    assert (tags["kind"], tags["metric"]) == ("multilabel", "mean average precision")
    assert (score["kind"], score["metric"]) == ("regression", "R²")
    assert tags["label_names"] == list(other_kinds.TAGS) and score["label_names"] == ["score", "words"]
    assert len(tags["teachers"]) == len(score["teachers"]) == 2
    assert tags["ensemble"] > 0.9 and score["ensemble"] > 0.6
    assert tags["student_distilled"] > tags["chance"] + 0.1 and 0.3 < tags["chance"] < 0.8
    assert score["student_distilled"] > 0.15 and score["chance"] == 0.0
    assert {"macro_f1", "label_accuracy"} <= tags.keys() and {"rmse_score", "rmse_words", "spearman"} <= score.keys()
    assert score["rmse_score"]["ensemble"] < 10  # of −20 … 20 around 50
    assert set(score["fusion"]["by_strategy"]) == {"mean_logits", "best"}
    assert len(tags["fusion"]["trust"]["tags-0"]) == 3
    assert 0 < tags["num_labelled"] < tags["num_train"] / 4
    assert tags["num_test"] < report["tasks"]["tags"]["num_train"]
    assert "NaN" not in json.dumps(report)


def test_the_gain_that_is_judged_is_the_gain_of_the_metric(run: Distilled) -> None:
    task = report_of(run.folder)["tasks"]["tags"]
    assert task["gain"]["mean"] == pytest.approx(task["student_distilled"] - task["student_alone"])


def test_evaluate_finds_what_the_report_says(run: Distilled) -> None:
    found = raydistill.evaluate(run.folder)
    for name, task in report_of(run.folder)["tasks"].items():
        assert found[name]["value"] == pytest.approx(task["student_distilled"])
        assert found[name]["num_rows"] == task["num_test"]
    assert found["score"]["rmse_score"] == pytest.approx(
        report_of(run.folder)["tasks"]["score"]["rmse_score"]["student_distilled"]
    )


def test_other_data_is_measured_in_the_units_that_the_student_learned(
    run: Distilled, settings: dict[str, Any], tmp_path: Path
) -> None:
    rows = [json.loads(line) for line in Path(settings["tasks"]["tags"]["data"]["path"]).read_text().splitlines()]
    shifted = [row for row in rows if row["score"] is None or row["score"] > 40]
    (tmp_path / "some.jsonl").write_text("\n".join(json.dumps(row) for row in shifted), encoding="utf-8")
    words = [f"tasks.{task}.data.path={tmp_path / 'some.jsonl'}" for task in ("tags", "score")]
    found = raydistill.evaluate(run.folder, [*words, f"cache_dir={tmp_path}"], split="test", out=tmp_path)["score"]
    known = raydistill.predict(run.student(), "score", [row["text"] for row in shifted])
    assert 1 < found["rmse_score"] < 20 and all(20 < each["score"] < 80 for each in known)


def test_predictions_are_probabilities_of_names_and_numbers_in_the_users_units(run: Distilled) -> None:
    student = run.student()
    (tags,) = raydistill.predict(student, "tags", ["the film was fine and lovely"])
    assert list(tags) == list(other_kinds.TAGS) and all(0 < each < 1 for each in tags.values())
    better, worse = raydistill.predict(student, "score", ["fine lovely day and thing", "poor dull day and thing"])
    assert list(better) == ["score", "words"] and worse["score"] < 50 < better["score"]
    assert 3 < better["words"] < 8


def test_a_regressions_teachers_keep_their_units_in_their_cards(run: Distilled, settings: dict[str, Any]) -> None:
    cards = [json.loads(file.read_text()) for file in Path(settings["cache_dir"]).rglob("teacher.json")]
    scales = [card["label_scales"]["score"] for card in cards if card["task"] == "score"]
    assert len(scales) == 2 and all(40 < mean < 60 and 5 < deviation < 20 for mean, deviation in scales)
    assert all("label_scales" not in card for card in cards if card["task"] == "tags")


def test_a_teacher_of_other_units_says_the_same(run: Distilled, settings: dict[str, Any], tmp_path: Path) -> None:
    """A checkpoint that was standardised by other data: the card tells its units."""
    from safetensors.torch import load_file, save_file

    from raydistill.commands.preparing import as_config, with_scales
    from raydistill.data.dataset import load_task_data
    from raydistill.teachers.checkpoints import CARD, WEIGHTS, teacher_folder
    from raydistill.teachers.teacher import load_teacher

    config = as_config(settings)
    data = load_task_data("score", config.tasks["score"], Path(config.cache_dir))
    config = with_scales(config, {"score": data})
    folder, own = teacher_folder(config, "score-0"), tmp_path / "own"
    own.mkdir()
    card = json.loads((folder / CARD).read_text())
    weights = load_file(folder / WEIGHTS)
    # The same numbers in the user's own units: without scales in the card.
    mean, deviation = np.array(list(card.pop("label_scales").values())).T
    words = data.validation.views(range(20))
    before = load_teacher(config, "score-0", data.label_names)
    save_file({key: value * value.new_tensor(deviation) for key, value in weights.items()}, own / WEIGHTS)
    card["label_scales"] = dict(zip(card["label_names"], [(m, 1.0) for m in mean], strict=True))
    (own / CARD).write_text(json.dumps(card))
    changed = config.model_dump(mode="json")
    changed["teachers"]["score-0"]["checkpoint"] = str(own)
    after = load_teacher(type(config).model_validate(changed), "score-0", data.label_names)
    np.testing.assert_allclose(after.logits(words).astype(float), before.logits(words).astype(float), atol=5e-3)
    assert after.fingerprint != before.fingerprint


def test_the_run_repeats_from_its_own_config(run: Distilled) -> None:
    written = yaml.safe_load((run.folder / "config.yaml").read_text(encoding="utf-8"))
    assert written["tasks"]["score"]["kind"] == "regression"
    assert written["tasks"]["score"]["data"]["label_scales"] is None  # the data's own
