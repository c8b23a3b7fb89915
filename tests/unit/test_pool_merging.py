"""Merging: every request gets its own rows, whatever it was computed with."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray

from raydistill.data.batch import ViewBatch
from raydistill.soft_labels.layers import Features, Layer, Layers
from raydistill.teachers.pool.merging import Merger, merged

pytestmark = pytest.mark.timeout(60)


def rows(values: list[int], size: int = 2) -> ViewBatch:
    pixels = np.broadcast_to(np.array(values, np.uint8)[:, None, None, None], (len(values), size, size, 1))
    ids = np.array(values, dtype=np.int64)
    return ViewBatch("vision", pixels, np.full(len(values), -1, np.int64), ids, 0)


def words(values: list[str]) -> ViewBatch:
    none = np.full(len(values), -1, np.int64)
    return ViewBatch("text", values, none, none, 0)


class Recorder:
    """A forward pass that tells each row's own number, and what it was called with."""

    def __init__(self, wait_s: float = 0.0) -> None:
        self.sizes: list[int] = []
        self.wait_s = wait_s
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, views: ViewBatch, layers: Layers) -> tuple[NDArray[np.float16], Features]:
        assert self.gate.wait(20)
        self.sizes.append(len(views))
        time.sleep(self.wait_s)
        assert isinstance(views.inputs, np.ndarray)
        if (views.inputs == 250).any():
            raise ValueError("no such picture")
        numbers = views.inputs[:, 0, 0, 0].astype(np.float16)
        features: Features = dict.fromkeys(layers, numbers[:, None] * 10)
        return np.stack([numbers, -numbers], axis=1), features


def test_many_threads_get_their_own_rows_in_order() -> None:
    forward = Recorder(wait_s=0.002)
    merger = Merger(forward, max_rows=16, max_wait_s=0.01)
    generator = np.random.default_rng(0)
    asked = [list(generator.integers(0, 200, generator.integers(1, 7))) for _ in range(200)]
    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda values: merger.label(rows(values)), asked))
    for values, (logits, busy_s, _) in zip(asked, answers, strict=True):
        np.testing.assert_array_equal(logits, np.stack([values, np.negative(values)], axis=1).astype(np.float16))
        assert busy_s > 0
    assert sum(forward.sizes) == sum(map(len, asked))
    assert max(forward.sizes) <= 16
    assert len(forward.sizes) < 150  # some were merged


def test_a_pass_holds_what_fits_and_a_large_request_goes_alone() -> None:
    forward = Recorder()
    merger = Merger(forward, max_rows=8, max_wait_s=0.2)
    forward.gate.clear()
    with ThreadPoolExecutor(8) as threads:
        first = threads.submit(merger.label, rows([1] * 8))
        time.sleep(0.1)  # it is in the pass now
        later = [threads.submit(merger.label, rows([2] * count)) for count in (20, 5, 5)]
        forward.gate.set()
        sizes = [len(future.result(20)[0]) for future in [first, *later]]
    assert sizes == [8, 20, 5, 5]
    assert sorted(forward.sizes) == [5, 5, 8, 20]


def test_an_error_reaches_all_of_its_pass_and_nobody_else() -> None:
    forward = Recorder()
    merger = Merger(forward, max_rows=4, max_wait_s=0.5)
    with ThreadPoolExecutor(4) as threads:
        together = [threads.submit(merger.label, rows(values)) for values in ([1, 2], [250, 3])]
        for future in together:
            with pytest.raises(ValueError, match="no such picture"):
                future.result(20)
    assert forward.sizes == [4]
    np.testing.assert_array_equal(merger.label(rows([7]))[0], [[7, -7]])


def test_pictures_of_another_size_are_not_merged() -> None:
    forward = Recorder()
    merger = Merger(forward, max_rows=8, max_wait_s=0.2)
    with ThreadPoolExecutor(2) as threads:
        futures = [threads.submit(merger.label, rows([size], size)) for size in (2, 3)]
        assert [future.result(20)[0][0, 0] for future in futures] == [2, 3]
    assert forward.sizes == [1, 1]


def test_features_are_shared_out_too_and_only_alike_questions_are_merged() -> None:
    forward, layer, mapped = Recorder(), Layer("deep"), Layer("deep", positions=True)
    merger = Merger(forward, max_rows=8, max_wait_s=0.2)
    with ThreadPoolExecutor(4) as threads:
        asked = [((layer,), [1, 2]), ((layer,), [3]), ((), [4]), ((mapped,), [5])]
        futures = [threads.submit(merger.label, rows(values), layers) for layers, values in asked]
        for (layers, values), future in zip(asked, futures, strict=True):
            features = future.result(20)[2]
            assert list(features) == list(layers)
            for found in features.values():
                np.testing.assert_array_equal(found[:, 0], np.array(values) * 10)
    assert sum(forward.sizes) == 5 and max(forward.sizes) <= 3


def test_the_time_is_shared_by_rows() -> None:
    merger = Merger(Recorder(wait_s=0.2), max_rows=4, max_wait_s=1.0)
    with ThreadPoolExecutor(2) as threads:
        one, three = threads.submit(merger.label, rows([1])), threads.submit(merger.label, rows([1, 2, 3]))
        assert three.result(20)[1] == pytest.approx(3 * one.result(20)[1])


def test_words_are_merged_too() -> None:
    together = merged([words(["a", "b"]), words(["c"])])
    assert together.inputs == ["a", "b", "c"]
    assert len(together) == 3
