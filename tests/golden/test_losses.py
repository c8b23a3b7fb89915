"""Every loss against a float64 NumPy version written from its paper."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from raydistill.losses.hard import hard_cross_entropy
from raydistill.losses.soft import soft_kl_divergence


def softmax(logits: np.ndarray) -> np.ndarray:
    exponents = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponents / exponents.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 20.0])
def test_soft_loss_is_hintons_formula(temperature: float) -> None:
    generator = np.random.default_rng(0)
    student, teacher = generator.normal(0, 3, (2, 7, 5))
    p, q = softmax(teacher / temperature), softmax(student / temperature)
    expected = temperature**2 * (p * (np.log(p) - np.log(q))).sum()
    actual = soft_kl_divergence(torch.tensor(student), torch.tensor(teacher), temperature)
    assert actual.item() == pytest.approx(expected, rel=1e-5)


def test_soft_loss_of_a_hand_computed_pair() -> None:
    # p = (3/4, 1/4), q = (1/2, 1/2): KL = 3/4 ln 3/2 + 1/4 ln 1/2
    teacher = torch.log(torch.tensor([[3.0, 1.0]]))
    expected = 0.75 * np.log(1.5) + 0.25 * np.log(0.5)
    assert soft_kl_divergence(torch.zeros(1, 2), teacher, 1.0).item() == pytest.approx(expected, rel=1e-6)


def test_soft_gradient_tends_to_centred_logit_matching_as_temperature_grows() -> None:
    # Hinton et al. (2015), section 2.1: with T² and T → ∞ the gradient is (z − v)/N for logits of zero mean.
    generator = np.random.default_rng(1)
    student, teacher = generator.normal(0, 1, (2, 1, 6))
    student -= student.mean()
    teacher -= teacher.mean()
    logits = torch.tensor(student, dtype=torch.float32, requires_grad=True)
    soft_kl_divergence(logits, torch.tensor(teacher), 300.0).backward()
    assert logits.grad is not None
    np.testing.assert_allclose(logits.grad.numpy(), (student - teacher) / 6, atol=2e-3)


def test_hard_loss_sums_over_labelled_rows_only() -> None:
    generator = np.random.default_rng(2)
    logits = generator.normal(0, 2, (4, 3))
    labels = np.array([2, -1, 0, -1])
    probabilities = softmax(logits)
    expected = -np.log(probabilities[0, 2]) - np.log(probabilities[2, 0])
    actual = hard_cross_entropy(torch.tensor(logits), torch.tensor(labels))
    assert actual.item() == pytest.approx(expected, rel=1e-6)


def test_hard_loss_without_any_label_is_zero_with_zero_gradient() -> None:
    logits = torch.randn(3, 4, requires_grad=True)
    loss = hard_cross_entropy(logits, torch.full((3,), -1))
    loss.backward()
    assert loss.item() == 0.0
    assert logits.grad is not None and not logits.grad.any()
