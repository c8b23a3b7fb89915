"""For any logits: dense rows come back as they were, top-k rows have the right probabilities at T = 1."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from raydistill.soft_labels.encoding import Encoding
from raydistill.soft_labels.store import LabelKey, LabelStore

ANY = st.floats(-65_504, 65_504, width=16)
USUAL = st.floats(-30, 30, width=16)


@st.composite
def logits_and_k(draw: st.DrawFn, values: st.SearchStrategy[float] = USUAL) -> tuple[np.ndarray, int]:
    num_rows, num_classes = draw(st.integers(1, 4)), draw(st.integers(2, 40))
    return draw(arrays(np.float16, (num_rows, num_classes), elements=values)), draw(st.integers(1, num_classes - 1))


def softmax(logits: np.ndarray) -> np.ndarray:
    wide = logits.astype(np.float64)
    shares = np.exp(wide - wide.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)


@given(logits_and_k(ANY | st.just(-np.inf)))
def test_dense_is_exact(case: tuple[np.ndarray, int]) -> None:
    logits, _ = case
    encoding = Encoding.choose(logits.shape[1], None)
    np.testing.assert_array_equal(encoding.decode(encoding.encode(logits)), logits)
    whole = Encoding.choose(logits.shape[1], logits.shape[1])
    assert whole == encoding


@given(logits_and_k(ANY | st.just(-np.inf)))
def test_the_kept_are_the_largest_in_order_and_of_equal_ones_the_lower_class(case: tuple[np.ndarray, int]) -> None:
    logits, k = case
    tensors = Encoding(logits.shape[1], k).encode(logits)
    expected = np.argsort(-(logits.astype(np.float32) + 0.0), axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(tensors["classes"], expected)
    np.testing.assert_array_equal(tensors["values"], np.take_along_axis(logits, expected, axis=1))
    assert (tensors["tail"] <= tensors["values"][:, -1].clip(-65_504)).all() and np.isfinite(tensors["tail"]).all()


@given(logits_and_k())
def test_top_k_has_the_right_probabilities_at_temperature_one(case: tuple[np.ndarray, int]) -> None:
    logits, k = case
    encoding = Encoding(logits.shape[1], k)
    tensors = encoding.encode(logits)
    found, right = softmax(encoding.decode(tensors)), softmax(logits)
    classes = tensors["classes"].astype(np.intp)
    # Only the tail is rounded: by half a unit in the last place of a float16 below 32.
    np.testing.assert_allclose(
        np.take_along_axis(found, classes, 1), np.take_along_axis(right, classes, 1), rtol=2**-6 * 1.1, atol=1e-7
    )
    np.testing.assert_allclose(found.sum(axis=1), 1)


def test_more_classes_than_sixteen_bits_count() -> None:
    logits = np.random.default_rng(0).normal(0, 3, (3, 70_000)).astype(np.float16)
    encoding = Encoding.choose(70_000, None)
    tensors = encoding.encode(logits)
    assert tensors["classes"].dtype == np.uint32 and tensors["classes"].shape == (3, 32)
    expected = np.argsort(-logits.astype(np.float32), axis=1, kind="stable")[:, :32]
    np.testing.assert_array_equal(tensors["classes"], expected)
    np.testing.assert_array_equal(np.take_along_axis(encoding.decode(tensors), expected, 1), tensors["values"])


@settings(max_examples=20)
@given(st.data(), st.sampled_from([None, 3]))
def test_a_table_gives_back_what_was_written_in_whatever_pieces(data: st.DataObject, top_k: int | None) -> None:
    num_rows, num_classes = data.draw(st.integers(1, 30)), 6
    logits = np.random.default_rng(num_rows).normal(0, 5, (num_rows, num_classes)).astype(np.float16)
    order = np.array(data.draw(st.permutations(range(num_rows))))
    cuts = sorted(data.draw(st.lists(st.integers(0, num_rows), max_size=4)))
    encoding = Encoding(num_classes, top_k)
    expected = encoding.decode(encoding.encode(logits))
    with tempfile.TemporaryDirectory() as folder:
        key = LabelKey("teacher", "split", 0)
        table = LabelStore(Path(folder)).table(key, num_rows, num_classes, top_k)
        for rows in np.split(order, cuts):
            table.write(rows, logits[rows])
            if data.draw(st.booleans()):
                table.flush()
        np.testing.assert_array_equal(table.read(np.arange(num_rows)), expected)
        table.close()
        again = LabelStore(Path(folder)).table(key, num_rows, num_classes, top_k)
        asked = np.array(data.draw(st.lists(st.integers(0, num_rows - 1), max_size=10)), dtype=np.int64)
        np.testing.assert_array_equal(again.read(asked), expected[asked])
