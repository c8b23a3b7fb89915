"""Which number format the matrix products run in."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch

from raydistill.config.models import Precision


@cache
def cpu_has_bf16() -> bool:
    """Whether the processor multiplies bfloat16 itself; elsewhere bf16 on a CPU is emulated and slow."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def use_bf16(precision: Precision, device: torch.device) -> bool:
    """`auto` takes bf16 where the hardware has it."""
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and cpu_has_bf16()
