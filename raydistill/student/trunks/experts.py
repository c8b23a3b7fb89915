"""A mixture of experts: more parameters at the cost of a few, and a look at which tasks share which."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raydistill.student.trunks.dense import AttentionBlock, Block


class Routed(NamedTuple):
    """Where one call's tokens went.

    Attributes:
        counts: [num_experts], of tokens that each expert got; a token counts once for each expert that it passes.
        probabilities: [num_experts], the router's, summed over the real tokens, with graph.
        num_tokens: scalar, the real ones.
    """

    counts: Tensor
    probabilities: Tensor
    num_tokens: Tensor


class Expert(nn.Module):
    """A feed-forward layer, as in `dense.Block`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp_in = nn.Linear(width, 4 * width)
        self.mlp_out = nn.Linear(4 * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens [number, width], none of them included."""
        hidden: Tensor = self.mlp_out(F.gelu(self.mlp_in(tokens)))
        return hidden


class ExpertLayer(nn.Module):
    """Σᵢ gᵢ(x) · Eᵢ(x) over the k experts of the largest router probabilities p = softmax(W x).

    gᵢ = pᵢ / Σ_{top k} pⱼ, which is the softmax over the k largest logits (Shazeer et al. 2017, eq. 3-5; Zoph et al.
    2022, ST-MoE, section 2). For k = 1 that is the constant 1, and the router would learn nothing from the task: there
    gᵢ = pᵢ (Fedus et al. 2022, eq. 2). No expert has a limit of tokens: none is dropped.
    """

    def __init__(self, width: int, num_experts: int, experts_per_token: int) -> None:
        super().__init__()
        self.experts_per_token = experts_per_token
        self.router = nn.Linear(width, num_experts, bias=False)
        self.experts = nn.ModuleList(Expert(width) for _ in range(num_experts))

    def forward(self, tokens: Tensor, mask: Tensor | None) -> tuple[Tensor, Routed]:
        """tokens [batch, length, width], mask [batch, length] -> tokens, 0 where masked, and what went where."""
        flat, num_experts = tokens.flatten(0, 1), len(self.experts)
        real = flat.new_ones(len(flat), dtype=torch.bool) if mask is None else mask.flatten()
        # In full precision: which expert is the better one is often a matter of the last bits (Fedus et al. 2022, 2.4).
        with torch.autocast(flat.device.type, enabled=False):
            probabilities = self.router(flat.to(self.router.weight.dtype)).softmax(dim=-1)
        gates, chosen = probabilities.topk(self.experts_per_token, dim=-1)
        if self.experts_per_token > 1:
            gates = gates / gates.sum(dim=-1, keepdim=True)
        # Masked tokens go to an expert that does not exist, and is last in order.
        chosen = chosen.masked_fill(~real[:, None], num_experts).flatten()
        counts = torch.bincount(chosen, minlength=num_experts + 1)[:num_experts]
        order = chosen.argsort(stable=True)
        positions = order // self.experts_per_token
        # One host sync a layer, for the sizes. An expert without tokens computes on none: its gradient is 0, not
        # missing, which DDP would wait for.
        sizes = counts.tolist()
        results, start = [], 0
        for expert, size in zip(self.experts, sizes, strict=True):
            results.append(expert(flat[positions[start : start + size]]))
            start += size
        weighted = torch.cat(results) * gates.flatten()[order[:start], None]
        output = torch.zeros_like(flat).index_add(0, positions[:start], weighted.to(flat.dtype))
        summed = (probabilities * real[:, None]).sum(dim=0)
        return output.view_as(tokens), Routed(counts, summed, real.sum())


class ExpertBlock(AttentionBlock):
    """An `AttentionBlock` whose feed-forward layer is an `ExpertLayer`.

    Attributes:
        routed: of the last call.
    """

    def __init__(self, width: int, num_heads: int, dropout: float, num_experts: int, experts_per_token: int) -> None:
        super().__init__(width, num_heads, dropout)
        self.mixture = ExpertLayer(width, num_experts, experts_per_token)
        self.routed: Routed | None = None

    def mlp(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """See `ExpertLayer`."""
        output: Tensor
        output, self.routed = self.mixture(tokens, mask)
        return output


class ExpertsTrunk(nn.Module):
    """The dense trunk with several feed-forward layers in a block, the experts, of which a token passes a few.

        p = softmax(W x)                             of the router, over N experts
        y = Σ_{i in top k of p} gᵢ Eᵢ(x)             gᵢ = pᵢ / Σ_{top k} pⱼ; for k = 1 gᵢ = pᵢ
        balance loss = balance_weight · N Σᵢ fᵢ Pᵢ   fᵢ: share of tokens sent to expert i, Pᵢ: mean of its pᵢ

    The balance loss is balance_weight · 1 where all experts are equally busy. Tokens are counted over all tasks of a
    forward: an expert may be one task's own as long as none lies idle. Padding is neither routed nor counted.

    Source: Shazeer et al. 2017, "Outrageously Large Neural Networks: The Sparsely-Gated Mixture-of-Experts Layer",
    eq. 3-5 (without the noise); balance loss: Fedus et al. 2022, "Switch Transformers", eq. 4-6 (k > 1: fᵢ counts
    assignments); renormalised gates: Zoph et al. 2022, "ST-MoE", section 2.

    Use it when tasks are unlike each other and a dense trunk of the same cost is too small for all of them, or to see
    in the report which tasks share experts.
    """

    def __init__(
        self, width: int, depth: int, num_heads: int, dropout: float, *,
        num_experts: int, experts_per_token: int, balance_weight: float, every: int,
    ) -> None:  # fmt: skip
        super().__init__()
        self.num_experts, self.balance_weight = num_experts, balance_weight
        self.blocks = nn.ModuleList(
            ExpertBlock(width, num_heads, dropout, num_experts, experts_per_token)
            if (number + 1) % every == 0
            else Block(width, num_heads, dropout)
            for number in range(depth)
        )
        # Plain attributes, no buffers: nothing of them is saved, or sent between ranks.
        self.routing_by_block: Tensor | None = None
        self._calls: list[list[Routed]] = []

    def forward(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """tokens [batch, length, width], mask [batch, length] bool or None -> tokens of the same shape."""
        call: list[Routed] = []
        for block in self.blocks:
            tokens = block(tokens, mask)
            if isinstance(block, ExpertBlock) and block.routed is not None:
                call.append(block.routed)
                block.routed = None
        self._calls.append(call)
        self.routing_by_block = torch.stack([routed.counts for routed in call]).detach()
        return tokens

    @property
    def routing(self) -> Tensor | None:
        """Tokens that each expert got in the last call, over all blocks: int64 [num_experts].

        Experts of one number in two blocks have nothing to do with each other: see `routing_by_block`
        [num_expert_blocks, num_experts].
        """
        return None if self.routing_by_block is None else self.routing_by_block.sum(dim=0)

    def take_auxiliary(self) -> list[Tensor]:
        """The balance loss over all tokens of the calls since the last take, mean over the blocks.

        Returns:
            A scalar for each call, which sum to it. Each has the graph of its own call alone, so that tasks can be told
            apart: the shares f of all calls are counts, through which no gradient flows.
        """
        calls, self._calls = self._calls, []
        parts = [torch.zeros(()).to(call[0].probabilities) for call in calls if call]
        for of_block in zip(*calls, strict=True):
            counts = torch.stack([routed.counts for routed in of_block]).sum(dim=0)
            num_tokens = torch.stack([routed.num_tokens for routed in of_block]).sum().clamp_min(1)
            sent = counts.to(parts[0].dtype) / counts.sum().clamp_min(1)
            scale = self.balance_weight * self.num_experts / len(calls[0])
            for index, routed in enumerate(of_block):
                parts[index] = parts[index] + scale * (sent * routed.probabilities / num_tokens).sum()
        return parts

    def __getstate__(self) -> dict[str, Any]:
        # Tensors with a graph can be neither copied nor pickled.
        return {**self.__dict__, "_calls": [], "routing_by_block": None}
