"""The plain trunk: a pre-norm transformer encoder on torch's scaled dot-product attention."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class AttentionBlock(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)), with an `mlp` that subclasses bring."""

    def __init__(self, width: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.attention_norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)
        self.mlp_norm = nn.LayerNorm(width)

    def mlp(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """Every token by itself; shapes as in `forward`."""
        raise NotImplementedError

    def forward(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """tokens [batch, length, width]; mask [batch, length] bool, True = real."""
        batch, length, width = tokens.shape
        query, key, value = (
            self.qkv(self.attention_norm(tokens))
            .view(batch, length, 3, self.num_heads, width // self.num_heads)
            .permute(2, 0, 3, 1, 4)
        )
        attended = F.scaled_dot_product_attention(
            query, key, value, attn_mask=None if mask is None else mask[:, None, None, :]
        )
        attended = self.attention_out(attended.transpose(1, 2).reshape(batch, length, width))
        tokens = tokens + self.drop_channels(attended)
        return tokens + self.drop_channels(self.mlp(self.mlp_norm(tokens), mask))

    def drop_channels(self, tokens: Tensor) -> Tensor:
        """Dropout of whole channels of a row: one draw for all its tokens, so the random numbers cost next to nothing.

        (Element by element they were a sixth of a training step on a CPU.)
        """
        if not self.training or not self.dropout:
            return tokens
        kept = F.dropout(tokens.new_ones(tokens.shape[0], 1, tokens.shape[2]), self.dropout)
        return tokens * kept


class Block(AttentionBlock):
    """An `AttentionBlock` with one feed-forward layer, four times as wide inside."""

    def __init__(self, width: int, num_heads: int, dropout: float) -> None:
        super().__init__(width, num_heads, dropout)
        self.mlp_in = nn.Linear(width, 4 * width)
        self.mlp_out = nn.Linear(4 * width, width)

    def mlp(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """See `AttentionBlock`."""
        hidden: Tensor = self.mlp_out(F.gelu(self.mlp_in(tokens)))
        return hidden


class DenseTrunk(nn.Module):
    """`depth` blocks of attention and a feed-forward layer; every task's tokens pass the same ones.

        x ← x + attention(norm(x))
        x ← x + W₂ gelu(W₁ norm(x))

    Source: Vaswani et al. 2017, "Attention Is All You Need", section 3; the norms stand before the layers as in Xiong
    et al. 2020, "On Layer Normalization in the Transformer Architecture".

    Use it when inputs are short (up to a few hundred tokens) and tasks may share all weights: the first choice.
    """

    def __init__(self, width: int, depth: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, num_heads, dropout) for _ in range(depth))

    def forward(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """tokens [batch, length, width], mask [batch, length] bool or None -> tokens of the same shape."""
        for block in self.blocks:
            tokens = block(tokens, mask)
        return tokens
