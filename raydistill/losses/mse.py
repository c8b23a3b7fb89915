"""Matching logits directly."""

from __future__ import annotations

from torch import Tensor

from raydistill.losses.numerics import exact, mean_of_kept, unknown_classes


def mse(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Mean squared difference of the raw logits.

        Σ_rows mean_c (student_c − teacher_c)²

    The temperature is accepted like everywhere and ignored: there is no softmax. For logits of zero mean, half of
    this is the limit of `forward_kl` as T → ∞. Unlike the others it is not blind to a shift of a row's logits.

    Source: Kim, Oh, Kim, Cho, Yun, "Comparing Kullback-Leibler Divergence and Mean Squared Error Loss in Knowledge
    Distillation" (2021), section 3; first Ba and Caruana, "Do Deep Nets Really Need to be Deep?" (2014), section 2.

    Use it when there is no budget to search a temperature and every logit is at hand; with teachers whose logits
    differ in scale, or a student too small to reach theirs, prefer `kl` or standardised logits.

    Args:
        student_logits: [batch, num_classes], raw.
        teacher_logits: [batch, num_classes], raw.
        temperature: ignored.

    Returns:
        A scalar, summed over rows.
    """
    assert student_logits.shape == teacher_logits.shape
    unknown = unknown_classes(teacher_logits)
    difference = exact(student_logits) - exact(teacher_logits)
    return mean_of_kept(difference.masked_fill(unknown, 0.0).square(), unknown).sum()
