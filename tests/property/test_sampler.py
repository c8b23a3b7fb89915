"""The sampler is a pure function of the step, and misses no row."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from raydistill.tasks import make_task
from raydistill.training.sampler import TaskSampler, labelled_rows

TASK = make_task("classification", "task", "text", tuple("abcde"))


@given(st.integers(1, 80), st.integers(1, 20), st.integers(0, 3), st.integers(0, 10_000), st.integers(1, 4))
def test_same_step_same_rows_whatever_came_before(
    num_rows: int, batch_size: int, num_views: int, step: int, num_parts: int
) -> None:
    rows = np.arange(100, 100 + num_rows)
    fresh = TaskSampler(3, "task", rows, batch_size, num_views)
    used = TaskSampler(3, "task", rows, batch_size, num_views)
    for earlier in range(5):
        used.micro_batch(earlier)
    expected, actual = fresh.micro_batch(step), used.micro_batch(step)
    assert actual.view == expected.view
    np.testing.assert_array_equal(actual.rows, expected.rows)
    assert len(actual.rows) == batch_size and np.isin(actual.rows, rows).all()
    parts = [actual.part(number, num_parts) for number in range(num_parts)]
    np.testing.assert_array_equal(np.concatenate(parts), actual.rows)


@given(st.integers(1, 10), st.integers(1, 10))
def test_an_epoch_sees_every_row_once_when_batches_divide_it(batch_size: int, num_batches: int) -> None:
    sampler = TaskSampler(0, "task", np.arange(batch_size * num_batches), batch_size, 2)
    for epoch in range(2):
        drawn = [sampler.micro_batch(epoch * num_batches + step) for step in range(num_batches)]
        assert sorted(np.concatenate([batch.rows for batch in drawn])) == list(range(batch_size * num_batches))
        assert {batch.view for batch in drawn} == {1 + epoch}


@given(st.lists(st.integers(-1, 4), min_size=1, max_size=200), st.floats(0.01, 1.0), st.integers(0, 5))
def test_hidden_labels_keep_every_class_and_no_unlabelled_row(labels: list[int], fraction: float, seed: int) -> None:
    array = np.array(labels)
    kept = labelled_rows(array, fraction, TASK, seed)
    assert (array[kept] >= 0).all() and len(np.unique(kept)) == len(kept)
    assert set(array[kept]) == set(array[array >= 0])
