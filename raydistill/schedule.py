"""The learning rate as a pure function of the step: nothing to save, nothing to restore."""

from __future__ import annotations

import math


def learning_rate_at(step: int, peak: float, num_steps: int, warmup_fraction: float) -> float:
    """Linear warm-up, then a half cosine to zero (Loshchilov & Hutter 2017)."""
    warmup = max(1, round(warmup_fraction * num_steps))
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, num_steps - warmup)
    return peak * 0.5 * (1.0 + math.cos(progress * math.pi))
