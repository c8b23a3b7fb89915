"""Where soft labels come from decides nothing but the cost."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_runs import Lab, report_of, student_weights

NUM_STEPS, BATCH_SIZE, PLAIN_ROWS, TRAIN_ROWS, VIEWS = 12, 20, 160 + 160, 640, 2


@pytest.fixture(scope="module")
def runs(lab: Lab) -> dict[str, Path]:
    # A cache each: otherwise the second run would find the first one's labels in the store.
    return {
        source: lab.distilled(lab.config(cache_dir=str(lab.new("cache"))), f"distill.soft_labels={source}")
        for source in ("local", "remote", "stored")
    }


@pytest.mark.parametrize("source", ["remote", "stored"])
def test_a_student_hears_the_same_from_any_source(runs: dict[str, Path], source: str) -> None:
    local, other = student_weights(runs["local"]), student_weights(runs[source])
    width = local["trunk.blocks.0.attention_out.bias"].shape[0]
    for key in local:
        for weights in (local, other):
            if key.endswith("qkv.bias"):
                weights[key][width : 2 * width] = 0.0  # no gradient but rounding: see test_two_workers
        # A teacher's float16 logits may differ in the last bit with the rows that share its batch.
        assert other[key] == pytest.approx(local[key], abs=1e-4), key


@pytest.mark.parametrize("source", ["local", "remote"])
def test_teachers_asked_step_by_step_are_asked_for_each_row_of_each_step(runs: dict[str, Path], source: str) -> None:
    cost = report_of(runs[source])["cost"]
    assert cost["teacher_samples"] == PLAIN_ROWS + NUM_STEPS * BATCH_SIZE
    assert cost["teacher_samples_cached"] == 0


def test_stored_labels_are_asked_for_once_a_view(runs: dict[str, Path]) -> None:
    cost = report_of(runs["stored"])["cost"]
    assert cost["teacher_samples"] == PLAIN_ROWS + TRAIN_ROWS * VIEWS
    assert cost["teacher_samples_cached"] == NUM_STEPS * BATCH_SIZE
