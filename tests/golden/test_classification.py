"""The measures of a classification task against scikit-learn and against formulas written out in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score

from raydistill.losses.choice import SoftLossChoice
from raydistill.tasks import make_task

NAMES = ("a", "b", "c", "d")
KL = SoftLossChoice("kl", 2.0)
TASK = make_task("classification", "it", "text", NAMES)


def made_up(num_rows: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are right a little more often than not, and labels of which a fifth is missing."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 4, num_rows)
    logits = generator.normal(0, 1.5, (num_rows, 4))
    logits[np.arange(num_rows), labels] += 1.5
    labels[::5] = -1
    return logits.astype(np.float32), labels


def calibration_error(logits: np.ndarray, labels: np.ndarray, num_bins: int = 15) -> float:
    """Guo et al. (2017), equation 3, in float64: Σ |B| / n · |accuracy(B) − confidence(B)|."""
    logits = logits.astype(np.float64)
    probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bins = np.minimum((confidence * num_bins).astype(int), num_bins - 1)
    return float(
        sum(
            (bins == number).mean() * abs(right[bins == number].mean() - confidence[bins == number].mean())
            for number in np.unique(bins)
        )
    )


def test_metric_is_accuracy_over_the_labelled_rows() -> None:
    logits, labels = made_up()
    labelled = labels >= 0
    expected = accuracy_score(labels[labelled], logits.argmax(axis=1)[labelled])
    assert TASK.metric_name == "accuracy" and TASK.chance == 0.25
    assert TASK.metric(logits, labels) == pytest.approx(expected)
    scores = TASK.row_scores(logits, labels)
    assert len(scores) == labelled.sum() == TASK.count_labelled(labels)
    assert scores.mean() == pytest.approx(expected)


def test_metric_without_any_label_is_not_a_number() -> None:
    logits, labels = made_up()
    assert np.isnan(TASK.metric(logits, np.full_like(labels, -1)))


def test_macro_f1_is_scikit_learns() -> None:
    logits, labels = made_up()
    labelled = labels >= 0
    expected = f1_score(labels[labelled], logits.argmax(axis=1)[labelled], average="macro")
    assert TASK.details(logits, labels)["macro_f1"] == pytest.approx(expected, abs=1e-6)


def test_calibration_error_is_guos_formula() -> None:
    logits, labels = made_up()
    labelled = labels >= 0
    expected = calibration_error(logits[labelled], labels[labelled])
    assert expected > 0.01
    assert TASK.details(logits, labels)["calibration_error"] == pytest.approx(expected, abs=1e-5)


def test_calibration_error_of_a_model_that_is_always_sure_and_half_right_is_a_half() -> None:
    logits = np.full((10, 4), -50.0, np.float32)
    logits[:, 0] = 50.0
    labels = np.array([0, 1] * 5)
    assert TASK.details(logits, labels)["calibration_error"] == pytest.approx(0.5, abs=1e-6)


def test_half_precision_logits_of_teachers_are_measured_too() -> None:
    logits, labels = made_up()
    half = TASK.details(logits.astype(np.float16), labels)
    assert half["macro_f1"] == pytest.approx(TASK.details(logits, labels)["macro_f1"], abs=1e-2)


def test_agreement_is_the_share_of_rows_with_the_same_answer_labelled_or_not() -> None:
    left, _ = made_up(seed=1)
    right, _ = made_up(seed=2)
    expected = (left.argmax(axis=1) == right.argmax(axis=1)).mean()
    assert 0 < expected < 1
    assert TASK.agreement(left, right) == pytest.approx(expected)
    assert TASK.agreement(left, left + 5) == 1.0


def test_losses_are_sums_so_that_the_caller_can_divide_by_global_counts() -> None:
    logits, labels = made_up()
    student, teacher = torch.from_numpy(logits), torch.from_numpy(made_up(seed=3)[0])
    hard = torch.from_numpy(labels)
    halves = [slice(0, 80), slice(80, 200)]
    for whole, parts in (
        (TASK.hard_loss(student, hard), [TASK.hard_loss(student[part], hard[part]) for part in halves]),
        (
            TASK.soft_loss(student, teacher, hard, KL),
            [TASK.soft_loss(student[part], teacher[part], hard[part], KL) for part in halves],
        ),
    ):
        torch.testing.assert_close(sum(parts), whole)


def test_head_ignores_padding_and_has_one_output_a_class() -> None:
    head = TASK.make_head(8)
    tokens, mask = torch.randn(3, 5, 8), torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 0, 0, 0, 0]]).bool()
    logits = head(tokens, mask)
    assert logits.shape == (3, 4)
    torch.testing.assert_close(head(tokens[1:2, :2], None), logits[1:2])
    disturbed = torch.where(mask.unsqueeze(-1), tokens, torch.tensor(1e3))
    torch.testing.assert_close(head(disturbed, mask), logits)
