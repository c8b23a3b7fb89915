"""Multilabel and regression: their measures against scikit-learn, torchmetrics and SciPy."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score, f1_score, r2_score, root_mean_squared_error
from torchmetrics.functional.classification import multilabel_average_precision

from raydistill.losses.binary import hard_binary_cross_entropy, soft_binary_cross_entropy
from raydistill.losses.choice import SoftLossChoice
from raydistill.losses.numerics import UNKNOWN
from raydistill.losses.regression import hard_regression, soft_regression
from raydistill.tasks import make_task
from raydistill.tasks.heads import Units

NAMES = ("a", "b", "c")
SCALES = ((50.0, 10.0), (-3.0, 0.5), (1e6, 2e5))
TAGS = make_task("multilabel", "tags", "text", NAMES)
NUMBERS = make_task("regression", "numbers", "text", NAMES, SCALES)
CHOICE = SoftLossChoice("kl", 3.0)


def made_up_tags(num_rows: int = 120, seed: int = 0, holes: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Logits a little better than nothing, with ties, and labels of which some are missing, on some rows all."""
    generator = np.random.default_rng(seed)
    labels = (generator.random((num_rows, 3)) < (0.2, 0.5, 0.8)).astype(np.float32)
    logits = np.round(generator.normal(0, 1, labels.shape) + labels, 1).astype(np.float32)
    if holes:
        labels[generator.random(labels.shape) < 0.2] = np.nan
        labels[::7] = np.nan
    return logits, labels


def made_up_numbers(num_rows: int = 80, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = generator.normal(0, 1, (num_rows, 3)).astype(np.float32)
    output = (0.7 * labels + generator.normal(0, 0.5, labels.shape)).astype(np.float32)
    labels[generator.random(labels.shape) < 0.2] = np.nan
    labels[::7] = np.nan
    return output, labels


def columns(output: np.ndarray, labels: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """By label, output and label of the rows that have it."""
    return [(output[~np.isnan(each), at], each[~np.isnan(each)]) for at, each in enumerate(labels.T)]


def test_mean_average_precision_is_scikit_learns() -> None:
    logits, labels = made_up_tags()
    expected = np.mean([average_precision_score(wanted, said) for said, wanted in columns(logits, labels)])
    assert TAGS.metric(logits, labels) == pytest.approx(expected, abs=1e-12)


def test_mean_average_precision_is_torchmetrics() -> None:
    logits, labels = made_up_tags()
    target = torch.from_numpy(np.nan_to_num(labels, nan=-1)).long()
    expected = multilabel_average_precision(
        torch.from_numpy(logits.astype(np.float64)), target, 3, ignore_index=-1, average="none"
    )
    assert TAGS.metric(logits, labels) == pytest.approx(float(expected.mean()), abs=1e-5)


@given(st.integers(0, 1000), st.integers(1, 40), st.floats(0.0, 1.0))
def test_row_scores_have_the_metric_as_their_mean(seed: int, num_rows: int, missing: float) -> None:
    generator = np.random.default_rng(seed)
    for task, (output, labels) in ((TAGS, made_up_tags(num_rows, seed)), (NUMBERS, made_up_numbers(num_rows, seed))):
        labels[generator.random(labels.shape) < missing] = np.nan
        scores = task.row_scores(output, labels)
        assert len(scores) == task.count_labelled(labels) == task.is_labelled(labels).sum()
        metric = task.metric(output, labels)
        if not np.isnan(metric):
            clipped = max(0.0, scores.mean()) if task is NUMBERS else scores.mean()
            assert metric == pytest.approx(clipped, abs=1e-9)


@given(st.integers(0, 1000))
def test_average_precision_heeds_the_order_alone(seed: int) -> None:
    logits, labels = made_up_tags(30, seed)
    assert TAGS.metric(np.exp(logits.astype(np.float64)), labels) == TAGS.metric(logits, labels)


def test_perfect_answers_and_one_answer_for_all() -> None:
    logits, labels = made_up_tags()
    assert TAGS.metric(np.nan_to_num(labels), labels) == pytest.approx(1.0)
    assert TAGS.metric(np.zeros_like(logits), labels) == pytest.approx(TAGS.chance_on(labels))
    output, numbers = made_up_numbers()
    assert NUMBERS.metric(np.nan_to_num(numbers), numbers) == pytest.approx(1.0)
    mean = np.broadcast_to(np.nanmean(numbers, axis=0), numbers.shape)
    assert NUMBERS.metric(mean, numbers) == pytest.approx(0.0, abs=1e-6) and NUMBERS.chance_on(numbers) == 0.0
    assert NUMBERS.metric(output + 9, numbers) == 0.0  # clipped


def test_labels_that_never_hold_do_not_count_and_without_any_there_is_no_metric() -> None:
    logits, labels = made_up_tags()
    rest = make_task("multilabel", "tags", "text", NAMES[1:]).metric(logits[:, 1:], labels[:, 1:])
    labels[:, 0] = np.where(np.isnan(labels[:, 0]), np.nan, 0)
    assert TAGS.metric(logits, labels) == pytest.approx(rest)
    assert np.isnan(TAGS.metric(logits, np.zeros_like(labels)))
    assert np.isnan(NUMBERS.metric(logits, np.full_like(labels, np.nan)))


def test_macro_f1_at_a_half_is_scikit_learns() -> None:
    logits, labels = made_up_tags()
    expected = np.mean([f1_score(wanted, said > 0) for said, wanted in columns(logits, labels)])
    details = TAGS.details(logits, labels)
    assert details["macro_f1"] == pytest.approx(expected)
    right = np.concatenate([(said > 0) == (wanted == 1) for said, wanted in columns(logits, labels)])
    assert details["label_accuracy"] == pytest.approx(right.mean())


def test_r2_rmse_and_spearman_are_scikit_learns_and_scipys() -> None:
    output, labels = made_up_numbers()
    each = columns(output.astype(np.float64), labels.astype(np.float64))
    assert NUMBERS.metric(output, labels) == pytest.approx(np.mean([r2_score(w, s) for s, w in each]), abs=1e-6)
    details = NUMBERS.details(output, labels)
    for name, (_, deviation), (said, wanted) in zip(NAMES, SCALES, each, strict=True):
        expected = root_mean_squared_error(wanted * deviation, said * deviation)
        assert details[f"rmse_{name}"] == pytest.approx(expected, rel=1e-6)
    assert details["spearman"] == pytest.approx(np.mean([spearmanr(said, wanted).statistic for said, wanted in each]))
    single = make_task("regression", "it", "text", ("a",), SCALES[:1])
    assert single.details(output[:, :1], labels[:, :1])["rmse"] == pytest.approx(details["rmse_a"])
    assert single.details(np.zeros((80, 1)), labels[:, :1])["spearman"] == 0.0


def test_losses_are_those_of_the_kind_whatever_loss_the_config_names() -> None:
    logits, labels = (torch.from_numpy(each) for each in made_up_tags())
    teacher = logits.flip(0)
    torch.testing.assert_close(TAGS.hard_loss(logits, labels), hard_binary_cross_entropy(logits, labels))
    soft = soft_binary_cross_entropy(logits, teacher, 3.0)
    torch.testing.assert_close(TAGS.soft_loss(logits, teacher, labels, CHOICE), soft)
    teacher[:, 1] = UNKNOWN
    some = soft_regression(logits[:, [0, 2]], teacher[:, [0, 2]], 1.0)
    torch.testing.assert_close(NUMBERS.soft_loss(logits, teacher, labels, CHOICE), some)
    torch.testing.assert_close(NUMBERS.hard_loss(logits, labels), hard_regression(logits, labels))


def test_smoothed_labels_are_the_mixture_with_a_half() -> None:
    logits, labels = (torch.from_numpy(each) for each in made_up_tags())
    expected = 0.9 * TAGS.hard_loss(logits, labels) + 0.1 * TAGS.hard_loss(logits, labels * 0 + 0.5)
    torch.testing.assert_close(TAGS.hard_loss(logits, labels, 0.1), expected)


def test_agreement_is_one_with_oneself() -> None:
    logits, _ = made_up_tags()
    assert TAGS.agreement(logits, logits) == 1.0 and NUMBERS.agreement(logits, logits) == 1.0
    assert TAGS.agreement(logits + 0.05, -logits - 0.05) == 0.0


def test_a_useless_teacher_stays_below_the_floor_and_a_fair_one_gets_above_it() -> None:
    logits, labels = made_up_tags(200)
    output, numbers = made_up_numbers(200)
    for task, said, wanted in ((TAGS, logits, labels), (NUMBERS, output, numbers)):
        least, words = task.floor(said, wanted)
        assert task.metric(said, wanted) > least and "for every row" in words
        shuffled = np.random.default_rng(1).permutation(said)
        assert task.metric(shuffled, wanted) < task.floor(shuffled, wanted)[0]


def test_hidden_labels_leave_every_name_seen() -> None:
    for task, (_, labels) in ((TAGS, made_up_tags()), (NUMBERS, made_up_numbers())):
        order = np.random.default_rng(0).permutation(np.flatnonzero(task.is_labelled(labels)))
        rows = task.must_show(labels, order[:0], order)
        visible = task.hide(labels, rows)
        assert 0 < len(rows) <= 3 and task.count_labelled(visible) == len(set(rows))
        seen = (visible == 1) if task is TAGS else ~np.isnan(visible)
        assert seen.any(axis=0).all()
        assert len(task.must_show(labels, order, order)) == 0


def test_labels_go_by_name() -> None:
    _, labels = made_up_tags()
    other = make_task("multilabel", "it", "text", ("c", "x", "a"))
    found = other.relabel(labels, NAMES)
    np.testing.assert_array_equal(found[:, [0, 2]], labels[:, [2, 0]])
    assert np.isnan(found[:, 1]).all() and found.dtype == np.float32


def test_predictions_are_for_people() -> None:
    (row,) = TAGS.predictions(np.array([[0.0, 100.0, -1e5]], np.float32))
    assert row == {"a": 0.5, "b": pytest.approx(1.0), "c": pytest.approx(0.0)}
    (row,) = NUMBERS.predictions(np.array([[1.0, -2.0, 0.5]], np.float32))
    assert row == {"a": 60.0, "b": -4.0, "c": 1.1e6}


def test_units_travel_with_the_weights() -> None:
    units, again = Units(3), Units(3)
    units.keep(SCALES)
    again.load_state_dict(units.state_dict())
    assert again.scales == SCALES
    assert list(units.parameters()) == []


def test_nothing_warns() -> None:
    """Of a label that is always the same, and of none at all."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for task in (TAGS, NUMBERS):
            for labels in (np.full((5, 3), np.nan), np.zeros((5, 3)), np.ones((5, 3))):
                output = np.zeros((5, 3))
                task.metric(output, labels)
                task.details(output, labels)
                task.row_scores(output, labels)
                task.chance_on(labels)
