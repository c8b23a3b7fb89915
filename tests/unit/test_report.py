"""report.json from made-up predictions: every number can be worked out by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tiny

from raydistill.config.models import Config
from raydistill.data.dataset import TaskData
from raydistill.evaluation.assemble import ArmResult, assemble_report
from raydistill.fusion.standing import Standing
from raydistill.soft_labels.source import TeacherCost

Data = dict[str, TaskData]
Report = Callable[..., dict[str, Any]]


def answers(data: TaskData, wrong: tuple[int, ...]) -> np.ndarray:
    """Logits on the test split, right but for the given rows."""
    labels = data.test.labels.copy()
    labels[list(wrong)] = (labels[list(wrong)] + 1) % len(data.label_names)
    return 4 * np.eye(len(data.label_names), dtype=np.float32)[labels]


@pytest.fixture
def report_of(make_config: Callable[..., Config], tiny_data: Data) -> Report:
    """A report on one task: by seed, which test rows each arm gets wrong."""

    def make(
        alone: list[tuple[int, ...]],
        distilled: list[tuple[int, ...]],
        teachers: dict[str, tuple[int, ...]] | None = None,
        task: str = "bands",
        **training: Any,
    ) -> dict[str, Any]:
        data = tiny_data[task]
        config = make_config((task,), num_seeds=len(alone), training={"label_fraction": 0.5, **training})
        results = [
            ArmResult(
                arm=arm, seed=seed, test_logits={task: answers(data, wrong)}, num_labelled={task: 14},
                curve=[{"step": 5, "train_loss": 1.0, "validation": {task: 0.5}, "retention": 0.5}], best_step=5,
                best_score=0.5, wall_s=2.0, student_samples=100,
                costs={"it": TeacherCost(10, 20, 0.5, 0.2, 1, 0, 0.3 + seed)},
            )
            for seed in range(len(alone))
            for arm, wrong in (("alone", alone[seed]), ("distilled", distilled[seed]))
        ]  # fmt: skip
        said = {name: answers(data, wrong).astype(np.float16) for name, wrong in (teachers or {"it": (0,)}).items()}
        known = tuple(Standing(name, 0.9, 1.0) for name in said)
        models = {
            name: {"parameters": 1000, "bytes": 4000, "latency_ms": 1.5, "latency_ms_batch_32": 0.5}
            for name in (*said, "student")
        }
        return assemble_report(
            config, {task: data}, {task: said}, {task: known}, results, models, {"it": TeacherCost(1, 2, 0.25)},
            seconds=9.0, peak_rss_bytes=2**30, events=[{"at_s": 1.0, "what": "a teacher was lost"}], student_seed=0,
        )  # fmt: skip

    return make


def test_report_has_what_the_design_promises_and_is_plain_json(report_of: Report, tiny_data: Data) -> None:
    report = report_of([(0, 1, 2)], [(0,)])
    assert json.loads(json.dumps(report)) == report
    task = report["tasks"]["bands"]
    assert task.keys() >= {
        "metric", "num_test", "teachers", "ensemble", "student_alone", "student_distilled", "retention",
    }  # fmt: skip
    assert report["models"]["student"].keys() >= {"parameters", "bytes", "latency_ms"}
    assert report["cost"].keys() >= {
        "wall_s", "teacher_samples", "teacher_samples_cached", "teacher_busy_s", "student_samples", "peak_rss_bytes",
    }  # fmt: skip
    assert report["events"] == [{"at_s": 1.0, "what": "a teacher was lost"}]
    assert report["seeds"] == [0]
    assert {"python", "torch", "ray", "raydistill"} <= report["versions"].keys()
    assert task["num_test"] == len(tiny_data["bands"].test) == 10
    assert task["num_train"] == len(tiny_data["bands"].train)


def test_accuracies_retention_and_agreement_are_those_of_the_answers(report_of: Report) -> None:
    report = report_of([(0, 1, 2)], [(0, 9)], {"one": (0,), "two": (0, 1)})
    task = report["tasks"]["bands"]
    assert task["teachers"] == pytest.approx({"one": 0.9, "two": 0.8})
    assert task["student_alone"] == pytest.approx(0.7)
    assert task["student_distilled"] == pytest.approx(0.8)
    assert task["retention"] == pytest.approx(0.8 / task["ensemble"])
    assert report["mean_retention"] == pytest.approx(
        {"alone": 0.7 / task["ensemble"], "distilled": 0.8 / task["ensemble"]}
    )
    assert task["by_seed"]["student_alone"] == pytest.approx([0.7])
    assert task["by_seed"]["student_distilled"] == pytest.approx([0.8])
    assert task["spread"] == {"student_alone": 0.0, "student_distilled": 0.0}


def test_teachers_are_fused_before_they_are_measured_together(report_of: Report) -> None:
    task = report_of([()], [()], {"one": (0, 1), "two": (2,), "three": (3,)})["tasks"]["bands"]
    assert task["ensemble"] == 1.0  # each row has two right teachers of three


def test_costs_add_up_over_labelling_and_all_trainings(report_of: Report) -> None:
    cost = report_of([(), ()], [(), ()])["cost"]
    assert cost["teacher_samples"] == 1 + 4 * 10
    assert cost["teacher_samples_cached"] == 2 + 4 * 20
    assert cost["teacher_busy_s"] == pytest.approx(0.25 + 4 * 0.5)
    assert cost["student_samples"] == 400
    assert cost["training_s"] == {"alone": 4.0, "distilled": 4.0}
    assert (cost["wall_s"], cost["peak_rss_bytes"]) == (9.0, 2**30)


def test_each_teacher_has_its_own_figures(report_of: Report) -> None:
    teacher = report_of([(), ()], [(), ()])["teachers"]["it"]
    assert (teacher["samples"], teacher["samples_cached"], teacher["failovers"]) == (41, 82, 4)
    assert teacher["waited_s"] == pytest.approx(0.8)
    assert teacher["worst_gap_s"] == pytest.approx(1.3)
    assert teacher["waiting_share"] == pytest.approx(0.8 / 4.0)  # of the distilled students' training
    by_two_workers = report_of([(), ()], [(), ()], num_workers=2)["teachers"]["it"]
    assert by_two_workers["waiting_share"] == pytest.approx(0.8 / 8.0)  # both may wait at the same time


@pytest.mark.parametrize(
    ("alone", "distilled", "verdict"),
    [
        (tuple(range(8)), (), "better"),
        ((), tuple(range(8)), "worse"),
        ((0,), (), "no clear difference"),
        ((0, 1), (0, 1), "no clear difference"),
        ((0, 1, 2), (3, 4, 5), "no clear difference"),
    ],
)
def test_gain_is_called_clear_only_beyond_two_standard_errors(
    report_of: Report, alone: tuple[int, ...], distilled: tuple[int, ...], verdict: str
) -> None:
    gain = report_of([alone], [distilled])["tasks"]["bands"]["gain"]
    before, after = np.ones(10), np.ones(10)
    before[list(alone)], after[list(distilled)] = 0, 0
    pairs = after - before
    assert gain["mean"] == pytest.approx(pairs.mean())
    assert gain["standard_error"] == pytest.approx(pairs.std() / np.sqrt(10))
    assert gain["verdict"] == verdict


def test_gain_over_several_seeds_counts_their_spread(report_of: Report) -> None:
    steady = report_of([tuple(range(6))] * 3, [()] * 3)["tasks"]["bands"]
    assert steady["gain"]["verdict"] == "better" and steady["spread"]["student_alone"] == pytest.approx(0)
    # The same rows on average, but what one seed gains another loses.
    shaky = report_of([tuple(range(9)), (), ()], [(), (), tuple(range(4))])["tasks"]["bands"]
    assert shaky["gain"]["mean"] == pytest.approx((0.9 + 0 - 0.4) / 3)
    assert shaky["gain"]["standard_error"] > np.std([0.9, 0, -0.4], ddof=1) / np.sqrt(3) - 1e-9
    assert shaky["gain"]["verdict"] == "no clear difference"
    assert shaky["by_seed"]["student_alone"] == pytest.approx([0.1, 1.0, 1.0])
    assert shaky["spread"]["student_alone"] == pytest.approx(np.std([0.1, 1.0, 1.0], ddof=1))
    assert shaky["student_alone"] == pytest.approx(0.7)


def test_teachers_that_are_always_wrong_are_reported_and_not_a_crash(report_of: Report) -> None:
    report = report_of([()], [()], {"it": tuple(range(10))})
    assert report["tasks"]["bands"]["ensemble"] == 0.0
    json.dumps(report)


@pytest.mark.parametrize("task", list(tiny.TASKS))
def test_a_task_of_any_domain_is_reported_with_its_domain_and_labels(report_of: Report, task: str) -> None:
    found = report_of([()], [()], task=task)["tasks"][task]
    assert (found["domain"], tuple(found["label_names"])) == (tiny.TASKS[task], tiny.LABELS[task])
    assert found["chance"] == pytest.approx(1 / len(tiny.LABELS[task]))
    assert found["macro_f1"]["student_distilled"] == pytest.approx(1.0)
