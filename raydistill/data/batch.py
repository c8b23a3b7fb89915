"""What travels between the data, the teachers and the student: rows as pixels, words or sound."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raydistill.config.basics import Domain

Inputs = NDArray[np.uint8] | list[str] | list[NDArray[np.float32]]


@dataclass(frozen=True)
class ViewBatch:
    """One view of some rows, before any model prepares it in its own way.

    Attributes:
        inputs: vision: uint8 [batch, height, width, channels]; text: strings; speech: float32 [num_samples] each,
            in −1…1.
        labels: of classification int64 [batch], −1 = none; of other kinds float32 [batch, labels], NaN = none.
        sample_ids: int64 [batch], the rows in their split.
        view: 0 = plain; k ≥ 1 = the k-th augmented view.
        sample_rate: Hz, speech only.
    """

    domain: Domain
    inputs: Inputs
    labels: NDArray[Any]
    sample_ids: NDArray[np.int64]
    view: int
    sample_rate: int | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, positions: NDArray[np.int64]) -> ViewBatch:
        """The rows at these positions of the batch, in this order."""
        inputs: Any = self.inputs
        taken = inputs[positions] if isinstance(inputs, np.ndarray) else [inputs[int(at)] for at in positions]
        return replace(self, inputs=taken, labels=self.labels[positions], sample_ids=self.sample_ids[positions])
