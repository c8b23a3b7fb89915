"""The shortest vector in a convex hull, from inner products alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from qpsolvers import ProblemError, solve_qp


def smallest_norm(gramian: NDArray[np.float64], most: float = 1.0) -> NDArray[np.float64]:
    """argmin_w wᵀ G w over Σ w = 1, 0 ≤ w ≤ max(most, 1 / K).

    Args:
        gramian: [K, K], positive semi-definite.
        most: weight of a single vector.

    Returns:
        [K]; the evenest of equally good ones, and where the problem has no solution.
    """
    count = len(gramian)
    if count == 1:
        return np.ones(1)
    scale = float(np.trace(gramian)) / count or 1.0
    # The solver wants a positive definite matrix.
    matrix = gramian / scale + 1e-12 * np.eye(count)
    upper = np.full(count, max(most, 1.0 / count))
    try:
        found = solve_qp(
            matrix, np.zeros(count), A=np.ones((1, count)), b=np.ones(1), lb=np.zeros(count), ub=upper,
            solver="quadprog",
        )  # fmt: skip
    except ProblemError:  # what was given is no Gramian
        found = None
    if found is None:
        return np.full(count, 1.0 / count)
    clipped = np.clip(found, 0.0, None)
    weights: NDArray[np.float64] = clipped / clipped.sum()
    return weights
