"""Sums of the tasks' losses with weights that do not change."""

from __future__ import annotations

from collections.abc import Callable, Mapping


def fixed(task_weights: Mapping[str, float]) -> Mapping[str, float]:
    """The weighted sum of the tasks' losses.

        total = Σ_i w_i L_i

    with w_i from `distill.task_weights`, by default 1.

    Source: the usual sum; every method is measured against it.

    Use it when you know what each task is worth, or let `raydistill tune` search the weights.
    """
    return task_weights


def equal(task_weights: Mapping[str, float]) -> Mapping[str, float]:
    """All tasks count alike, whatever `distill.task_weights` says.

        total = Σ_i L_i

    Source: the unweighted sum, called equal weighting in LibMTL (Lin, Zhang, 2023).

    Use it when you want the plain baseline of every paper on balancing.
    """
    return dict.fromkeys(task_weights, 1.0)


PLAIN: dict[str, Callable[[Mapping[str, float]], Mapping[str, float]]] = {"fixed": fixed, "equal": equal}
