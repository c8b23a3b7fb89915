"""Batches of like length: no row twice in an epoch, none lost beyond the last part-batch."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from raydistill.data.ordering import shuffled_batches, sorted_batches
from raydistill.data.splits import cut
from raydistill.training.sampler import TaskSampler

SIZES = st.tuples(st.integers(1, 300), st.integers(1, 40), st.integers(0, 10))


def lengths_of(num_rows: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 100, num_rows + 1_000)


@given(SIZES, st.booleans())
def test_an_epoch_has_full_batches_and_every_row_at_most_once(sizes: tuple[int, int, int], by_length: bool) -> None:
    num_rows, batch_size, seed = sizes
    rows = np.arange(1_000, 1_000 + num_rows)
    lengths = lengths_of(num_rows, seed) if by_length else None
    batches = shuffled_batches(rows, lengths, batch_size, np.random.default_rng(seed))
    drawn = np.concatenate(batches)
    assert {len(batch) for batch in batches} == {min(batch_size, num_rows)}
    assert len(np.unique(drawn)) == len(drawn) and np.isin(drawn, rows).all()
    assert num_rows - len(drawn) < batch_size
    again = shuffled_batches(rows, lengths, batch_size, np.random.default_rng(seed))
    np.testing.assert_array_equal(np.concatenate(again), drawn)


def test_rows_of_a_batch_are_of_like_length_and_batches_come_in_random_order() -> None:
    lengths = np.random.default_rng(0).permutation(1_000)
    batches = shuffled_batches(np.arange(1_000), lengths, 10, np.random.default_rng(0))
    spread = np.mean([np.ptp(lengths[batch]) for batch in batches])
    assert spread < 60  # ten random ones of a thousand spread over 800
    first = [lengths[batch].mean() for batch in batches]
    assert abs(np.corrcoef(np.arange(len(first)), first)[0, 1]) < 0.3


@given(SIZES, st.booleans())
def test_sorted_batches_hold_every_row_once_shortest_first(sizes: tuple[int, int, int], by_length: bool) -> None:
    num_rows, batch_size, seed = sizes
    lengths = lengths_of(num_rows, seed)[:num_rows] if by_length else None
    order = np.concatenate(sorted_batches(num_rows, lengths, batch_size))
    assert sorted(order) == list(range(num_rows))
    if lengths is not None:
        assert (np.diff(lengths[order]) >= 0).all()


@given(SIZES, st.integers(1, 3))
def test_sampler_never_repeats_a_row_within_an_epoch_of_a_large_set(sizes: tuple[int, int, int], epochs: int) -> None:
    num_rows, batch_size, seed = sizes
    batch_size = min(batch_size, num_rows)
    sampler = TaskSampler(seed, "t", np.arange(num_rows), batch_size, 2, lengths_of(num_rows, seed)[:num_rows])
    for epoch in range(epochs):
        steps = range(epoch * sampler.steps_per_epoch, (epoch + 1) * sampler.steps_per_epoch)
        drawn = np.concatenate([sampler.micro_batch(step).rows for step in steps])
        assert len(np.unique(drawn)) == len(drawn) == num_rows // batch_size * batch_size


@given(st.integers(1, 10), st.integers(1, 5))
def test_a_set_smaller_than_a_batch_is_repeated_evenly_where_it_divides_it(num_rows: int, times: int) -> None:
    rows = np.arange(50, 50 + num_rows)
    batch = TaskSampler(0, "t", rows, num_rows * times, 0).micro_batch(3)
    assert batch.view == 0
    np.testing.assert_array_equal(np.unique(batch.rows, return_counts=True)[1], np.full(num_rows, times))


def test_tasks_seeds_and_epochs_are_shuffled_apart() -> None:
    def drawn(seed: int, task: str, step: int) -> tuple[int, ...]:
        return tuple(TaskSampler(seed, task, np.arange(1_000), 10, 2).micro_batch(step).rows)

    assert len({drawn(0, "a", 0), drawn(1, "a", 0), drawn(0, "b", 0), drawn(0, "a", 100), drawn(0, "a", 1)}) == 5


def test_a_student_alone_sees_a_new_view_every_epoch() -> None:
    sampler = TaskSampler(0, "t", np.arange(10), 5, None)
    assert [sampler.micro_batch(step).view for step in range(8)] == [1, 1, 2, 2, 3, 3, 4, 4]


@given(st.lists(st.integers(0, 20), min_size=1, max_size=120), st.floats(0.05, 0.4), st.floats(0.05, 0.4))
def test_a_cut_holds_every_row_once_and_divides_no_group(groups: list[int], validation: float, test: float) -> None:
    names = [f"group {number}" for number in groups]
    parts = cut(names, {"validation": validation, "test": test})
    assert sorted(np.concatenate(list(parts.values()))) == list(range(len(names)))
    owners = [{names[row] for row in rows} for rows in parts.values()]
    assert sum(len(each) for each in owners) == len(set(names))
    assert len(parts["validation"]) >= validation * len(names) or len(parts["train"]) + len(parts["test"]) == 0
