"""On which device of this process a model computes."""

from __future__ import annotations

import torch


def own_device() -> torch.device:
    """The GPU that this process sees, else the processor."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_given(num_gpus: float) -> torch.device:
    """The GPU where one was asked for and this process sees one, else the processor.

    Args:
        num_gpus: of a `placement`.
    """
    return own_device() if num_gpus else torch.device("cpu")


def sent(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The tensor on that device. From the host's memory to a GPU without waiting for what the GPU still computes.

    A copy from pageable memory takes its turn behind all that is queued on the GPU, and the host waits for it.
    """
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
