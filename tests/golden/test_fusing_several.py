"""Fusing teachers of several labels and of numbers, against formulas written out in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import expit, logit

from raydistill.config.distill import DistillConfig, FusionName, FusionOptions
from raydistill.fusion.fuser import Fused, ensemble, make_fuser, without_labels
from raydistill.fusion.standing import Standing, asked_about, logit_scale
from raydistill.losses.numerics import UNKNOWN
from raydistill.min_norm import smallest_norm

Floats = NDArray[np.float64]
K, ROWS, LABELS = 3, 6, 4
OF_LABELS: list[FusionName] = ["mean_logits", "mean_probabilities", "best", "entropy", "confidence", "aekd", "gate"]
OF_NUMBERS: list[FusionName] = ["mean_logits", "mean_probabilities", "best", "confidence", "aekd"]
AS_THEY_ARE = FusionOptions(normalize_scales=False)


def made_up(seed: int = 0) -> Floats:
    return np.random.default_rng(seed).normal(0, 2, (K, ROWS, LABELS))


def labels_of(kind: str) -> Floats:
    labels = np.random.default_rng(5).normal(0, 1, (ROWS, LABELS))
    labels = (labels > 0).astype(float) if kind == "multilabel" else labels
    labels[0] = np.nan
    labels[1, :2] = np.nan
    return labels


def fuse(
    kind: str, strategy: FusionName, said: Floats, temperature: float = 1.0, scales: tuple[float, ...] = (1, 1, 1),
    **distill: object,
) -> Fused:  # fmt: skip
    config = DistillConfig(fusion=strategy, **{"fusion_options": AS_THEY_ARE, **distill})  # type: ignore[arg-type]
    standings = [Standing(f"t{k}", 0.5 + 0.1 * (k == 1), scales[k], kind) for k in range(len(said))]  # type: ignore[arg-type]
    fuser = make_fuser(config, "it", standings, LABELS).train()
    student = torch.from_numpy(made_up(9)[0])
    return fuser(torch.from_numpy(said), temperature, student, torch.from_numpy(labels_of(kind)))


def test_the_mean_of_logits_and_fixed_weights() -> None:
    said = made_up()
    np.testing.assert_allclose(fuse("multilabel", "mean_logits", said).logits, said.mean(axis=0), atol=1e-9)
    share = np.array([0.75, 0.0, 0.25])[:, None, None]
    for kind in ("multilabel", "regression"):
        weighted = fuse(kind, "mean_logits", said, teacher_weights={"t0": 3.0, "t1": 0.0}).logits
        np.testing.assert_allclose(weighted, (share * said).sum(axis=0), atol=1e-9)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_mean_of_probabilities_is_the_mean_label_by_label(temperature: float) -> None:
    said = made_up()
    expected = temperature * logit(expit(said / temperature).mean(axis=0))
    found = fuse("multilabel", "mean_probabilities", said, temperature).logits
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_numbers_have_one_mean_and_no_scale() -> None:
    said = made_up()
    for strategy in ("mean_logits", "mean_probabilities"):
        found = fuse("regression", strategy, said, 7.0, scales=(1, 5, 9), fusion_options=FusionOptions()).logits
        np.testing.assert_allclose(found, said.mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(fuse("regression", "best", said).logits, said[1], rtol=1e-9)


def test_entropy_weighs_each_label() -> None:
    said = made_up()
    p = expit(said)
    entropy = -(p * np.log(p) + (1 - p) * np.log(1 - p))
    weights = (1 - entropy / entropy.sum(axis=0)) / (K - 1)
    fused = fuse("multilabel", "entropy", said)
    np.testing.assert_allclose(fused.weights, weights, rtol=1e-9)
    np.testing.assert_allclose(fused.logits, logit((weights * p).sum(axis=0)), rtol=1e-6)


def test_confidence_weighs_each_known_label_by_the_loss() -> None:
    said, labels = made_up(), labels_of("multilabel")
    right = np.where(labels == 1, expit(said), expit(-said))
    weights = (1 - (1 / right) / (1 / right).sum(axis=0)) / (K - 1)
    expected = np.where(np.isnan(labels), 1 / K, weights)
    np.testing.assert_allclose(fuse("multilabel", "confidence", said).weights, expected, rtol=1e-9)


def test_confidence_of_numbers_weighs_rows_by_half_the_squared_error() -> None:
    said, labels = made_up() / 2, labels_of("regression")
    with np.errstate(invalid="ignore"):
        losses = np.array([[0.5 * np.nanmean((row - label) ** 2) if not np.isnan(label).all() else 0.0
                            for row, label in zip(each, labels, strict=True)] for each in said])  # fmt: skip
    weights = (1 - np.exp(losses) / np.exp(losses).sum(axis=0)) / (K - 1)
    weights[:, 0] = 1 / K  # no label there
    found = fuse("regression", "confidence", said)
    np.testing.assert_allclose(found.weights[..., 0], weights, rtol=1e-6)
    np.testing.assert_allclose(found.logits, (weights[..., None] * said).sum(axis=0), rtol=1e-6)


@pytest.mark.parametrize("kind", ["multilabel", "regression"])
def test_aekd_has_the_shortest_mean_of_the_losses_gradients(kind: str) -> None:
    said, student, temperature = made_up(), made_up(9)[0], 2.0
    if kind == "multilabel":
        gradients = temperature * (expit(student / temperature) - expit(said / temperature))
    else:
        gradients = student - said
    mean = gradients.mean(axis=1)
    expected = smallest_norm(mean @ mean.T, 0.6)
    found = fuse(kind, "aekd", said, temperature).weights
    np.testing.assert_allclose(found[:, 0, 0], expected, atol=1e-6)
    assert (found == found[:, :1, :1]).all()


def test_the_gate_begins_even_and_learns_from_the_known_labels() -> None:
    said = made_up().astype(np.float32)
    fused = fuse("multilabel", "gate", said)
    np.testing.assert_allclose(fused.weights, 1 / K, rtol=1e-6)
    labels = labels_of("multilabel")
    right = np.where(labels == 1, expit(said), expit(-said)).mean(axis=0)
    expected = -np.log(right[~np.isnan(labels)]).sum() / LABELS
    assert fused.gate_loss is not None and fused.gate_loss.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("strategy", [each for each in OF_LABELS if each != "aekd"])
def test_each_label_is_fused_as_a_task_of_its_own(strategy: FusionName) -> None:
    """`aekd` alone gives a teacher one weight for all."""
    said = made_up()
    together = fuse("multilabel", strategy, said).logits.detach()
    order = np.random.default_rng(0).permutation(ROWS)
    labels = labels_of("multilabel")
    for at in range(LABELS):
        fuser = make_fuser(
            DistillConfig(fusion=strategy, fusion_options=AS_THEY_ARE), "it",
            [Standing(f"t{k}", 0.5 + 0.1 * (k == 1), 1.0, "multilabel") for k in range(K)], 1,
        ).eval()  # fmt: skip
        alone = fuser(
            torch.from_numpy(said[:, order, at : at + 1]), 1.0, torch.zeros(ROWS, 1),
            torch.from_numpy(labels[order, at : at + 1]),
        ).logits.detach()  # fmt: skip
        torch.testing.assert_close(alone[:, 0], together[torch.from_numpy(order), at])


@pytest.mark.parametrize(
    ("kind", "strategy"), [*(("multilabel", s) for s in OF_LABELS), *(("regression", s) for s in OF_NUMBERS)]
)
def test_silent_teachers_and_unknown_labels_leave_their_weight_to_the_others(kind: str, strategy: FusionName) -> None:
    said = made_up()
    said[0, 3:] = np.nan
    said[1, :, 1] = UNKNOWN
    said[:, :, 2] = np.where(np.isnan(said[:, :, 2]), np.nan, UNKNOWN)
    fused = fuse(kind, strategy, said)
    logits, weights = fused.logits.detach(), fused.weights.detach()
    assert torch.isfinite(logits).all()
    known = [0, 1, 3]
    assert (logits[:, 2] <= UNKNOWN).all() and (logits[:, known] > -1e3).all()
    torch.testing.assert_close(weights[..., known].sum(dim=0), torch.ones_like(weights[0][:, known]))
    assert (weights[0, 3:] == 0).all() and (weights[1, :, 1] == 0).all()


@pytest.mark.parametrize("kind", ["multilabel", "regression"])
def test_one_teacher_is_itself_and_what_it_does_not_know_stays_unknown(kind: str) -> None:
    said = made_up()[:1]
    said[0, :, 3] = UNKNOWN
    np.testing.assert_allclose(fuse(kind, "mean_probabilities", said, 3.0).logits, said[0], rtol=1e-9)


def test_scales_of_logits_are_brought_together() -> None:
    said = made_up()
    said[0] *= 10
    scales = tuple(logit_scale(each, "multilabel") for each in said)
    np.testing.assert_allclose(scales, np.abs(said).mean(axis=(1, 2)) / 2, rtol=1e-9)
    factors = np.mean(scales) / np.array(scales)
    found = fuse("multilabel", "mean_logits", said, scales=scales, fusion_options=FusionOptions()).logits
    np.testing.assert_allclose(found, (factors[:, None, None] * said).mean(axis=0), rtol=1e-6)
    assert logit_scale(said[0], "regression") == 1.0


def test_trust_is_by_label_and_survives_a_checkpoint() -> None:
    config = DistillConfig(fusion="entropy", fusion_options=AS_THEY_ARE)
    standings = [Standing(f"t{k}", 0.5, 1.0, "multilabel") for k in range(K)]
    fuser, again = (make_fuser(config, "it", standings, LABELS).train() for _ in range(2))
    fused = fuser(
        torch.from_numpy(made_up()), 1.0, torch.zeros(ROWS, LABELS), torch.from_numpy(labels_of("multilabel"))
    )
    trust = fuser.trust()
    for k in range(K):
        np.testing.assert_allclose(trust[f"t{k}"], fused.weights[k].mean(dim=0), rtol=1e-6)
    again.load_state_dict(fuser.state_dict())
    np.testing.assert_equal(again.trust(), trust)


def test_ensembles_of_a_whole_split() -> None:
    said = {f"t{k}": each.astype(np.float16) for k, each in enumerate(made_up())}
    for kind in ("multilabel", "regression"):
        standings = [Standing(name, 0.5, 1.0, kind) for name in said]  # type: ignore[arg-type]
        found = ensemble(DistillConfig(fusion="confidence"), "it", standings, said)
        expected = ensemble(DistillConfig(fusion="mean_probabilities"), "it", standings, said)
        np.testing.assert_array_equal(found, expected)
        assert found.shape == (ROWS, LABELS) and found.dtype == np.float32
    assert without_labels("regression") == ("mean_logits", "best")


def test_a_teacher_is_not_asked_about_labels_that_it_does_not_know() -> None:
    logits = np.array([[1.0, UNKNOWN], [0.0, UNKNOWN]])
    found = asked_about(logits, np.array([[1.0, 0.0], [np.nan, 1.0]]))
    np.testing.assert_array_equal(found, [[1, np.nan], [np.nan, np.nan]])
