"""Every loss on features against a float64 NumPy version written from its paper, and the invariances papers state."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from raydistill.errors import ConfigError
from raydistill.losses.features.attention import attention_transfer, resample_positions
from raydistill.losses.features.cka import cka
from raydistill.losses.features.contrastive import contrastive
from raydistill.losses.features.registry import FEATURE_LOSSES
from raydistill.losses.features.rkd import rkd_angle, rkd_distance
from raydistill.losses.features.similarity import similarity_preserving

sys.path.insert(0, str(Path(__file__).parent))
import papers

PAPERS: dict[str, Callable[..., Any]] = {
    "hint": papers.hint,
    "attention": papers.attention_transfer,
    "rkd_distance": papers.rkd_distance,
    "rkd_angle": papers.rkd_angle,
    "similarity": papers.similarity_preserving,
    "cka": papers.cka,
    "contrastive": lambda s, t: papers.contrastive(s, t, 0.1),
}
ZERO_AT_AGREEMENT = sorted(set(FEATURE_LOSSES) - {"contrastive"})


def made_up(name: str, seed: int, batch: int = 6) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    positions = (5,) if FEATURE_LOSSES[name].positions else ()
    channels_s = 4 if FEATURE_LOSSES[name].projected else 3
    return generator.normal(0.3, 1, (batch, *positions, channels_s)), generator.normal(-0.2, 2, (batch, *positions, 4))


def value_and_gradient(name: str, student: np.ndarray, teacher: np.ndarray) -> tuple[float, np.ndarray]:
    point = torch.tensor(student, requires_grad=True)
    value = FEATURE_LOSSES[name].function(point, torch.tensor(teacher))
    value.backward()
    assert point.grad is not None and value.dtype == torch.float64 and value.shape == ()
    return value.item(), point.grad.numpy()


def rotation(size: int, seed: int) -> Tensor:
    return torch.tensor(np.linalg.qr(np.random.default_rng(seed).normal(size=(size, size)))[0])


@pytest.mark.parametrize("batch", [3, 6])
@pytest.mark.parametrize("name", FEATURE_LOSSES)
def test_value_and_gradient_are_the_papers(name: str, batch: int) -> None:
    student, teacher = made_up(name, 0, batch)
    value, gradient = value_and_gradient(name, student, teacher)
    assert value == pytest.approx(PAPERS[name](student, teacher), rel=1e-9)
    expected = papers.complex_step(lambda point: PAPERS[name](point, teacher), student)
    np.testing.assert_allclose(gradient, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())
    if name == "hint":
        np.testing.assert_allclose(gradient, papers.hint_gradient(student, teacher), rtol=1e-9)


@pytest.mark.parametrize("name", ["rkd_distance", "rkd_angle"])
def test_the_far_branch_of_hubers_loss_is_the_papers(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # The student has one row far away, the teacher another.
    student, teacher = made_up(name, 1)
    student[0], teacher[5] = 100.0, 100.0
    far: list[bool] = []
    plain = papers.huber
    monkeypatch.setattr(papers, "huber", lambda x, y: (far.append(abs(x - y) > 1), plain(x, y))[1])
    value, gradient = value_and_gradient(name, student, teacher)
    assert value == pytest.approx(PAPERS[name](student, teacher), rel=1e-9)
    assert any(far) and not all(far)
    expected = papers.complex_step(lambda point: PAPERS[name](point, teacher), student)
    np.testing.assert_allclose(gradient, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())


@pytest.mark.parametrize("name", FEATURE_LOSSES)
def test_gradcheck(name: str) -> None:
    student, teacher = (torch.tensor(one, requires_grad=True) for one in made_up(name, 2))
    assert torch.autograd.gradcheck(FEATURE_LOSSES[name].function, (student, teacher))


def test_contrastive_takes_its_temperature() -> None:
    student, teacher = made_up("contrastive", 3)
    value = contrastive(torch.tensor(student), torch.tensor(teacher), temperature=0.7)
    assert value.item() == pytest.approx(papers.contrastive(student, teacher, 0.7), rel=1e-9)


@pytest.mark.parametrize("name", ZERO_AT_AGREEMENT)
def test_agreement_is_zero_with_zero_gradient(name: str) -> None:
    _, teacher = made_up(name, 4)
    value, gradient = value_and_gradient(name, teacher, teacher)
    assert abs(value) < 1e-12
    assert np.abs(gradient).max() < 1e-12


def test_contrastive_prefers_the_rows_own_teacher_features() -> None:
    _, teacher = made_up("contrastive", 5)
    own = value_and_gradient("contrastive", teacher, teacher)[0]
    others = value_and_gradient("contrastive", np.roll(teacher, 1, axis=0), teacher)[0]
    assert own < others - 1


@pytest.mark.parametrize("name", sorted(set(FEATURE_LOSSES) - {"hint", "attention", "contrastive"}))
def test_relations_do_not_see_a_rotation_of_either_side(name: str) -> None:
    student, teacher = (torch.tensor(one) for one in made_up(name, 6))
    loss = FEATURE_LOSSES[name].function
    turned = loss(student @ rotation(3, 7), teacher @ rotation(4, 8))
    torch.testing.assert_close(turned, loss(student, teacher))
    assert turned.item() > 1e-3


@pytest.mark.parametrize("loss", [rkd_distance, rkd_angle, cka])
def test_relations_do_not_see_a_scale_or_a_place(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    student, teacher = (torch.tensor(one) for one in made_up("cka", 9))
    torch.testing.assert_close(loss(3.0 * student + 5.0, 0.2 * teacher - 1.0), loss(student, teacher))


@pytest.mark.parametrize("loss", [similarity_preserving, attention_transfer])
def test_normalised_losses_do_not_see_a_scale(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    student, teacher = (torch.tensor(one) for one in made_up("attention" if loss is attention_transfer else "cka", 10))
    torch.testing.assert_close(loss(3.0 * student, 0.2 * teacher), loss(student, teacher))


def test_equal_rows_have_no_angle_and_are_compared_with_others_only() -> None:
    student = torch.tensor([[1.0, 2.0], [1.0, 2.0], [3.0, 0.0]], requires_grad=True)
    teacher = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    # Cosines at the three vertices, each met twice among the six triples: the student's 0, 0 (no way) and 1.
    expected = 3 * 2 * (0.0 + (0.5**0.5) ** 2 / 2 + (1 - 0.5**0.5) ** 2 / 2) / 6
    loss = rkd_angle(student, teacher)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    (gradient,) = torch.autograd.grad(loss, student)
    assert gradient.isfinite().all()


def test_cka_is_not_invariant_to_every_linear_map() -> None:
    student = torch.tensor(made_up("cka", 11)[0])
    assert cka(student @ torch.diag(torch.tensor([1.0, 5.0, 0.1], dtype=torch.float64)), student).item() > 0.01


@pytest.mark.parametrize("name", FEATURE_LOSSES)
def test_a_permutation_of_the_rows_permutes_the_gradient(name: str) -> None:
    student, teacher = made_up(name, 12)
    order = np.array([4, 2, 0, 5, 1, 3])
    plain, permuted = (
        value_and_gradient(name, student, teacher),
        value_and_gradient(name, student[order], teacher[order]),
    )
    assert permuted[0] == pytest.approx(plain[0], rel=1e-9)
    np.testing.assert_allclose(permuted[1], plain[1][order], rtol=1e-9, atol=1e-12)


def test_positions_are_resampled_by_averages() -> None:
    features = torch.arange(16.0).reshape(1, 16, 1).repeat(2, 1, 3) * torch.tensor([1.0, 10.0, 100.0])
    line = resample_positions(features, 4, square=False)
    assert line[1, :, 1].tolist() == [15.0, 55.0, 95.0, 135.0]
    # Of a picture of 4 × 4, each quarter's mean.
    picture = resample_positions(features, 4, square=True)
    assert picture[0, :, 0].tolist() == [2.5, 4.5, 10.5, 12.5]
    assert picture.shape == (2, 4, 3)
    for square in (False, True):
        torch.testing.assert_close(resample_positions(features, 16, square), features)
    assert resample_positions(features, 36, square=True).shape == (2, 36, 3)
    assert resample_positions(features.bfloat16(), 4, square=False).dtype == torch.float32
    for count in (5, 16):
        with pytest.raises(ConfigError, match=f"{count} positions"):
            resample_positions(features[:, :count], 5, square=True)


def test_the_registry_says_what_each_loss_needs() -> None:
    assert list(FEATURE_LOSSES) == list(PAPERS)
    assert {name for name, loss in FEATURE_LOSSES.items() if loss.projected} == {"hint", "contrastive"}
    assert {name for name, loss in FEATURE_LOSSES.items() if loss.positions} == {"attention"}


@pytest.mark.parametrize("name", FEATURE_LOSSES)
def test_docstrings_have_the_layout_that_the_method_pages_are_made_from(name: str) -> None:
    paragraphs = (inspect.getdoc(FEATURE_LOSSES[name].function) or "").split("\n\n")
    assert "\n" not in paragraphs[0]
    assert all(line.startswith("    ") for line in paragraphs[1].splitlines())
    starts = [paragraph.split(":")[0].split(" when ")[0] for paragraph in paragraphs[3:]]
    assert starts == ["Source", "Use it", "Args", "Returns"]
