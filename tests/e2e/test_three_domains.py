"""The demo's own data, teachers and student, cut short: pictures, sentences and speech through real actors."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_runs import Lab, report_of

TEACHERS = {"clothes": "resnet", "sentiment": "minilm", "language": "wav2vec2"}


@pytest.fixture(scope="module")
def run(lab: Lab) -> Path:
    # Teachers and soft labels are this test's own; the downloaded packages and prepared tables are worth keeping.
    kept, cache = Path("~/.cache/raydistill").expanduser(), lab.new("cache")
    cache.mkdir()
    for name in ("raw", "data"):
        (kept / name).mkdir(parents=True, exist_ok=True)
        (cache / name).symlink_to(kept / name)
    words = [
        f"cache_dir={cache}",
        "training.num_steps=8",
        "training.evaluate_every=4",
        "training.batch_size=8",
        "training.task_batch_size={}",
    ]
    words += ["student.size=tiny", "student.depth=1", "distill.soft_labels=stored"]
    for task, teacher in TEACHERS.items():
        words += [f"tasks.{task}.data.max_{split}={rows}" for split, rows in (("train", 160), ("validation", 90))]
        words += [f"tasks.{task}.data.max_test=90", f"teachers.{teacher}.allow_chance_level=true"]
        words += [f"teachers.{teacher}.train.num_epochs=0.5", f"teachers.{teacher}.train.batch_size=16"]
    return lab.distilled("demo", *words, limit_s=550)


def test_one_student_learns_from_teachers_of_three_domains(run: Path) -> None:
    report = report_of(run)
    assert {name: set(task["teachers"]) for name, task in report["tasks"].items()} == {
        task: {teacher} for task, teacher in TEACHERS.items()
    }
    assert {task["domain"] for task in report["tasks"].values()} == {"vision", "text", "speech"}
    assert report["models"]["student"]["parameters"] < report["models"]["minilm"]["parameters"]


def test_every_teacher_spoke_on_every_row_and_view(run: Path) -> None:
    cost = report_of(run)["cost"]
    assert cost["teacher_samples"] == 3 * 180 + 160 * (2 + 1 + 2)
    assert cost["teacher_samples_cached"] == 8 * 8 * 3


def test_the_student_travels_with_its_tokenizer(run: Path) -> None:
    assert (run / "student" / "tokenizer.json").is_file()
