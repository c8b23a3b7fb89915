"""The gradient of each task, kept apart on the parameters that tasks share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class TaskGradients:
    """Sums micro-batches, averages ranks.

    Args:
        shared: parameters on which tasks are told apart.
        others: all others; their gradient is the plain sum.
        num_tasks: rows of the matrix.
    """

    def __init__(self, shared: Sequence[nn.Parameter], others: Sequence[nn.Parameter], num_tasks: int) -> None:
        self.shared, self.others, self.num_tasks = list(shared), list(others), num_tasks
        self._rows: Tensor | None = None

    def add(self, losses: Sequence[Tensor], beside: Tensor | None) -> None:
        """One backward pass for each loss; none may share its graph with another one."""
        if self._rows is None:
            first = self.shared[0]
            size = sum(parameter.numel() for parameter in self.shared)
            self._rows = torch.zeros(self.num_tasks, size, dtype=first.dtype, device=first.device)
        for row, loss in zip(self._rows, losses, strict=True):
            if loss.requires_grad:
                loss.backward()
            at = 0
            for parameter in self.shared:
                if parameter.grad is not None:
                    row[at : at + parameter.numel()] += parameter.grad.flatten()
                    parameter.grad = None
                at += parameter.numel()
        if beside is not None:
            beside.backward()

    def average(self) -> Tensor:
        """[tasks, shared parameters]: of the whole step, over all ranks. The others' gradients are, too, then."""
        assert self._rows is not None
        rows, self._rows = self._rows, None
        if torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
            # Losses are divided by counts over all ranks: their sum is the average that is wanted.
            torch.distributed.all_reduce(rows)
            others = [(torch.zeros_like(each) if each.grad is None else each.grad).flatten() for each in self.others]
            if others:
                flat = torch.cat(others)
                torch.distributed.all_reduce(flat)
                _into(self.others, flat)
        return rows

    def write(self, gradient: Tensor) -> None:
        """Into the shared parameters' `grad`."""
        _into(self.shared, gradient)


def _into(parameters: Sequence[nn.Parameter], flat: Tensor) -> None:
    at = 0
    for parameter in parameters:
        parameter.grad = flat[at : at + parameter.numel()].view_as(parameter)
        at += parameter.numel()
