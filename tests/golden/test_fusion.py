"""Every way to fuse teachers against a float64 NumPy version of its formula."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax, logsumexp, softmax

from raydistill.config.distill import AekdOptions, DistillConfig, FusionName, FusionOptions
from raydistill.fusion.combining import mean_of_logits, mean_of_probabilities, shares, spoken
from raydistill.fusion.fuser import Fuser, ensemble, make_fuser
from raydistill.fusion.standing import Standing, asked_about, logit_scale
from raydistill.fusion.weighting import Gate, by_confidence, by_entropy, by_gradients
from raydistill.losses.divergences import forward_kl
from raydistill.losses.numerics import UNKNOWN
from raydistill.min_norm import smallest_norm

Floats = NDArray[np.float64]
K, ROWS, CLASSES = 3, 7, 5
EVEN = np.full((K, ROWS), 1 / K)
AS_THEY_ARE = FusionOptions(normalize_scales=False)
FUSIONS: list[FusionName] = ["mean_logits", "mean_probabilities", "best", "entropy", "confidence", "aekd", "gate"]


def made_up(seed: int = 0) -> Floats:
    return np.random.default_rng(seed).normal(0, 2, (K, ROWS, CLASSES))


def standings(scales: tuple[float, ...] = (1.0, 1.0, 1.0)) -> list[Standing]:
    return [Standing(f"t{k}", 0.5 + 0.1 * (k == 1), scale) for k, scale in enumerate(scales)]


def fuse(strategy: FusionName, logits: Floats, temperature: float = 1.0, **more: object) -> Floats:
    options = more.pop("options", AS_THEY_ARE)
    weights = more.pop("teacher_weights", {})
    fuser = Fuser(strategy, standings(), logits.shape[-1], options, weights).eval()  # type: ignore[arg-type]
    labels = torch.from_numpy(more.pop("labels", np.full(logits.shape[1], -1)))  # type: ignore[arg-type]
    student = torch.from_numpy(more.pop("student", np.zeros(logits.shape[1:])))  # type: ignore[arg-type]
    return fuser(torch.from_numpy(logits), temperature, student, labels).logits.detach().numpy()


def test_mean_of_logits() -> None:
    np.testing.assert_allclose(fuse("mean_logits", made_up()), made_up().mean(axis=0), rtol=1e-9)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_mean_of_probabilities_is_the_mean_at_that_temperature(temperature: float) -> None:
    logits = made_up()
    expected = softmax(logits / temperature, axis=-1).mean(axis=0)
    found = softmax(fuse("mean_probabilities", logits, temperature) / temperature, axis=-1)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_fixed_weights_weigh_both_means() -> None:
    logits, weights = made_up(), {"t0": 3.0, "t2": 0.0}
    share = np.array([0.75, 0.25, 0.0])[:, None, None]
    np.testing.assert_allclose(
        fuse("mean_logits", logits, teacher_weights=weights), (share * logits).sum(axis=0), rtol=1e-9
    )
    found = softmax(fuse("mean_probabilities", logits, teacher_weights=weights), axis=-1)
    np.testing.assert_allclose(found, (share * softmax(logits, axis=-1)).sum(axis=0), rtol=1e-9)


def test_the_best_is_the_one_with_the_highest_accuracy() -> None:
    found = softmax(fuse("best", made_up()), axis=-1)
    np.testing.assert_allclose(found, softmax(made_up()[1], axis=-1), rtol=1e-9)


def test_weights_by_entropy() -> None:
    logits = made_up()
    p = softmax(logits, axis=-1)
    entropy = -(p * np.log(p)).sum(axis=-1)
    expected = (1 - entropy / entropy.sum(axis=0)) / (K - 1)
    found = by_entropy(torch.from_numpy(logits), torch.ones(K, ROWS, dtype=torch.bool))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9)
    np.testing.assert_allclose(found.sum(dim=0).numpy(), 1.0, rtol=1e-12)


def test_weights_by_confidence_and_equal_ones_without_a_label() -> None:
    logits, labels = made_up(), np.array([0, 1, 2, 3, 4, -1, 2])
    losses = -np.take_along_axis(log_softmax(logits, axis=-1), np.maximum(labels, 0)[None, :, None], axis=-1)[..., 0]
    expected = (1 - np.exp(losses - logsumexp(losses, axis=0))) / (K - 1)
    expected[:, 5] = 1 / K
    everyone = torch.ones(K, ROWS, dtype=torch.bool)
    found = by_confidence(torch.from_numpy(logits), everyone, torch.from_numpy(labels))
    np.testing.assert_allclose(shares(found, everyone).numpy(), expected, rtol=1e-9)


@pytest.mark.parametrize("most", [1.0, 0.5, 0.2])
def test_weights_by_gradients_solve_the_bounded_min_norm_problem(most: float) -> None:
    logits, student, temperature = made_up(), made_up(9)[0], 2.0
    gradients = temperature * (softmax(student / temperature, axis=-1) - softmax(logits / temperature, axis=-1))
    mean = gradients.mean(axis=1)
    gramian, bound = mean @ mean.T, max(most, 1 / K)
    solved = minimize(
        lambda w: w @ gramian @ w * 1e4,
        np.full(K, 1 / K),
        jac=lambda w: 2e4 * gramian @ w,
        bounds=[(0, bound)] * K,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": lambda w: np.ones(K)},
        options={"ftol": 1e-15, "maxiter": 500},
    )
    everyone = torch.ones(K, ROWS, dtype=torch.bool)
    found = by_gradients(torch.from_numpy(logits), everyone, torch.from_numpy(student), temperature, most)
    assert (found == found[:, :1]).all()
    weights = found[:, 0].numpy()
    assert weights.sum() == pytest.approx(1) and (weights <= bound + 1e-9).all()
    assert weights @ gramian @ weights <= solved.fun / 1e4 * (1 + 1e-6)
    np.testing.assert_allclose(weights, solved.x, atol=1e-4)


def test_the_min_norm_point_of_opposite_gradients_is_zero() -> None:
    np.testing.assert_allclose(smallest_norm(np.array([[1.0, -2.0], [-2.0, 4.0]]), 1.0), [2 / 3, 1 / 3], atol=1e-6)
    np.testing.assert_allclose(smallest_norm(np.zeros((3, 3)), 1.0), [1 / 3] * 3, atol=1e-6)
    np.testing.assert_allclose(smallest_norm(np.array([[1.0, -2.0], [-2.0, 4.0]]), 0.5), [0.5, 0.5], atol=1e-6)


def test_a_gate_starts_even_and_its_loss_and_gradients_are_the_formulas() -> None:
    logits, labels = made_up(), np.array([0, 1, 2, 3, 4, -1, 2])
    gate = Gate(K, CLASSES).double()
    everyone = torch.ones(K, ROWS, dtype=torch.bool)
    said = torch.from_numpy(logits)
    np.testing.assert_allclose(gate(said, everyone).detach().numpy(), EVEN)
    torch.nn.init.normal_(gate.linear.weight)
    p = softmax(logits, axis=-1)
    entered = p.transpose(1, 0, 2).reshape(ROWS, -1)
    weight, bias = gate.linear.weight.detach().numpy(), gate.linear.bias.detach().numpy()
    expected = softmax(entered @ weight.T + bias, axis=-1).T
    weights = gate(said, everyone)
    np.testing.assert_allclose(weights.detach().numpy(), expected, rtol=1e-9)
    labelled = labels >= 0
    right = np.take_along_axis(p, np.maximum(labels, 0)[None, :, None], axis=-1)[..., 0]
    together = (expected * right).sum(axis=0)
    loss = gate.loss(weights, said, torch.from_numpy(labels))
    assert loss.item() == pytest.approx(-np.log(together[labelled]).sum(), rel=1e-9)
    loss.backward()
    # d loss / d scores = w − the posterior of each teacher.
    posterior = expected * right / together
    scores = (expected - posterior) * labelled
    np.testing.assert_allclose(gate.linear.weight.grad.numpy(), scores @ entered, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(gate.linear.bias.grad.numpy(), scores.sum(axis=1), rtol=1e-9, atol=1e-12)


def test_of_the_gate_only_its_own_loss_reaches_it() -> None:
    fuser = Fuser("gate", standings(), CLASSES, AS_THEY_ARE, {})
    fused = fuser(
        torch.from_numpy(made_up()).float(), 1.0, torch.zeros(ROWS, CLASSES), torch.zeros(ROWS, dtype=torch.long)
    )
    assert not fused.logits.requires_grad and fused.gate_loss.requires_grad


@pytest.mark.parametrize("strategy", ["entropy", "confidence", "mean_probabilities", "aekd"])
def test_with_kl_the_fused_target_has_the_gradient_of_the_weighted_losses(strategy: FusionName) -> None:
    """What the papers write as a weighted sum of losses."""
    logits, temperature = torch.from_numpy(made_up()), 3.0
    labels = torch.tensor([0, 1, 2, 3, 4, 0, 1])
    student = torch.from_numpy(made_up(9)[0]).requires_grad_()
    fuser = Fuser(strategy, standings(), CLASSES, AS_THEY_ARE, {})
    fused = fuser(logits, temperature, student, labels)
    (gradient,) = torch.autograd.grad(forward_kl(student, fused.logits, temperature), student)
    each = [
        (fused.weights[k, row] * forward_kl(student[row : row + 1], logits[k, row : row + 1], temperature))
        for k, row in itertools.product(range(K), range(ROWS))
    ]
    (expected,) = torch.autograd.grad(torch.stack(each).sum(), student)
    torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-12)


def test_scales_are_brought_together_before_fusing() -> None:
    logits = made_up()
    logits[0] *= 10
    scales = tuple(logit_scale(each) for each in logits)
    np.testing.assert_allclose(scales, logits.std(axis=-1).mean(axis=-1), rtol=1e-9)
    fuser = Fuser("mean_logits", standings(scales), CLASSES, FusionOptions(), {}).eval()
    nothing = torch.full((ROWS,), -1)
    found = fuser(torch.from_numpy(logits), 1.0, torch.zeros(ROWS, CLASSES), nothing).logits
    factors = np.mean(scales) / np.array(scales)
    np.testing.assert_allclose(found.numpy(), (factors[:, None, None] * logits).mean(axis=0), rtol=1e-9)


@pytest.mark.parametrize("strategy", FUSIONS)
def test_a_teacher_that_says_nothing_leaves_its_weight_to_the_others(strategy: FusionName) -> None:
    logits, labels = made_up(), np.array([0, 1, 2, 3, 4, 0, 1])
    gone = logits.copy()
    gone[1, 2:] = np.nan
    fuser = Fuser(strategy, standings(), CLASSES, AS_THEY_ARE, {})
    fused = fuser(torch.from_numpy(gone), 2.0, torch.zeros(ROWS, CLASSES), torch.from_numpy(labels))
    weights = fused.weights.detach()
    assert torch.isfinite(fused.logits).all()
    torch.testing.assert_close(weights.sum(dim=0), torch.ones_like(weights[0]))
    assert (weights[1, 2:] == 0).all()


@pytest.mark.parametrize("strategy", FUSIONS)
def test_teachers_that_know_different_classes_count_for_their_own(strategy: FusionName) -> None:
    logits = made_up()
    logits[0, :, 3:] = UNKNOWN  # knows 0 1 2
    logits[1, :, :2] = UNKNOWN  # knows 2 3 (4 nobody)
    logits[:, :, 4] = UNKNOWN
    logits[2] = np.nan  # and one is silent
    labels = np.array([0, 1, 2, 3, 0, -1, 2])
    fuser = Fuser(strategy, standings(), CLASSES, AS_THEY_ARE, {})
    fused = fuser(torch.from_numpy(logits), 1.0, torch.zeros(ROWS, CLASSES), torch.from_numpy(labels))
    found = fused.logits.detach()
    assert torch.isfinite(found).all() and (found[:, 4] <= UNKNOWN).all()
    if strategy not in ("best", "confidence"):  # which may hear one alone, with what it knows
        assert (found[:, :4] > UNKNOWN).all()
    if strategy == "confidence":
        assert (fused.weights[1, :2] == 0).all() and (fused.weights[0, 3] == 0).all()


def test_the_mean_of_probabilities_over_partly_overlapping_classes() -> None:
    logits = np.array([[[2.0, 1.0, UNKNOWN]], [[UNKNOWN, 3.0, 0.0]]])
    left, right = softmax([2.0, 1.0]), softmax([3.0, 0.0])
    expected = np.array([left[0], (left[1] + right[0]) / 2, right[1]])
    said, speaks = spoken(torch.from_numpy(logits))
    found = mean_of_probabilities(said, shares(torch.ones(2, 1, dtype=torch.float64), speaks), 1.0)
    np.testing.assert_allclose(softmax(found.numpy()[0]), expected / expected.sum(), rtol=1e-9)
    mean = mean_of_logits(said, torch.full((2, 1), 0.5, dtype=torch.float64)).numpy()[0]
    np.testing.assert_allclose(mean, [np.log(left[0]), np.log(left[1] * right[0]) / 2, np.log(right[1])], rtol=1e-9)


def test_a_certain_teacher_of_no_weight_has_no_say() -> None:
    logits = np.array([[[1.0, 0.0]], [[-5e4, 5e4]]])
    weights = torch.tensor([[1.0], [0.0]], dtype=torch.float64)
    found = mean_of_probabilities(torch.from_numpy(logits), weights, 1.0)
    np.testing.assert_allclose(softmax(found.numpy()[0]), softmax([1.0, 0.0]), rtol=1e-9)


@pytest.mark.parametrize("strategy", FUSIONS)
@pytest.mark.parametrize("size", [1e4, 5e4])
def test_extreme_logits_stay_finite(strategy: FusionName, size: float) -> None:
    logits = torch.from_numpy(np.sign(made_up()) * size).half()
    fuser = Fuser(strategy, standings(), CLASSES, FusionOptions(), {})
    student = torch.from_numpy(np.sign(made_up(3)[0]) * 1e4).float().requires_grad_()
    fused = fuser(logits, 1.0, student, torch.tensor([0, 1, 2, 3, 4, -1, 0]))
    loss = forward_kl(student, fused.logits, 1.0)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(student.grad).all()
    if fused.gate_loss is not None:
        fused.gate_loss.backward()
        assert all(torch.isfinite(parameter.grad).all() for parameter in fuser.parameters())


@pytest.mark.parametrize("most", [0.6, 1.0])
def test_gradients_that_are_all_but_alike_still_have_weights(most: float) -> None:
    """Two classes have one direction; what is left is rounding, and no Gramian in single precision."""
    for seed in range(50):
        generator = torch.Generator().manual_seed(seed)
        first = torch.randn(16, 2, generator=generator) * 5
        logits = torch.stack([first, first * 1.001, first + 1e-4])
        fuser = Fuser("aekd", standings(), 2, FusionOptions(aekd=AekdOptions(most=most)), {})
        fused = fuser(logits.half(), 1.0, torch.randn(16, 2, generator=generator), torch.full((16,), -1))
        torch.testing.assert_close(fused.weights.sum(dim=0), torch.ones(16))


def test_a_class_that_is_ruled_out_is_not_one_that_is_not_known() -> None:
    logits = made_up()
    logits[0, :, 2] = -5.9e4
    logits[1] *= 20
    logits[2] = 1.0  # says nothing: no spread
    scales = tuple(logit_scale(each) for each in logits)
    spread = np.delete(logits[0], 2, axis=1).std(axis=-1).mean()
    assert scales[0] == pytest.approx(spread) and scales[2] == 0.0
    fuser = Fuser("mean_logits", standings(scales), CLASSES, FusionOptions(), {}).eval()
    found = fuser(torch.from_numpy(logits), 1.0, torch.zeros(ROWS, CLASSES), torch.full((ROWS,), -1)).logits
    p = softmax(found.numpy(), axis=-1)
    np.testing.assert_allclose(p[:, 2], 0.0, atol=1e-12)
    common = (scales[0] + scales[1]) / 2
    expected = (logits[0] * common / scales[0] + logits[1] * common / scales[1] + 1.0) / 3
    kept = [0, 1, 3, 4]
    np.testing.assert_allclose(p[:, kept], softmax(expected[:, kept], axis=-1), rtol=1e-6)


def test_one_teacher_is_itself_under_every_strategy() -> None:
    logits = torch.from_numpy(made_up()[:1]).half()
    for strategy in FUSIONS:
        fuser = make_fuser(DistillConfig(fusion=strategy), "task", standings()[:1], CLASSES)
        fused = fuser(logits, 3.0, torch.zeros(ROWS, CLASSES), torch.zeros(ROWS, dtype=torch.long))
        torch.testing.assert_close(fused.logits, logits[0].float())
        assert fused.gate_loss is None


def test_who_was_trusted_is_counted_by_the_class_that_the_ensemble_sees_and_survives_a_checkpoint() -> None:
    fuser = Fuser("entropy", standings(), CLASSES, AS_THEY_ARE, {}).train()
    fused = fuser(torch.from_numpy(made_up()), 1.0, torch.zeros(ROWS, CLASSES), torch.full((ROWS,), -1))
    classes = fused.logits.argmax(dim=-1)
    trust = fuser.trust()
    for c in range(CLASSES):
        for k in range(K):
            mean = fused.weights[k][classes == c].mean().item()
            assert trust[f"t{k}"][c] == pytest.approx(mean, nan_ok=True, rel=1e-6)
    again = Fuser("entropy", standings(), CLASSES, AS_THEY_ARE, {})
    again.load_state_dict(fuser.state_dict())
    np.testing.assert_equal(again.trust(), trust)


def test_strategies_that_need_labels_are_measured_by_the_mean_of_probabilities() -> None:
    said = {f"t{k}": each.astype(np.float16) for k, each in enumerate(made_up())}
    expected = ensemble(DistillConfig(fusion="mean_probabilities"), "task", standings(), said)
    for strategy in ("confidence", "aekd", "gate"):
        found = ensemble(DistillConfig(task_fusions={"task": strategy}), "task", standings(), said)
        np.testing.assert_array_equal(found, expected)


def test_a_teacher_is_not_asked_about_classes_that_it_does_not_know() -> None:
    logits = np.array([[1.0, UNKNOWN], [1.0, UNKNOWN], [0.0, UNKNOWN]])
    np.testing.assert_array_equal(asked_about(logits, np.array([0, 1, -1])), [0, -1, -1])
