"""A view is a pure function of (row, view), whatever else is in the batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from raydistill.data.dataset import TaskData
from raydistill.data.views import image_views, sample_seeds, speech_view

ROWS = st.lists(st.integers(0, 19), min_size=1, max_size=12)


def same(left: Any, right: Any) -> bool:
    return left == right if isinstance(left, str) else bool(np.array_equal(left, right))


@pytest.mark.parametrize("name", list(tiny.TASKS))
@given(rows=ROWS, view=st.integers(0, 5))
def test_a_view_does_not_depend_on_the_batch_or_its_order(
    tiny_data: dict[str, TaskData], name: str, rows: list[int], view: int
) -> None:
    split = tiny_data[name].train
    together = split.views(rows, view)
    assert together.view == view and list(together.sample_ids) == rows
    np.testing.assert_array_equal(together.labels, split.labels[rows])
    for position, row in enumerate(rows):
        assert same(split.views([row], view).inputs[0], together.inputs[position])


@pytest.mark.parametrize("name", list(tiny.TASKS))
def test_view_0_is_the_plain_row_and_later_views_differ(tiny_data: dict[str, TaskData], name: str) -> None:
    split = tiny_data[name].train
    rows = range(len(split))
    plain = split.views(rows).inputs
    views = [split.views(rows, view).inputs for view in range(4)]
    assert all(same(a, b) for a, b in zip(plain, views[0], strict=True))
    for first in range(4):
        for second in range(first):
            differing = np.mean([not same(a, b) for a, b in zip(views[first], views[second], strict=True)])
            assert differing == 0 if name == "mood" else differing > 0.8


def test_rows_are_augmented_unlike_each_other() -> None:
    pixels = np.tile(np.random.default_rng(0).integers(0, 256, (1, 16, 16, 3), dtype=np.uint8), (200, 1, 1, 1))
    views = image_views(pixels, sample_seeds(1, np.arange(200)))
    assert len({view.tobytes() for view in views}) > 30  # of 5 × 5 crops × 2


@given(view=st.integers(0, 1_000_000), ids=st.lists(st.integers(0, 2**40), min_size=2, max_size=50, unique=True))
def test_every_row_of_a_view_has_a_seed_of_its_own(view: int, ids: list[int]) -> None:
    seeds = sample_seeds(view, np.array(ids, dtype=np.int64))
    assert len(set(seeds.tolist())) == len(ids)


def test_row_ids_and_views_do_not_mix_into_the_same_seed() -> None:
    seeds = np.concatenate([sample_seeds(view, np.arange(2_000)) for view in range(20)])
    assert len(np.unique(seeds)) == len(seeds)


@given(size=st.integers(4, 40), channels=st.sampled_from([1, 3]), seeds=st.lists(st.integers(0, 2**64 - 1), min_size=1))
def test_pictures_keep_shape_and_type_and_the_caller_keeps_its_pixels(
    size: int, channels: int, seeds: list[int]
) -> None:
    pixels = np.random.default_rng(0).integers(1, 256, (len(seeds), size, size, channels), dtype=np.uint8)
    before = pixels.copy()
    views = image_views(pixels, np.array(seeds, dtype=np.uint64))
    assert views.shape == pixels.shape and views.dtype == np.uint8
    np.testing.assert_array_equal(pixels, before)
    assert views.reshape(len(seeds), -1).any(axis=1).all()


@given(
    length=st.integers(1, 3_000),
    scale=st.floats(0, 1),
    seed=st.integers(0, 2**64 - 1),
    rate=st.sampled_from([8_000, 16_000]),
)
def test_speech_keeps_its_length_and_stays_in_range(length: int, scale: float, seed: int, rate: int) -> None:
    wave = (np.random.default_rng(0).uniform(-1, 1, length) * scale).astype(np.float32)
    before = wave.copy()
    view = speech_view(wave, np.uint64(seed), rate)
    assert view.shape == wave.shape and view.dtype == np.float32
    assert np.abs(view).max() <= 1.0 and np.isfinite(view).all()
    np.testing.assert_array_equal(wave, before)
