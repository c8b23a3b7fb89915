"""Matching features directly."""

from __future__ import annotations

from torch import Tensor

from raydistill.losses.numerics import exact


def hint(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of the features.

        Σ_rows mean_channels (student − teacher)²

    The student's features come through a learnt projector to the teacher's number of channels.

    Source: Romero, Ballas, Ebrahimi Kahou, Chassang, Gatta, Bengio, "FitNets: Hints for Thin Deep Nets" (2015),
    section 2.2, equation 3.

    Use it when student and teacher see the same modality and are close in kind; the plainest of the feature losses,
    and one that can cost accuracy where the teacher's features are of no use to a small student, so keep its weight
    small.

    Args:
        student: [batch, channels], projected.
        teacher: [batch, channels].

    Returns:
        A scalar: batch × the mean over rows, so that the caller can divide by a count of rows.
    """
    assert student.shape == teacher.shape
    return (exact(student) - exact(teacher)).square().mean(dim=-1).sum()
