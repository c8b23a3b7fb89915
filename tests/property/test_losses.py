"""What must hold for any logits."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from raydistill.losses.soft import soft_kl_divergence

LOGITS = arrays(np.float64, (3, 5), elements=st.floats(-20, 20))
TEMPERATURES = st.floats(0.5, 10)


def loss_of(student: np.ndarray, teacher: np.ndarray, temperature: float) -> float:
    return soft_kl_divergence(torch.tensor(student), torch.tensor(teacher), temperature).item()


@given(LOGITS, TEMPERATURES)
def test_equal_logits_have_zero_loss_and_zero_gradient(logits: np.ndarray, temperature: float) -> None:
    student = torch.tensor(logits, dtype=torch.float32, requires_grad=True)
    loss = soft_kl_divergence(student, torch.tensor(logits, dtype=torch.float32), temperature)
    loss.backward()
    assert abs(loss.item()) < 1e-4
    assert student.grad is not None
    assert student.grad.abs().max().item() < 1e-4 * temperature


@given(LOGITS, LOGITS, TEMPERATURES, st.floats(-50, 50))
def test_a_shift_of_all_logits_changes_nothing(
    student: np.ndarray, teacher: np.ndarray, temperature: float, shift: float
) -> None:
    plain = loss_of(student, teacher, temperature)
    assert np.isclose(loss_of(student + shift, teacher - shift, temperature), plain, rtol=1e-3, atol=1e-3)


@given(LOGITS, LOGITS, TEMPERATURES, st.permutations(range(5)))
def test_a_permutation_of_classes_changes_nothing(
    student: np.ndarray, teacher: np.ndarray, temperature: float, order: list[int]
) -> None:
    plain = loss_of(student, teacher, temperature)
    assert np.isclose(loss_of(student[:, order], teacher[:, order], temperature), plain, rtol=1e-4, atol=1e-4)


@given(LOGITS, LOGITS, TEMPERATURES)
def test_never_negative(student: np.ndarray, teacher: np.ndarray, temperature: float) -> None:
    assert loss_of(student, teacher, temperature) > -1e-3
