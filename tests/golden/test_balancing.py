"""Every way to balance tasks against a float64 NumPy version of its formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import softmax

from raydistill.balancing.gradient import METHODS as BY_GRADIENTS
from raydistill.balancing.gradient import by_gradients
from raydistill.balancing.plain import PLAIN
from raydistill.balancing.scalar import METHODS as BY_LOSSES
from raydistill.balancing.scalar import ByLosses, by_losses
from raydistill.config.distill import BalancingOptions
from raydistill.training.balance import of_full_rank

Floats = NDArray[np.float64]
LOSSES = np.array([0.5, 2.0, 1.2])


def options(**sections: dict[str, float]) -> BalancingOptions:
    return BalancingOptions.model_validate(sections)


def gradients(seed: int = 0, num_tasks: int = 3) -> Floats:
    """Pairs of them in conflict."""
    generator = np.random.default_rng(seed)
    found = generator.normal(0, 1, (num_tasks, 6)) * np.array([1.0, 3.0, 0.5])[:num_tasks, None]
    found[0] = -0.5 * found[1] + 0.2 * found[0]
    return found


def weights_of(name: str, rows: Floats, **sections: dict[str, float]) -> Floats:
    method = by_gradients(name, len(rows), options(**sections))
    return method.weights(torch.from_numpy(rows @ rows.T)).numpy()


def direction(name: str, rows: Floats, **sections: dict[str, float]) -> Floats:
    return weights_of(name, rows, **sections) @ rows


def convex(objective: object, jacobian: object, size: int, *constraints: dict[str, object]) -> Floats:
    found = minimize(
        objective, np.full(size, 1 / size), jac=jacobian, bounds=[(0, None)] * size, constraints=constraints,
        options={"ftol": 1e-16, "maxiter": 1000}, method="SLSQP",
    )  # fmt: skip
    return found.x


ON_THE_SIMPLEX = {"type": "eq", "fun": lambda w: w.sum() - 1}


def test_pcgrad_takes_from_each_what_hurts_the_other() -> None:
    a, b = rows = gradients(num_tasks=2)
    assert a @ b < 0
    expected = (a - (a @ b) / (b @ b) * b) + (b - (b @ a) / (a @ a) * a)
    np.testing.assert_allclose(direction("pcgrad", rows), expected, rtol=1e-9)


def test_pcgrad_without_a_conflict_is_the_sum() -> None:
    rows = np.abs(gradients())
    np.testing.assert_allclose(direction("pcgrad", rows), rows.sum(axis=0), rtol=1e-9)


def test_mgda_of_two_tasks_is_the_closed_form() -> None:
    a, b = rows = gradients(num_tasks=2)
    share = np.clip(((b - a) @ b) / ((a - b) @ (a - b)), 0, 1)
    np.testing.assert_allclose(direction("mgda", rows), 2 * (share * a + (1 - share) * b), rtol=1e-9)


def test_mgda_lowers_every_loss() -> None:
    rows = gradients()
    found = direction("mgda", rows)
    best = convex(lambda w: w @ rows @ rows.T @ w, lambda w: 2 * rows @ rows.T @ w, 3, ON_THE_SIMPLEX) @ rows * 3
    assert np.linalg.norm(found) <= np.linalg.norm(best) * (1 + 1e-6)
    assert (rows @ found >= -1e-6).all()


def test_cagrad_helps_the_worst_off_within_the_ball() -> None:
    rows, c = gradients(), 0.5
    mean = rows.mean(axis=0)
    phi = c**2 * mean @ mean

    def dual(w: Floats) -> float:
        g = w @ rows
        return float(g @ mean + np.sqrt(phi) * np.linalg.norm(g))

    w = minimize(dual, np.full(3, 1 / 3), bounds=[(0, 1)] * 3, constraints=[ON_THE_SIMPLEX], options={"ftol": 1e-15}).x
    g = w @ rows
    expected = 3 * (mean + np.sqrt(phi) * g / np.linalg.norm(g))
    np.testing.assert_allclose(direction("cagrad", rows, cagrad={"c": c}), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(direction("cagrad", rows, cagrad={"c": 0.0}), rows.sum(axis=0), rtol=1e-6)


def test_upgrad_projects_each_gradient_onto_the_directions_that_hurt_nobody() -> None:
    rows = gradients()
    projected = []
    for gradient in rows:
        # min ‖v − g‖² under rows · v ≥ 0
        found = minimize(
            lambda v, g=gradient: ((v - g) ** 2).sum(),
            gradient,
            jac=lambda v, g=gradient: 2 * (v - g),
            constraints={"type": "ineq", "fun": lambda v: rows @ v, "jac": lambda v: rows},
            options={"ftol": 1e-16, "maxiter": 1000},
        )
        projected.append(found.x)
    np.testing.assert_allclose(direction("upgrad", rows), np.sum(projected, axis=0), rtol=1e-5, atol=1e-6)
    assert (rows @ direction("upgrad", rows) >= -1e-6).all()


def test_aligned_mtl_brings_the_axes_to_one_length() -> None:
    rows = gradients()
    values, vectors = np.linalg.eigh(rows @ rows.T)
    balance = np.sqrt(values.min()) * vectors @ np.diag(1 / np.sqrt(values)) @ vectors.T
    np.testing.assert_allclose(weights_of("aligned_mtl", rows), 3 * balance @ np.full(3, 1 / 3), rtol=1e-6)


def test_the_nash_bargain_solves_its_equation() -> None:
    rows = gradients(3)
    w = weights_of("nash_mtl", rows, nash_mtl={"max_norm": 0.0})
    products = w * (rows @ rows.T @ w)
    # The bargain is G Gᵀ w = 1 / w up to a common factor: the method norms the Gramian.
    np.testing.assert_allclose(products / products.mean(), 1.0, rtol=2e-2)
    short = direction("nash_mtl", rows, nash_mtl={"max_norm": 0.1})
    assert np.linalg.norm(short) == pytest.approx(0.1)


@pytest.mark.parametrize("name", BY_GRADIENTS)
def test_gradient_methods_on_equal_or_no_gradients_are_finite(name: str) -> None:
    one = np.ones((3, 4))
    assert np.isfinite(weights_of(name, one)).all()
    assert np.isfinite(weights_of(name, np.zeros((3, 4)))).all()


@pytest.mark.parametrize("name", ["cagrad", "mgda", "aligned_mtl", "upgrad", "pcgrad"])
def test_orthogonal_gradients_of_one_length_are_summed_up_to_a_common_factor(name: str) -> None:
    w = weights_of(name, np.eye(3))
    np.testing.assert_allclose(w, w[0], rtol=1e-3)
    assert 0.9 < w[0] < 1.6


@pytest.mark.parametrize("name", BY_GRADIENTS)
def test_gradients_that_are_all_but_alike_can_be_balanced(name: str) -> None:
    for seed in range(30):
        generator = torch.Generator().manual_seed(seed)
        one = torch.randn(1000, generator=generator)
        rows = torch.stack([one, one * 1.0001, one + 1e-5 * torch.randn(1000, generator=generator)])
        gramian = of_full_rank((rows @ rows.T).double())
        assert np.isfinite(by_gradients(name, 3, options()).weights(gramian).numpy()).all()


@pytest.mark.parametrize("name", BY_LOSSES)
def test_a_task_without_a_loss_in_a_step_leaves_the_others_their_weight(name: str) -> None:
    method = scalar(name, dwa={"every": 1})
    for step in range(1, 4):
        weights = now(method, np.array([0.0, 1.0, 2.0]))
        assert np.isfinite(weights).all() and (weights[1:] > 0.05).all()
        method.learn(step, torch.tensor([0.0, 0.9, 1.9], dtype=torch.float64))


def scalar(name: str, **sections: dict[str, float]) -> ByLosses:
    return by_losses(name, 3, options(**sections))


def now(method: ByLosses, losses: Floats = LOSSES) -> Floats:
    return method.weights(torch.from_numpy(losses)).numpy()


def test_fixed_takes_the_weights_of_the_config_and_equal_takes_none() -> None:
    assert PLAIN["fixed"]({"a": 2.0, "b": 0.5}) == {"a": 2.0, "b": 0.5}
    assert PLAIN["equal"]({"a": 2.0, "b": 0.5}) == {"a": 1.0, "b": 1.0}


def test_uncertainty_weighs_by_learned_variances_and_learns_them() -> None:
    method = scalar("uncertainty")
    (log_variances,) = method.parameters
    log_variances.data = torch.tensor([0.0, 1.0, -2.0])
    np.testing.assert_allclose(now(method), 0.5 * np.exp([0.0, -1.0, 2.0]), rtol=1e-6)
    expected = 0.5 - 0.5 * np.exp([0.0, -1.0, 2.0]) * LOSSES
    np.testing.assert_allclose(log_variances.grad.numpy(), expected, rtol=1e-5)


def test_dynamic_average_follows_the_last_two_epochs() -> None:
    method = scalar("dwa", dwa={"temperature": 2.0, "every": 2})
    epochs = [np.array([[4.0, 4.0, 4.0], [2.0, 2.0, 2.0]]), np.array([[1.0, 2.0, 3.0], [2.0, 2.0, 5.0]])]
    step = 0
    for epoch in epochs:
        for losses in epoch:
            np.testing.assert_allclose(now(method, losses), 1.0)
            step += 1
            method.learn(step, None)
    rates = epochs[1].mean(axis=0) / epochs[0].mean(axis=0)
    np.testing.assert_allclose(now(method), 3 * softmax(rates / 2.0), rtol=1e-9)


def test_random_weights_are_a_softmax_of_mean_one() -> None:
    method = scalar("rlw")
    drawn = [now(method) for _ in range(200)]
    np.testing.assert_allclose(np.sum(drawn, axis=1), 3.0)
    torch.manual_seed(1)
    first = now(method)
    torch.manual_seed(1)
    np.testing.assert_array_equal(now(method), first)
    assert np.std(drawn, axis=0).min() > 0.3


def test_geometric_mean() -> None:
    expected = np.prod(LOSSES) ** (1 / 3) / (3 * LOSSES)
    np.testing.assert_allclose(now(scalar("gls")), expected, rtol=1e-9)
    assert np.isfinite(now(scalar("gls"), np.array([0.0, 1.0, 1.0]))).all()


def test_famo_weighs_by_relative_progress() -> None:
    method = scalar("famo", famo={"learning_rate": 0.1, "weight_decay": 0.0})
    z = np.full(3, 1 / 3)
    c = 1 / (z / LOSSES).sum()
    np.testing.assert_allclose(now(method), 3 * c * z / LOSSES, rtol=1e-6)
    after = LOSSES * np.array([0.5, 0.9, 1.0])
    method.learn(1, torch.from_numpy(after))
    # Adam's first step has the size of its rate, against the sign of the gradient Jᵀ δ of the softmax.
    delta = np.log(LOSSES) - np.log(after)
    gradient = z * (delta - z @ delta)
    logits = -0.1 * np.sign(gradient)
    z = softmax(logits)
    np.testing.assert_allclose(now(method), 3 * (z / LOSSES) / (z / LOSSES).sum(), rtol=1e-4)
    assert now(method)[0] * LOSSES[0] < now(method)[2] * LOSSES[2]  # what fell fast counts less


@pytest.mark.parametrize("name", BY_LOSSES)
def test_what_a_scalar_method_has_learned_survives_a_checkpoint(name: str) -> None:
    torch.manual_seed(0)
    method = scalar(name, dwa={"every": 1})
    for step in range(1, 5):
        now(method, LOSSES * step)
        method.learn(step, torch.from_numpy(LOSSES * step * np.array([0.9, 0.8, 0.99])))
    again = scalar(name, dwa={"every": 1})
    again.restore(method.state())
    torch.manual_seed(0)
    expected = now(method)
    torch.manual_seed(0)
    np.testing.assert_array_equal(now(again), expected)


def test_a_bargain_goes_on_from_a_checkpoint() -> None:
    method = by_gradients("nash_mtl", 3, options())
    for seed in range(3):
        rows = gradients(seed)
        method.weights(torch.from_numpy(rows @ rows.T))
    again = by_gradients("nash_mtl", 3, options())
    again.restore(method.state())
    rows = torch.from_numpy(gradients(7))
    torch.testing.assert_close(again.weights(rows @ rows.T), method.weights(rows @ rows.T), rtol=1e-6, atol=1e-9)
