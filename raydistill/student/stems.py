"""From a domain's prepared inputs to tokens of the trunk's width: one stem a domain."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from raydistill.student.shape import StudentShape

Tokens = tuple[Tensor, Tensor | None]  # [batch, tokens, width] and [batch, tokens] bool, True = real; None = all


def sinusoids(length: int, width: int, device: torch.device) -> Tensor:
    """Fixed positions [length, width] (Vaswani et al. 2017, section 3.5): any length, no parameters."""
    half = width // 2
    rates = torch.exp(torch.arange(half, device=device) * (-math.log(10_000.0) / max(1, half - 1)))
    angles = torch.arange(length, device=device)[:, None] * rates[None, :]
    table = torch.zeros(length, width, device=device)
    table[:, :half], table[:, half : 2 * half] = angles.sin(), angles.cos()
    return table


class ConvUnit(nn.Module):
    """x + conv(gelu(conv(gelu(norm(x))))): a pre-activation residual unit (He et al. 2016) with one norm.

    Group norm, not batch norm: a rank's result must not depend on which rows the other ranks hold. One, not two: on a
    CPU a norm costs as much as the convolution after it.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.GroupNorm(8, channels), nn.GELU(), nn.Conv2d(channels, channels, 3, padding=1),
            nn.GELU(), nn.Conv2d(channels, channels, 3, padding=1),
        )  # fmt: skip

    def forward(self, grid: Tensor) -> Tensor:
        """grid [batch, channels, rows, columns], the same shape comes back."""
        result: Tensor = grid + self.layers(grid)
        return result


class ImageStem(nn.Module):
    """Strided 3×3 convolutions down to one token per `patch_size`² pixels, a residual unit after each.

    Early convolutions train faster and further than one linear patch projection (Xiao et al. 2021), and a stride
    in the very first layer keeps them cheap.
    """

    def __init__(self, num_channels: int, patch_size: int, width: int) -> None:
        super().__init__()
        halvings = max(1, int(math.log2(patch_size)))
        layers: list[nn.Module] = []
        channels = num_channels
        for level in range(halvings):
            wider = max(32, width // 2 ** (halvings - level) // 8 * 8)
            layers += [nn.Conv2d(channels, wider, 3, stride=2, padding=1, bias=False), ConvUnit(wider)]
            channels = wider
        layers += [nn.GroupNorm(8, channels), nn.GELU(), nn.Conv2d(channels, width, 3, padding=1)]
        self.layers = nn.Sequential(*layers)

    def forward(self, pixel_values: Tensor) -> Tokens:
        """pixel_values [batch, channels, height, width]."""
        grid = self.layers(pixel_values)
        _, width, rows, columns = grid.shape
        half = width // 2
        vertical = sinusoids(rows, half, grid.device)[:, None, :].expand(rows, columns, half)
        horizontal = sinusoids(columns, width - half, grid.device)[None, :, :].expand(rows, columns, width - half)
        positions = torch.cat([vertical, horizontal], dim=-1).reshape(rows * columns, width)
        return grid.flatten(2).transpose(1, 2) + positions, None


class TextStem(nn.Module):
    """Factorised token embeddings (Lan et al. 2020): vocabulary × narrow, then narrow × width."""

    def __init__(self, vocab_size: int, embedding_width: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, embedding_width)
        self.norm = nn.LayerNorm(embedding_width)
        self.project = nn.Linear(embedding_width, width)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tokens:
        """input_ids, attention_mask [batch, tokens] int64."""
        tokens = self.project(self.norm(self.embedding(input_ids)))
        return tokens + sinusoids(tokens.shape[1], tokens.shape[2], tokens.device), attention_mask.bool()


class SpeechStem(nn.Module):
    """Stride-2 convolutions over log-mel frames of 10 ms, down to one token per `frames_per_token`."""

    def __init__(self, num_mels: int, frames_per_token: int, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = num_mels
        for _ in range(max(1, int(math.log2(frames_per_token)))):
            layers += [nn.Conv1d(channels, width, 5, stride=2, padding=2), nn.GELU()]
            channels = width
        self.layers = nn.Sequential(*layers)
        self.stride = 2 ** (len(layers) // 2)

    def forward(self, log_mel: Tensor, frame_mask: Tensor) -> Tokens:
        """log_mel [batch, frames, num_mels], frame_mask [batch, frames] bool."""
        tokens = self.layers(log_mel.transpose(1, 2)).transpose(1, 2)
        return tokens + sinusoids(tokens.shape[1], tokens.shape[2], tokens.device), frame_mask[:, :: self.stride]


def make_stems(shape: StudentShape) -> nn.ModuleDict:
    """One stem for each domain that the student's tasks use."""
    make: dict[str, Callable[[], nn.Module]] = {
        "vision": lambda: ImageStem(shape.num_channels, shape.patch_size, shape.width),
        "text": lambda: TextStem(shape.vocab_size, shape.embedding_width, shape.width),
        "speech": lambda: SpeechStem(shape.num_mels, shape.frames_per_token, shape.width),
    }
    return nn.ModuleDict({domain: make[domain]() for domain in shape.domains})
