"""A trunk for long inputs: attention whose cost grows with the length, not with its square."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class ReformerBlock(nn.Module):
    """y₁ = x₁ + attention(x₂), then y₂ = x₂ + mlp(y₁), on transformers' layers; both normalise what they read."""

    def __init__(
        self, width: int, num_heads: int, dropout: float, chunk_length: int, num_hashes: int, num_buckets: int
    ):
        super().__init__()
        self.chunk_length = chunk_length
        from transformers import ReformerConfig
        from transformers.models.reformer.modeling_reformer import ChunkReformerFeedForward, ReformerAttention

        settings = ReformerConfig(
            hidden_size=width, num_attention_heads=num_heads, attention_head_size=width // num_heads,
            feed_forward_size=4 * width, hidden_act="gelu", hidden_dropout_prob=dropout, attn_layers=["lsh"],
            lsh_attn_chunk_length=chunk_length, lsh_num_chunks_before=1, lsh_num_chunks_after=0,
            num_hashes=num_hashes, num_buckets=num_buckets, is_decoder=False, axial_pos_embds=False,
        )  # fmt: skip
        self.attention = ReformerAttention(settings)
        self.feed_forward = ChunkReformerFeedForward(settings)

    def forward(self, first: Tensor, second: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """first, second [batch, length, width]: the two streams; mask [batch, length] bool."""
        length = first.shape[1]
        padding = self._padding(length)
        mask, padded = nn.functional.pad(mask, (0, padding)), nn.functional.pad(second, (0, 0, 0, padding))
        first = first + self.attention(padded, attention_mask=mask).hidden_states[:, :length]
        return first, second + self.feed_forward(first)

    def _padding(self, length: int) -> int:
        """Tokens to add: up to a whole number of chunks, and one chunk more where there are several."""
        return 0 if length <= self.chunk_length else -length % self.chunk_length + self.chunk_length


class ReformerTrunk(nn.Module):
    """A trunk that attends by locality-sensitive hashing: its cost is linear in the length, not quadratic.

        bucket(x) = argmax [x R; −x R]                          R random, a new one for each round of hashing
        tokens are sorted by bucket and cut into chunks; each attends to its own chunk and the one before
        attention(x) = Σ_rounds softmax weight of the round · attention within the round; keys = queries, normalised
        y₁ = x₁ + attention(x₂), y₂ = x₂ + mlp(y₁);             x₁ = x₂ = the tokens; out comes (y₁ + y₂) / 2

    Up to `chunk_length` tokens this is full attention. The layers are those of transformers; its backward pass is not
    (it seeds the random numbers of the whole process anew, and runs once a task, which DDP refuses): activations inside
    a block are computed again from the block's input (`recompute`), so kept are two tensors a block.

    Training hashes by the process's random numbers, anew in every step. Outside of training the hash is fixed
    (`hash_seed`). A row's answer does not depend on its batch: an input longer than a chunk gets a chunk of padding at
    least, because the first chunk of a round looks back at the last one.

    Source: Kitaev, Kaiser & Levskaya 2020, "Reformer: The Efficient Transformer", sections 2 and 3; the hash: Andoni et
    al. 2015, "Practical and Optimal LSH for Angular Distance".

    Use it when inputs have several thousand tokens: long sounds, documents, large pictures in small patches. On shorter
    ones it is the slower one, and against torch's fused attention it saves time, not memory; where it begins to pay is
    a matter of the machine and of num_hashes: benchmarks/long_inputs.py measures it.
    """

    def __init__(
        self, width: int, depth: int, num_heads: int, dropout: float, *,
        chunk_length: int, num_hashes: int, num_buckets: int, hash_seed: int, recompute: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        self.hash_seed, self.recompute = hash_seed, recompute
        self.blocks = nn.ModuleList(
            ReformerBlock(width, num_heads, dropout, chunk_length, num_hashes, num_buckets) for _ in range(depth)
        )

    def forward(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """tokens [batch, length, width], mask [batch, length] bool or None -> tokens of the same shape."""
        if mask is None:
            mask = tokens.new_ones(tokens.shape[:2], dtype=torch.bool)
        first = second = tokens
        with contextlib.nullcontext() if self.training else seeded(self.hash_seed, tokens.device):
            for block in self.blocks:
                if self.recompute and torch.is_grad_enabled():
                    first, second = checkpoint(block, first, second, mask, use_reentrant=False)
                else:
                    first, second = block(first, second, mask)
        return (first + second) / 2


@contextlib.contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Random numbers of this seed; those outside go on as if nothing had been drawn."""
    cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if cuda else []):
        torch.default_generator.manual_seed(seed)
        if cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
