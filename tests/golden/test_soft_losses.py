"""Every loss on outputs against a float64 NumPy version written from its paper, and the cases that papers state."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raydistill.errors import ConfigError
from raydistill.losses.binary import hard_binary_cross_entropy, soft_binary_cross_entropy
from raydistill.losses.dist import dist
from raydistill.losses.divergences import forward_kl, jensen_shannon, reverse_kl, skew_kl
from raydistill.losses.dkd import dkd
from raydistill.losses.geometry import pearson, unit
from raydistill.losses.hard import hard_cross_entropy
from raydistill.losses.mse import mse
from raydistill.losses.nkd import nkd
from raydistill.losses.numerics import UNKNOWN, mask_unknown
from raydistill.losses.regression import hard_regression, soft_regression
from raydistill.losses.soft_losses import SOFT_LOSSES, soft_loss
from raydistill.losses.standardize import standardize

sys.path.insert(0, str(Path(__file__).parent))
import papers

LABELS = np.array([3, -1, 0, 2, -1, 3, 1])
TORCH_LABELS = torch.tensor(LABELS)
TARGETS = {"hard_labels": TORCH_LABELS}
TEMPERATURES = [0.7, 1.0, 4.0]


def made_up(seed: int, *shape: int, spread: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    student, teacher = np.random.default_rng(seed).normal(0, spread, (2, *shape))
    return student, teacher


def value_and_gradient(loss: Callable[..., torch.Tensor], student: np.ndarray, *rest: Any) -> tuple[float, np.ndarray]:
    point = torch.tensor(student, requires_grad=True)
    value = loss(point, *(torch.tensor(one) if isinstance(one, np.ndarray) else one for one in rest))
    value.backward()
    assert point.grad is not None and value.dtype == torch.float64 and value.shape == ()
    return value.item(), point.grad.numpy()


# name: (raydistill's, the paper's), both of (student, teacher, temperature)
LOSSES: dict[str, tuple[Callable[..., torch.Tensor], Callable[..., Any]]] = {
    "kl": (forward_kl, papers.forward_kl),
    "reverse_kl": (reverse_kl, papers.reverse_kl),
    "js": (jensen_shannon, papers.jensen_shannon),
    "skew_kl": (lambda s, t, T: skew_kl(s, t, T, skew=0.3), lambda s, t, T: papers.skew_kl(s, t, T, 0.3)),
    "dkd": (
        lambda s, t, T: dkd(s, t, T, TORCH_LABELS, alpha=0.7, beta=3.0),
        lambda s, t, T: papers.dkd(s, t, T, LABELS, 0.7, 3.0),
    ),
    "dist": (lambda s, t, T: dist(s, t, T, beta=0.8, gamma=2.5), lambda s, t, T: papers.dist(s, t, T, 0.8, 2.5)),
    "nkd": (
        lambda s, t, T: nkd(s, t, T, TORCH_LABELS, gamma=0.9),
        lambda s, t, T: papers.nkd(s, t, T, LABELS, 0.9),
    ),
    "mse": (mse, papers.mse),
    "binary": (soft_binary_cross_entropy, papers.soft_binary),
    "regression": (soft_regression, lambda s, t, _: papers.regression(s, t)),
}
GRADIENTS: dict[str, Callable[..., np.ndarray]] = {
    "kl": papers.forward_kl_gradient,
    "reverse_kl": papers.reverse_kl_gradient,
    "js": papers.jensen_shannon_gradient,
    "skew_kl": lambda s, t, T: papers.skew_kl_gradient(s, t, T, 0.3),
    "mse": papers.mse_gradient,
    "binary": papers.soft_binary_gradient,
    "regression": lambda s, t, _: papers.regression_gradient(s, t),
}
ZERO_AT_AGREEMENT = sorted(set(LOSSES) - {"nkd"})
OF_DISTRIBUTIONS = sorted(set(LOSSES) - {"mse", "binary", "regression"})


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("name", LOSSES)
def test_value_and_gradient_are_the_papers(name: str, temperature: float) -> None:
    ours, theirs = LOSSES[name]
    student, teacher = made_up(0, 7, 5)
    value, gradient = value_and_gradient(ours, student, teacher, temperature)
    assert value == pytest.approx(theirs(student, teacher, temperature), rel=1e-9)
    expected = papers.complex_step(lambda point: theirs(point, teacher, temperature), student)
    np.testing.assert_allclose(gradient, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())
    if name in GRADIENTS:
        by_hand = GRADIENTS[name](student, teacher, temperature)
        np.testing.assert_allclose(gradient, by_hand, rtol=1e-9, atol=1e-9 * np.abs(by_hand).max())


@pytest.mark.parametrize("name", LOSSES)
def test_gradcheck(name: str) -> None:
    student, teacher = (torch.tensor(one, requires_grad=True) for one in made_up(1, 7, 4))
    assert torch.autograd.gradcheck(lambda s, t: LOSSES[name][0](s, t, 2.0), (student, teacher.detach()))


@pytest.mark.parametrize("name", SOFT_LOSSES)
def test_standardised_losses_are_those_of_z_scores(name: str) -> None:
    student, teacher = made_up(2, 7, 5)
    labels = torch.tensor(LABELS)
    theirs = {
        **{each: LOSSES[each][1] for each in ("kl", "reverse_kl", "js", "mse")},
        "skew_kl": lambda s, t, T: papers.skew_kl(s, t, T, 0.1),
        "dkd": lambda s, t, T: papers.dkd(s, t, T, LABELS, 1.0, 1.0),
        "dist": lambda s, t, T: papers.dist(s, t, T, 1.0, 1.0),
        "nkd": lambda s, t, T: papers.nkd(s, t, T, LABELS, 1.5),
    }[name]
    for standardized, through in ((False, lambda logits: logits), (True, papers.standardize)):
        value, gradient = value_and_gradient(
            lambda s, t, on=standardized: soft_loss(name, s, t, 2.0, labels, {}, standardized=on), student, teacher
        )
        assert value == pytest.approx(theirs(through(student), through(teacher), 2.0), rel=1e-9)
        expected = papers.complex_step(
            lambda point, via=through: theirs(via(point), via(teacher), 2.0),  # type: ignore[misc]
            student,
        )
        np.testing.assert_allclose(gradient, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())


def test_hard_losses_are_their_formulas() -> None:
    student, labels = made_up(3, 6, 4)
    yes = (labels > 0).astype(np.float64)
    value, gradient = value_and_gradient(hard_binary_cross_entropy, student, yes)
    assert value == pytest.approx(papers.hard_binary(student, yes), rel=1e-9)
    np.testing.assert_allclose(gradient, papers.hard_binary_gradient(student, yes), rtol=1e-9, atol=1e-12)
    value, gradient = value_and_gradient(hard_regression, student, labels)
    assert value == pytest.approx(papers.regression(student, labels), rel=1e-9)
    np.testing.assert_allclose(gradient, papers.regression_gradient(student, labels), rtol=1e-9, atol=1e-12)
    probabilities = papers.softmax(student)
    classes = np.array([2, -1, 0, -1, 3, 3])
    expected = -sum(np.log(probabilities[i, c]) for i, c in enumerate(classes) if c >= 0)
    assert value_and_gradient(hard_cross_entropy, student, classes)[0] == pytest.approx(expected, rel=1e-9)
    for loss, wanted in ((hard_binary_cross_entropy, yes), (hard_regression, labels), (hard_cross_entropy, classes)):
        point = torch.tensor(student, requires_grad=True)
        assert torch.autograd.gradcheck(loss, (point, torch.tensor(wanted)))


@pytest.mark.parametrize("loss", [hard_binary_cross_entropy, hard_regression])
def test_missing_labels_leave_the_mean_of_their_row(loss: Callable[..., torch.Tensor]) -> None:
    student = torch.tensor([[2.0, -2.0, 0.5], [3.0, 1.0, -1.0]], requires_grad=True)
    nan = float("nan")
    value = loss(student, torch.tensor([[1.0, nan, 0.0], [nan, nan, nan]]))
    value.backward()
    alone = loss(student[:1, [0, 2]].detach(), torch.tensor([[1.0, 0.0]]))
    assert value.item() == pytest.approx(alone.item(), rel=1e-6) and value.item() > 0.1
    assert student.grad is not None
    assert student.grad.ne(0.0).tolist() == [[True, False, True], [False, False, False]]


def test_hard_loss_without_any_label_is_zero_with_zero_gradient() -> None:
    logits = torch.randn(3, 4, requires_grad=True)
    loss = hard_cross_entropy(logits, torch.full((3,), -1))
    loss.backward()
    assert loss.item() == 0.0
    assert logits.grad is not None and not logits.grad.any()


def test_forward_kl_of_a_hand_computed_pair() -> None:
    # p = (3/4, 1/4), q = (1/2, 1/2): KL = 3/4 ln 3/2 + 1/4 ln 1/2
    teacher = torch.log(torch.tensor([[3.0, 1.0]]))
    expected = 0.75 * np.log(1.5) + 0.25 * np.log(0.5)
    assert forward_kl(torch.zeros(1, 2), teacher, 1.0).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", ZERO_AT_AGREEMENT)
def test_agreement_is_zero_with_zero_gradient(name: str) -> None:
    teacher, _ = made_up(4, 7, 5)
    value, gradient = value_and_gradient(LOSSES[name][0], teacher, teacher, 2.0)
    assert abs(value) < 1e-12
    assert np.abs(gradient).max() < 1e-10


def test_nkd_at_agreement_still_pushes_the_target_up() -> None:
    teacher, _ = made_up(4, 7, 5)
    value, gradient = value_and_gradient(LOSSES["nkd"][0], teacher, teacher, 1.0)
    targets = papers.targets_of(teacher, LABELS)
    assert value > 0.1 and (gradient[np.arange(7), targets] < 0).all()


@pytest.mark.parametrize("name", OF_DISTRIBUTIONS)
def test_a_shift_of_a_rows_logits_changes_nothing(name: str) -> None:
    student, teacher = made_up(5, 7, 5)
    shifts = np.random.default_rng(6).normal(0, 10, (2, 7, 1))
    plain = value_and_gradient(LOSSES[name][0], student, teacher, 1.5)
    shifted = value_and_gradient(LOSSES[name][0], student + shifts[0], teacher + shifts[1], 1.5)
    assert shifted[0] == pytest.approx(plain[0], rel=1e-9)
    np.testing.assert_allclose(shifted[1], plain[1], rtol=1e-7, atol=1e-10)


def test_a_scale_of_a_rows_logits_changes_nothing_once_standardised() -> None:
    logits = torch.tensor(made_up(7, 4, 6)[0])
    scores = standardize(logits)
    torch.testing.assert_close(standardize(logits * 3.0 - 7.0), scores)
    torch.testing.assert_close(scores.mean(dim=1), torch.zeros(4, dtype=torch.float64))
    torch.testing.assert_close(scores.var(dim=1, correction=0), torch.ones(4, dtype=torch.float64))


@pytest.mark.parametrize("name", SOFT_LOSSES)
def test_a_permutation_of_classes_permutes_the_gradient(name: str) -> None:
    student, teacher = made_up(8, 7, 5)
    order = np.array([3, 0, 4, 1, 2])
    place = np.argsort(order)
    moved = np.where(LABELS >= 0, place[LABELS], -1)

    def loss(labels: np.ndarray) -> Callable[..., torch.Tensor]:
        return lambda s, t: soft_loss(name, s, t, 2.0, torch.tensor(labels), {}, standardized=False)

    plain = value_and_gradient(loss(LABELS), student, teacher)
    permuted = value_and_gradient(loss(moved), student[:, order], teacher[:, order])
    assert permuted[0] == pytest.approx(plain[0], rel=1e-9)
    np.testing.assert_allclose(permuted[1], plain[1][:, order], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("label", [2, -1])
def test_kl_is_dkd_with_the_coupled_weights(label: int) -> None:
    # Zhao et al. (2022), section 3.1: KD = TCKD + (1 − p_t) · NCKD.
    student, teacher = made_up(9, 1, 6)
    temperature, hard_labels = 3.0, torch.tensor([label])
    target = label if label >= 0 else int(teacher.argmax())
    rest = 1 - papers.softmax(teacher / temperature)[0, target]
    coupled = dkd(torch.tensor(student), torch.tensor(teacher), temperature, hard_labels, alpha=1.0, beta=rest)
    plain = forward_kl(torch.tensor(student), torch.tensor(teacher), temperature)
    assert coupled.item() == pytest.approx(plain.item(), rel=1e-12)


def test_dkd_of_a_sure_teacher_keeps_what_it_knows_of_the_others() -> None:
    # p_t = 1 − 2e-9 in float32, where 1 − p_t is 0 if computed as such.
    teacher = torch.tensor([[20.0, 0.0, -1.0]])
    student = torch.tensor([[1.0, -1.0, 0.0]], requires_grad=True)
    loss = dkd(student, teacher, 1.0, torch.tensor([0]), alpha=0.0, beta=1.0)
    p, q = papers.softmax(np.array([0.0, -1.0])), papers.softmax(np.array([-1.0, 0.0]))
    assert loss.item() == pytest.approx(papers.kl(p, q), rel=1e-5)


def test_skew_zero_is_forward_kl_and_other_skews_are_refused_or_bounded() -> None:
    student, teacher = (torch.tensor(one) for one in made_up(10, 5, 4))
    assert skew_kl(student, teacher, 2.0, skew=0.0).item() == forward_kl(student, teacher, 2.0).item()
    assert skew_kl(student, teacher, 2.0, skew=1e-9).item() == pytest.approx(forward_kl(student, teacher, 2.0).item())
    far = skew_kl(torch.tensor([[1e4, -1e4]]), torch.tensor([[-1e4, 1e4]]), 1.0, skew=0.25)
    assert far.item() == pytest.approx(-np.log(0.25), rel=1e-6)
    for skew in (-0.1, 1.0):
        with pytest.raises(ConfigError, match="skew"):
            skew_kl(student, teacher, 2.0, skew=skew)


def test_jensen_shannon_is_symmetric_and_at_most_log_two() -> None:
    student, teacher = (torch.tensor(one) for one in made_up(11, 5, 4))
    assert jensen_shannon(student, teacher, 2.0).item() == pytest.approx(jensen_shannon(teacher, student, 2.0).item())
    far = jensen_shannon(torch.tensor([[1e4, -1e4]]), torch.tensor([[-1e4, 1e4]]), 1.0)
    assert far.item() == pytest.approx(np.log(2.0), rel=1e-6)


@pytest.mark.parametrize(
    ("loss", "factor"),
    [(forward_kl, 1.0), (reverse_kl, 1.0), (jensen_shannon, 0.25), (lambda *a: skew_kl(*a, skew=0.1), 0.81)],
)
def test_the_limit_of_high_temperature_is_half_the_mse_of_centred_logits(
    loss: Callable[..., torch.Tensor], factor: float
) -> None:
    # Hinton et al. (2015), section 2.1: T² KL → 1 / (2 N) Σ (z − v)², its gradient → (z − v) / N.
    student, teacher = made_up(12, 3, 6, spread=1.0)
    student -= student.mean(axis=1, keepdims=True)
    teacher -= teacher.mean(axis=1, keepdims=True)
    value, gradient = value_and_gradient(loss, student, teacher, 1e4)
    assert value == pytest.approx(factor * ((student - teacher) ** 2).sum() / (2 * 6), rel=1e-3)
    assert value == pytest.approx(factor * mse(torch.tensor(student), torch.tensor(teacher), 1.0).item() / 2, rel=1e-3)
    np.testing.assert_allclose(gradient, factor * (student - teacher) / 6, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("name", sorted(set(OF_DISTRIBUTIONS) | {"binary"}))
def test_the_gradient_keeps_its_size_as_temperature_grows(name: str) -> None:
    student, teacher = made_up(13, 7, 5, spread=1.0)
    sizes = [np.linalg.norm(value_and_gradient(LOSSES[name][0], student, teacher, T)[1]) for T in (1e2, 1e3)]
    assert sizes[1] == pytest.approx(sizes[0], rel=0.05) and sizes[0] > 0.01


def test_dist_does_not_see_a_positive_affine_map_of_probabilities() -> None:
    x, y = (torch.tensor(one) for one in made_up(14, 4, 6))
    torch.testing.assert_close(pearson(2.5 * x + 3.0, 0.1 * y - 1.0, 1), pearson(x, y, 1))
    torch.testing.assert_close(pearson(-2.5 * x, y, 1), -pearson(x, y, 1))
    np.testing.assert_allclose(pearson(x, y, 0)[2], np.corrcoef(x[:, 2], y[:, 2])[0, 1])
    temperature = 2.0
    probabilities = torch.softmax(y / temperature, dim=1)
    student = temperature * torch.log(0.7 * probabilities + 0.3 / 6)
    assert abs(dist(student, y, temperature).item()) < 1e-9
    assert dist(x, y, temperature).item() > 0.1


def test_pearson_of_constant_vectors() -> None:
    x = torch.tensor([[1.0, 2.0, 4.0], [5.0, 5.0, 5.0], [7.0, 7.0, 7.0], [0.0, 0.0, 0.0]], requires_grad=True)
    y = torch.tensor([[2.0, 4.0, 8.0], [1.0, 2.0, 4.0], [3.0, 3.0, 3.0], [0.0, 0.0, 0.0]])
    correlation = pearson(x, y, 1)
    torch.testing.assert_close(correlation, torch.tensor([1.0, 0.0, 1.0, 1.0]))
    correlation.sum().backward()
    assert x.grad is not None and not x.grad[1:].any()


@pytest.mark.parametrize("value", [0.1, 1 / 3, 1 / 7, 1e-12, 12345.678])
def test_rounding_of_a_mean_is_no_variation(value: float) -> None:
    # In float32 the mean of equal numbers is not always that number, and what is left would have a direction.
    found_rounding = False
    for size in range(2, 60):
        x = torch.full((size,), value, requires_grad=True)
        found_rounding |= bool((x - x.sum() / size).any())
        y = torch.arange(float(size))
        correlation = pearson(x, y, 0) + pearson(x, torch.full((size,), 0.7), 0)
        correlation.backward()
        assert correlation.item() == 1.0 and x.grad is not None and not x.grad.any()
    assert found_rounding


def test_the_gradient_of_a_nearly_flat_row_or_vector_is_bounded() -> None:
    flat = torch.tensor([[1e-5, -1e-5, 0.0], [1.0, 2.0, 3.0]], requires_grad=True)
    scores = standardize(flat)
    scores.square().mul(torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert not scores[0].any() and flat.grad is not None and not flat.grad[0].any() and flat.grad[1].any()
    denormal = torch.tensor([1e-39, 2e-39], requires_grad=True)
    unit(denormal, 0)[0].backward()
    assert denormal.grad is not None and not denormal.grad.any()


def known_rows(mask: np.ndarray) -> list[list[int]]:
    return [np.flatnonzero(~row).tolist() for row in mask]


@pytest.mark.parametrize("standardized", [False, True])
@pytest.mark.parametrize("name", SOFT_LOSSES)
def test_classes_that_no_teacher_knows_do_not_exist(name: str, standardized: bool) -> None:
    # Another set of unknown classes on every row; the last row knows nothing, one label is unknown.
    student, teacher = made_up(15, 7, 5)
    mask = np.random.default_rng(16).random((7, 5)) < 0.3
    mask[6], mask[0], mask[2, 0] = True, [False, False, False, True, False], True
    told = np.where(mask, UNKNOWN, teacher)
    value, gradient = value_and_gradient(
        lambda s, t: soft_loss(name, s, t, 2.0, TORCH_LABELS, {}, standardized=standardized), student, told
    )
    assert (gradient[mask] == 0).all() and (gradient[~mask] != 0).any()
    expected = 0.0
    if name == "dist":
        s, t = (papers.standardize_known(one, mask) if standardized else one for one in (student, teacher))
        expected = papers.dist_known(s, t, 2.0, mask)
    else:
        for i, known in enumerate(known_rows(mask)):
            if not known:
                continue
            label = known.index(LABELS[i]) if LABELS[i] in known else -1
            alone = soft_loss(
                name,
                torch.tensor(student[i : i + 1, known]),
                torch.tensor(teacher[i : i + 1, known]),
                2.0,
                torch.tensor([label]),
                {},
                standardized,
            )
            expected += alone.item()
    assert value == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", SOFT_LOSSES)
def test_no_temperature_brings_unknown_classes_back(name: str) -> None:
    # UNKNOWN / T is −6 here: were it a logit like others, it would have weight.
    student, teacher = made_up(19, 7, 5)
    told = teacher.copy()
    told[:, [1, 3]] = UNKNOWN
    labels, alone = torch.tensor([0, -1, 2, 4, -1, 0, 2]), torch.tensor([0, -1, 1, 2, -1, 0, 1])
    value, gradient = value_and_gradient(lambda s, t: soft_loss(name, s, t, 1e4, labels, {}, False), student, told)
    expected = value_and_gradient(
        lambda s, t: soft_loss(name, s, t, 1e4, alone, {}, False), student[:, [0, 2, 4]], teacher[:, [0, 2, 4]]
    )
    assert value == pytest.approx(expected[0], rel=1e-6)
    np.testing.assert_allclose(gradient[:, [0, 2, 4]], expected[1], rtol=1e-6, atol=1e-9)
    assert not gradient[:, [1, 3]].any()


@pytest.mark.parametrize("standardized", [False, True])
@pytest.mark.parametrize("name", SOFT_LOSSES)
def test_a_row_without_any_known_class_is_not_even_nan_on_the_way(name: str, standardized: bool) -> None:
    teacher = torch.full((2, 3), UNKNOWN)
    student = torch.randn(2, 3, requires_grad=True)
    with torch.autograd.set_detect_anomaly(True):
        loss = soft_loss(name, student, teacher, 2.0, torch.tensor([1, -1]), {}, standardized)
        loss.backward()
    assert loss.item() == 0.0 and student.grad is not None and not student.grad.any()


def test_unknown_labels_of_a_multi_label_task_leave_the_mean_of_their_row() -> None:
    student, teacher = made_up(17, 2, 4)
    told = teacher.copy()
    told[0, 1] = told[1, :] = UNKNOWN
    value, gradient = value_and_gradient(soft_binary_cross_entropy, student, told, 2.0)
    known = [0, 2, 3]
    assert value == pytest.approx(papers.soft_binary(student[:1, known], teacher[:1, known], 2.0), rel=1e-9)
    assert gradient[0, 1] == 0 and not gradient[1].any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_unknown_survives_every_float_type(dtype: torch.dtype) -> None:
    teacher = torch.tensor([[1.0, UNKNOWN, -5e4, 2.0]]).to(dtype)
    student = torch.tensor([[0.5, 3.0, 1.0, -1.0]], dtype=dtype)
    masked = mask_unknown(student, teacher)
    assert masked.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert masked[0, 1] == teacher[0, 1] and masked[0, [0, 2, 3]].tolist() == [0.5, 1.0, -1.0]
    scores = standardize(masked)
    assert scores[0, 1] == masked[0, 1] and abs(scores[0, [0, 2, 3]].sum().item()) < 1e-5


def test_a_teacher_that_is_nan_stays_loud() -> None:
    teacher = torch.tensor([[1.0, float("nan"), 0.0]])
    for name in SOFT_LOSSES:
        assert soft_loss(name, torch.zeros(1, 3), teacher, 1.0, torch.tensor([0]), {}, False).isnan()


def test_options_reach_the_loss_and_mistakes_are_named() -> None:
    student, teacher = (torch.tensor(one) for one in made_up(18, 7, 5))
    given = soft_loss("dkd", student, teacher, 2.0, TORCH_LABELS, {"alpha": 0.5, "beta": 2.0}, False)
    assert given.item() == dkd(student, teacher, 2.0, TORCH_LABELS, alpha=0.5, beta=2.0).item()
    with pytest.raises(ConfigError, match=r"no soft loss 'kd'.*'kl'"):
        soft_loss("kd", student, teacher, 2.0, TORCH_LABELS, {}, False)
    with pytest.raises(ConfigError, match=r"'nkd' has no option 'beta'.*gamma"):
        soft_loss("nkd", student, teacher, 2.0, TORCH_LABELS, {"beta": 1.0}, False)


def test_the_registry_says_what_each_loss_needs() -> None:
    assert list(SOFT_LOSSES) == ["kl", "reverse_kl", "js", "skew_kl", "dkd", "dist", "nkd", "mse"]
    for loss in SOFT_LOSSES.values():
        assert loss.needs_target == ("hard_labels" in inspect.signature(loss.function).parameters)
    assert {name for name, loss in SOFT_LOSSES.items() if loss.needs_every_logit} == {"dist", "mse"}


@pytest.mark.parametrize(
    "function",
    [
        *(loss.function for loss in SOFT_LOSSES.values()),
        *(standardize, soft_binary_cross_entropy, hard_binary_cross_entropy),
        *(soft_regression, hard_regression, hard_cross_entropy),
    ],
)
def test_docstrings_have_the_layout_that_the_method_pages_are_made_from(function: Callable[..., Any]) -> None:
    paragraphs = (inspect.getdoc(function) or "").split("\n\n")
    assert "\n" not in paragraphs[0]
    assert all(line.startswith("    ") for line in paragraphs[1].splitlines())
    starts = [paragraph.split(":")[0].split(" when ")[0] for paragraph in paragraphs[3:]]
    assert starts[:4] == ["Source", "Use it", "Args", "Returns"]
