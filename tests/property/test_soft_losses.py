"""What must hold of every loss for any numbers: finite value and gradient, whatever the shape, type and pattern."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

from raydistill.losses.binary import hard_binary_cross_entropy, soft_binary_cross_entropy
from raydistill.losses.features.registry import FEATURE_LOSSES
from raydistill.losses.hard import hard_cross_entropy
from raydistill.losses.numerics import UNKNOWN
from raydistill.losses.regression import hard_regression, soft_regression
from raydistill.losses.soft_losses import SOFT_LOSSES, soft_loss

TEMPERATURES = st.floats(0.5, 20)
# Steps of 1/16 for float16 alone: a gradient through a spread of 1e-5 is right and beyond float16's 65504.
ANY = st.one_of(st.sampled_from([-1e4, 1e4, 0.0, 1.0]), st.floats(-1e4, 1e4), st.floats(-1.0, 1.0))
STEPS = st.one_of(st.sampled_from([-1e4, 1e4, 0.0]), st.integers(-160, 160).map(lambda step: step / 16))
MILD = st.integers(-320, 320).map(lambda step: step / 16)
DTYPES = st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16])
NAMES = pytest.mark.parametrize("name", SOFT_LOSSES)
STANDARDIZED = pytest.mark.parametrize("standardized", [False, True])


@st.composite
def cases(draw: st.DrawFn, elements: st.SearchStrategy[float] | None = None, min_batch: int = 0) -> dict[str, Any]:
    """Logits of student and teacher, labels, a mask of unknown classes, a temperature and a float type."""
    dtype = draw(DTYPES) if elements is None else torch.float64
    if elements is None:
        elements = STEPS if dtype == torch.float16 else ANY
    shape = draw(st.integers(min_batch, 5)), draw(st.integers(1, 6))
    same = draw(st.booleans())
    student = draw(arrays(np.float64, shape, elements=elements))
    teacher = student if same else draw(arrays(np.float64, shape, elements=elements))
    return {
        "student": torch.tensor(student).to(dtype),
        "teacher": torch.tensor(teacher).to(dtype),
        "labels": torch.tensor(draw(arrays(np.int64, shape[0], elements=st.integers(-1, shape[1] - 1)))),
        "mask": torch.tensor(draw(arrays(np.bool_, shape))),
        "temperature": draw(TEMPERATURES),
    }


def value_and_gradient(name: str, case: dict[str, Any], standardized: bool) -> tuple[Tensor, Tensor]:
    student = case["student"].clone().requires_grad_()
    value = soft_loss(name, student, case["teacher"], case["temperature"], case["labels"], {}, standardized)
    (gradient,) = torch.autograd.grad(value, student)
    return value.detach(), gradient


@STANDARDIZED
@NAMES
@given(case=cases())
def test_value_and_gradient_are_finite_and_unknown_classes_have_none(
    name: str, standardized: bool, case: dict[str, Any]
) -> None:
    masked = {**case, "teacher": case["teacher"].masked_fill(case["mask"], UNKNOWN)}
    for told in (case, masked):
        value, gradient = value_and_gradient(name, told, standardized)
        assert value.isfinite() and gradient.isfinite().all()
        assert value.dtype == (torch.float64 if case["student"].dtype == torch.float64 else torch.float32)
        assert gradient.dtype == case["student"].dtype
    assert not gradient[case["mask"]].any()


@STANDARDIZED
@NAMES
@given(case=cases())
def test_half_precision_is_float32_of_the_same_numbers(name: str, standardized: bool, case: dict[str, Any]) -> None:
    """The value exactly; the gradient to its own rounding on the way out, 2⁻⁸ (bfloat16) or 2⁻¹⁰ (float16)."""
    wide = torch.float64 if case["student"].dtype == torch.float64 else torch.float32
    value, gradient = value_and_gradient(name, case, standardized)
    widened = {**case, "student": case["student"].to(wide), "teacher": case["teacher"].to(wide)}
    expected, expected_gradient = value_and_gradient(name, widened, standardized)
    assert value.equal(expected)
    rounding = {torch.bfloat16: 2**-8, torch.float16: 2**-10}.get(gradient.dtype, 0.0)
    torch.testing.assert_close(gradient.to(wide), expected_gradient, rtol=rounding, atol=1e-7 if rounding else 0.0)


@STANDARDIZED
@NAMES
@given(case=cases(MILD, min_batch=1), known=st.lists(st.integers(0, 5), min_size=1, unique=True))
def test_a_mask_that_all_rows_share_leaves_the_loss_on_the_other_columns(
    name: str, standardized: bool, case: dict[str, Any], known: list[int]
) -> None:
    num_classes = case["student"].shape[1]
    known = sorted({one % num_classes for one in known})
    mask = torch.ones(num_classes, dtype=torch.bool)
    mask[known] = False
    masked = {**case, "teacher": case["teacher"].masked_fill(mask, UNKNOWN)}
    labels = torch.tensor([known.index(one) if one in known else -1 for one in case["labels"].tolist()])
    alone = {**case, "student": case["student"][:, known], "teacher": case["teacher"][:, known], "labels": labels}
    value, gradient = value_and_gradient(name, masked, standardized)
    expected, expected_gradient = value_and_gradient(name, alone, standardized)
    torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(gradient[:, known], expected_gradient, rtol=1e-6, atol=1e-9)
    assert not gradient[:, mask].any()


@STANDARDIZED
@NAMES
@given(case=cases(MILD))
def test_agreement_costs_nothing_and_disagreement_never_pays(
    name: str, standardized: bool, case: dict[str, Any]
) -> None:
    assert value_and_gradient(name, case, standardized)[0] >= -1e-9
    if name != "nkd":
        value, gradient = value_and_gradient(name, {**case, "student": case["teacher"]}, standardized)
        assert abs(value) < 1e-9 and not (gradient.abs() > 1e-7).any()


@STANDARDIZED
@pytest.mark.parametrize("name", sorted(set(SOFT_LOSSES) - {"dist"}))
@given(case=cases(MILD))
def test_the_loss_is_the_sum_of_its_rows_alone(name: str, standardized: bool, case: dict[str, Any]) -> None:
    value, _ = value_and_gradient(name, case, standardized)
    total = torch.zeros((), dtype=torch.float64)
    for i in range(len(case["student"])):
        row = {**case, **{each: case[each][i : i + 1] for each in ("student", "teacher", "labels")}}
        total += value_and_gradient(name, row, standardized)[0]
    torch.testing.assert_close(value, total, rtol=1e-9, atol=1e-9)


@NAMES
@given(case=cases(MILD), shift=st.floats(-50, 50))
def test_a_shift_changes_nothing(name: str, case: dict[str, Any], shift: float) -> None:
    """Of the raw logits; `mse` sees it, unless they are standardised."""
    moved = {**case, "student": case["student"] + shift}
    plain, shifted = (value_and_gradient(name, one, standardized=name == "mse")[0] for one in (case, moved))
    torch.testing.assert_close(shifted, plain, rtol=1e-6, atol=1e-6)


@given(case=cases())
def test_losses_of_other_tasks_are_finite(case: dict[str, Any]) -> None:
    student, mask = case["student"].requires_grad_(), case["mask"]
    yes = (case["teacher"] > 0).float().masked_fill(mask, torch.nan)
    numbers = case["teacher"].masked_fill(mask, torch.nan)
    values = {
        "soft binary": soft_binary_cross_entropy(student, case["teacher"], case["temperature"]),
        "unknown": soft_binary_cross_entropy(student, case["teacher"].masked_fill(mask, UNKNOWN), 2.0),
        "hard binary": hard_binary_cross_entropy(student, yes),
        "soft regression": soft_regression(student, numbers, case["temperature"]),
        "hard regression": hard_regression(student, numbers),
        "hard": hard_cross_entropy(student, case["labels"]),
    }
    for name, value in values.items():
        (gradient,) = torch.autograd.grad(value, student)
        assert value.isfinite() and gradient.isfinite().all(), name
        assert value.dtype == (torch.float64 if student.dtype == torch.float64 else torch.float32), name
        if name not in ("soft binary", "hard"):
            assert not gradient[mask].any(), name


@st.composite
def features(draw: st.DrawFn, name: str) -> tuple[Tensor, Tensor]:
    """Of any batch, with rows that repeat, channels that are constant, and zeros."""
    dtype = draw(st.sampled_from([torch.float32, torch.float64, torch.bfloat16]))
    needs = FEATURE_LOSSES[name]
    batch, positions = draw(st.integers(0, 5)), (draw(st.integers(1, 4)),) if needs.positions else ()
    channels_t = draw(st.integers(1, 4))
    channels_s = channels_t if needs.projected else draw(st.integers(1, 4))
    student = draw(arrays(np.float64, (batch, *positions, channels_s), elements=ANY))
    teacher = draw(arrays(np.float64, (batch, *positions, channels_t), elements=ANY))
    for side in (student, teacher):
        if batch > 1 and draw(st.booleans()):
            side[1] = side[0]
        if batch and draw(st.booleans()):
            side[:, ..., 0] = side[0, ..., 0]
    return torch.tensor(student).to(dtype), torch.tensor(teacher).to(dtype)


@pytest.mark.parametrize("name", FEATURE_LOSSES)
@given(data=st.data())
def test_feature_losses_are_finite(name: str, data: st.DataObject) -> None:
    student, teacher = data.draw(features(name))
    student.requires_grad_()
    pairs = [(student, teacher)]
    if student.shape == teacher.shape:
        pairs.append((student, student.detach()))
    for pair in pairs:
        value = FEATURE_LOSSES[name].function(*pair)
        (gradient,) = torch.autograd.grad(value, student)
        assert value.isfinite() and gradient.isfinite().all()
        assert value.dtype == (torch.float64 if student.dtype == torch.float64 else torch.float32)
        assert value > -1e-4
    if len(student) <= 1 and name not in ("hint", "attention") and student.any() and teacher.any():
        # Nothing is related to a single row; rounding is all that may be left. (A row of zeros is no direction.)
        assert abs(value) < 1e-5 and (gradient.abs() < 1e-5).all()


@pytest.mark.parametrize("name", FEATURE_LOSSES)
def test_feature_losses_are_not_rounded_by_autocast(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    shape = (6, 3, 4) if FEATURE_LOSSES[name].positions else (6, 4)
    student, teacher = torch.randn(2, *shape, generator=generator)
    plain = FEATURE_LOSSES[name].function(student, teacher)
    with torch.autocast("cpu", torch.bfloat16):
        inside = FEATURE_LOSSES[name].function(student, teacher)
    assert inside.dtype == torch.float32 and inside.equal(plain)


@NAMES
def test_soft_losses_are_not_rounded_by_autocast(name: str) -> None:
    student, teacher = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, -1, 2, 3, -1])
    for standardized in (False, True):
        plain = soft_loss(name, student, teacher, 2.0, labels, {}, standardized)
        with torch.autocast("cpu", torch.bfloat16):
            inside = soft_loss(name, student, teacher, 2.0, labels, {}, standardized)
        assert inside.dtype == torch.float32 and inside.equal(plain)
