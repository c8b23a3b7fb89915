"""Losses of regression tasks."""

from __future__ import annotations

from torch import Tensor

from raydistill.losses.numerics import exact, mean_of_kept


def _half_squared_error(outputs: Tensor, wanted: Tensor) -> Tensor:
    assert outputs.shape == wanted.shape
    missing = wanted.isnan()
    difference = exact(outputs) - exact(wanted).masked_fill(missing, 0.0)
    return 0.5 * mean_of_kept(difference.square(), missing).sum()


def soft_regression(student_outputs: Tensor, teacher_outputs: Tensor, temperature: float) -> Tensor:
    """Half the squared difference between the outputs of student and teacher.

        Σ_rows mean_outputs ½ (student − teacher)²

    The temperature is accepted like everywhere and ignored: there is no distribution to temper. NaN marks an output
    that no teacher gives.

    Source: Ba and Caruana, "Do Deep Nets Really Need to be Deep?" (2014), section 2.

    Use it when a task predicts numbers; bring outputs of different units to about unit variance first, as the
    largest would decide alone, and expect less gain than in classification: one number says little beyond the label.

    Args:
        student_outputs: [batch, num_outputs], in the task's standardised units.
        teacher_outputs: [batch, num_outputs], in the same units; NaN marks a missing one.
        temperature: ignored.

    Returns:
        A scalar, summed over rows.
    """
    return _half_squared_error(student_outputs, teacher_outputs)


def hard_regression(student_outputs: Tensor, hard_labels: Tensor) -> Tensor:
    """Half the squared difference between the student's outputs and the labels.

        Σ_rows mean_outputs ½ (student − label)²

    The mean of a row is over the labels that it has; a row without any adds nothing.

    Source: Bishop, "Pattern Recognition and Machine Learning" (2006), section 1.2.5: the negative log-likelihood of
    Gaussian noise of unit variance.

    Use it when a task predicts numbers; a label far out counts with its square, so clip or transform heavy tails.

    Args:
        student_outputs: [batch, num_outputs], in the task's standardised units.
        hard_labels: [batch, num_outputs] float, in the same units; NaN marks a missing label.

    Returns:
        A scalar, summed over rows.
    """
    return _half_squared_error(student_outputs, hard_labels)
