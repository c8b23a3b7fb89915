"""teach, label, distill, evaluate, report, then the same again: one story on real digits."""

from __future__ import annotations

import json

import pytest
import yaml
from small_runs import Finished, Lab, differing, report_of

from raydistill.config.loader import load_config


class Story:
    """The commands of the story, in order; each ran once."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.run, self.other = lab, lab.new("run"), lab.new("run")
        self.config = lab.config(cache_dir=str(lab.new("cache")), distill={"soft_labels": "stored"})
        self.taught = self._do("teach", self.config, "--out", lab.new("teach"))
        self.labelled = self._do("label", self.config, "--out", lab.new("label"))
        self.distilled = self._do("distill", self.config, "--out", self.run)
        self.first_report = report_of(self.run)
        self.evaluated = self._do("evaluate", self.run)
        self.reported = self._do("report", self.run)
        self.repeated = self._do("distill", self.run / "config.yaml", "--out", self.other)
        self.trained_at = self._times()
        self.identical = differing(self.run, self.other) == {}
        self.grown = self._do("distill", self.config, "--out", self.other, "--seeds", "2")

    def _do(self, *words: object) -> Finished:
        done = self.lab.run(*words)
        assert done.code == 0, f"{words}: {done.stderr}"
        assert done.errors == []
        return done

    def _times(self) -> dict[str, int]:
        files = (self.other / "checkpoints").glob("*-seed0/latest.pt")
        return {str(file): file.stat().st_mtime_ns for file in files}


@pytest.fixture(scope="module")
def story(lab: Lab) -> Story:
    return Story(lab)


def test_the_run_folder_has_all_that_the_design_names(story: Story) -> None:
    here = {path.name for path in story.run.iterdir()}
    assert list(story.run.rglob("metrics.jsonl"))
    assert here - {"metrics.jsonl"} == {
        "config.yaml", "report.json", "report.html", "student", "checkpoints", "tensorboard", "log.txt",
        "evaluation.json", "labelling.json",
    }  # fmt: skip
    assert {path.name for path in (story.run / "student").iterdir()} == {
        "config.json", "model.safetensors", "README.md",
    }  # fmt: skip
    for arm in ("alone-seed0", "distilled-seed0"):
        assert list((story.run / "tensorboard" / arm).glob("events.out.tfevents.*"))
        assert (story.run / "checkpoints" / arm / "latest.pt").is_file()


def test_the_report_has_all_documented_keys(story: Story) -> None:
    report = story.first_report
    assert {"tasks", "models", "cost", "events", "seeds", "versions"} <= set(report)
    task = report["tasks"]["digits"]
    assert {"metric", "num_test", "teachers", "ensemble", "student_alone", "student_distilled", "retention"} <= set(
        task
    )
    assert task["metric"] == "accuracy" and task["num_test"] == 160 and set(task["teachers"]) == {"expert"}
    assert task["retention"] == pytest.approx(task["student_distilled"] / task["ensemble"])
    for model in ("expert", "student"):
        assert {"parameters", "bytes", "latency_ms"} <= set(report["models"][model])
    assert {
        "wall_s", "teacher_samples", "teacher_samples_cached", "teacher_busy_s", "student_samples", "peak_rss_bytes",
    } <= set(report["cost"])  # fmt: skip
    assert report["seeds"] == [0]


def test_the_config_in_the_run_folder_is_the_resolved_one(story: Story) -> None:
    assert load_config(story.run / "config.yaml") == load_config(story.config)
    assert yaml.safe_load((story.run / "config.yaml").read_text(encoding="utf-8"))["training"]["clip_norm"] == 1.0


def test_a_run_on_labels_written_ahead_asks_the_teachers_nothing(story: Story) -> None:
    assert "1,600 computed" in story.labelled.stderr  # 160 + 160 plain rows, two views of 640
    assert story.first_report["cost"]["teacher_samples"] == 0
    assert story.first_report["cost"]["teacher_samples_cached"] > 0


def test_evaluate_finds_what_the_report_says(story: Story) -> None:
    evaluation = json.loads((story.run / "evaluation.json").read_text(encoding="utf-8"))["digits"]
    assert evaluation["value"] == story.first_report["tasks"]["digits"]["student_distilled"]
    assert evaluation["num_rows"] == 160


def test_report_prints_the_table_and_changes_no_number(story: Story) -> None:
    assert "digits: before and after" in story.reported.stdout
    assert report_of(story.run) == story.first_report


def test_the_config_of_a_run_repeats_it_with_the_same_student(story: Story) -> None:
    assert story.identical


def test_growing_to_two_seeds_keeps_the_first(story: Story) -> None:
    report = report_of(story.other)
    before, after = story.first_report["tasks"]["digits"], report["tasks"]["digits"]
    assert report["seeds"] == [0, 1]
    for student in ("student_alone", "student_distilled"):
        assert after["by_seed"][student][0] == before[student]
        assert after[student] == pytest.approx(sum(after["by_seed"][student]) / 2)
    assert story.trained_at and story.trained_at == story._times()


def test_several_seeds_come_with_their_spread_and_the_table_says_so(story: Story) -> None:
    task = report_of(story.other)["tasks"]["digits"]
    values = task["by_seed"]["student_distilled"]
    assert task["spread"]["student_distilled"] == pytest.approx(abs(values[0] - values[1]) / 2**0.5)
    assert "2 seeds" in story.grown.stdout
    assert f"{task['student_distilled']:.3f} ± {task['spread']['student_distilled']:.3f}" in story.grown.stdout


def test_a_run_folder_of_another_config_is_refused_and_kept(story: Story) -> None:
    done = story.lab.run("distill", story.config, "training.num_steps=13", "--out", story.run)
    assert done.code == 2
    assert len(done.errors) == 1
    for word in (str(story.run), "training.num_steps", "12", "13", "--again"):
        assert word in done.errors[0]
    assert report_of(story.run) == story.first_report


def test_a_repetition_that_is_refused_costs_no_results(story: Story) -> None:
    before = {path.name for path in story.run.iterdir()}
    for mistake in ("ray.address=127.0.0.1:1", "teachers.expert.placement.num_cpus=99"):
        done = story.lab.run("distill", story.config, mistake, "--out", story.run, "--again")
        assert done.code == 2 and "another config" not in done.stderr, done.stderr
    assert {path.name for path in story.run.iterdir()} == before
    assert report_of(story.run) == story.first_report
