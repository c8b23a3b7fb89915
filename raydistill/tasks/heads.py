"""From trunk tokens to a task's output."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from raydistill.config.data import LabelScales


class PooledHead(nn.Module):
    """Mean over the real tokens, then one linear layer to the outputs."""

    def __init__(self, width: int, num_outputs: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, num_outputs)

    def forward(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """tokens [batch, tokens, width], mask [batch, tokens] (True = real) -> outputs [batch, num_outputs]."""
        if mask is None:
            pooled = tokens.mean(dim=1)
        else:
            weight = mask.to(tokens.dtype).unsqueeze(-1)
            pooled = (tokens * weight).sum(dim=1) / weight.sum(dim=1).clamp_min(1.0)
        outputs: Tensor = self.linear(self.norm(pooled))
        return outputs


class Units(nn.Module):
    """What brings standardised numbers back into the user's units; kept with a student's weights.

    Attributes:
        label_mean, label_deviation: float64 [num_outputs], buffers.
    """

    label_mean: Tensor
    label_deviation: Tensor

    def __init__(self, num_outputs: int) -> None:
        super().__init__()
        self.register_buffer("label_mean", torch.zeros(num_outputs, dtype=torch.float64))
        self.register_buffer("label_deviation", torch.ones(num_outputs, dtype=torch.float64))

    @property
    def scales(self) -> LabelScales:
        """Mean and deviation of each output."""
        return tuple(zip(self.label_mean.tolist(), self.label_deviation.tolist(), strict=True))

    def keep(self, scales: LabelScales) -> None:
        """The scales of the task's data, from now on."""
        values = torch.tensor(scales, dtype=torch.float64)
        self.label_mean.copy_(values[:, 0])
        self.label_deviation.copy_(values[:, 1])
