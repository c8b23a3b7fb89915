"""The canary: a few rows whose answer every replica gives before it serves, and which its peers must share."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from raydistill.config.data import TaskConfig
from raydistill.data.batch import Inputs, ViewBatch
from raydistill.teachers.pool.messages import Loaded

# Of the largest logit. The same weights on another kind of device, or in bf16, stay well below; others do not.
TOLERANCE = 0.02
ROWS = 4
SENTENCES = ("A quiet, lovely day.", "It was dreadful!", "The 3rd film, and the best one: 10/10", "no")


def canary_views(task: TaskConfig) -> ViewBatch:
    """Rows of the shape that the task's views have: the same in every process."""
    data, generator = task.data, np.random.default_rng(0)
    inputs: Inputs
    if task.domain == "vision":
        channels = 1 if data.grayscale else 3
        inputs = generator.integers(0, 256, (ROWS, data.image_size, data.image_size, channels), dtype=np.uint8)
    elif task.domain == "text":
        inputs = list(SENTENCES)
    else:
        seconds = [min(data.max_seconds, length) for length in (0.3, 0.5, 0.8, 1.0)]
        inputs = [
            (0.1 * generator.standard_normal(max(1, int(length * data.sample_rate)))).astype(np.float32)
            for length in seconds
        ]
    none = np.full(ROWS, -1, dtype=np.int64)
    rate = data.sample_rate if task.domain == "speech" else None
    return ViewBatch(task.domain, inputs, none, np.arange(ROWS, dtype=np.int64), 0, rate)


class Canary:
    """What the first replica said, which all later ones must say too.

    Attributes:
        description: of the teacher, from the first replica.
    """

    def __init__(self) -> None:
        self.description: dict[str, Any] | None = None
        self._reference: NDArray[np.float16] | None = None

    def objection(self, loaded: Loaded) -> str | None:
        """Why this replica must not serve; None: it may."""
        if self._reference is None or self.description is None:
            if not np.isfinite(loaded.canary).all():
                return "its answer to the canary is not finite"
            self._reference, self.description = loaded.canary, loaded.description
        if loaded.description["fingerprint"] != self.description["fingerprint"]:
            return "its weights are not those of its peers"
        apart = difference(loaded.canary, self._reference)
        if apart > TOLERANCE:
            return f"its answer to the canary differs from its peers' by {apart:.2g} of the largest logit"
        return None


def difference(answer: NDArray[np.float16], reference: NDArray[np.float16]) -> float:
    """The largest difference of two answers, as a share of the reference's largest logit.

    Infinite where the shapes differ or an answer is not finite.
    """
    if answer.shape != reference.shape or not np.isfinite(answer).all():
        return float("inf")
    apart = np.abs(answer.astype(np.float32) - reference.astype(np.float32)).max()
    scale = np.abs(reference.astype(np.float32)).max()
    return float(apart / max(float(scale), 1e-6))
