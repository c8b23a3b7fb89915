"""Methods that weigh the tasks by their losses alone: they cost next to nothing."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torchjd.scalarization import DWA, FAMO, UW, GeometricMean, Random, Scalarizer

from raydistill.config.distill import BalancingOptions


class ByLosses:
    """Weights of tasks from the losses of a whole step, over all ranks.

    Attributes:
        parameters: learned with the student's, by the same optimizer.
        looks_again: `learn` wants to know the losses of the same rows after the step, too.
    """

    parameters: tuple[nn.Parameter, ...] = ()
    looks_again = False

    def __init__(self, scalarizer: Scalarizer | None = None) -> None:
        self.scalarizer = scalarizer

    def weights(self, losses: Tensor) -> Tensor:
        """∂ scalarized / ∂ losses, [tasks]: what the gradient of each task is multiplied by.

        Args:
            losses: [tasks], of the step, without graph.
        """
        values = losses.detach().requires_grad_()
        with torch.enable_grad():
            assert self.scalarizer is not None
            self.scalarizer(values).backward()
        assert values.grad is not None
        # A loss of 0, of a task that has nothing to say in this step, has no rate and no logarithm.
        usable = (losses > 0).all() & values.grad.isfinite().all()
        return torch.where(usable, values.grad, torch.ones_like(values.grad))

    def to(self, device: torch.device) -> None:
        """Where the losses are. Before its parameters are given to an optimizer."""
        if self.scalarizer is not None:
            self.scalarizer.to(device)

    def learn(self, step: int, after: Tensor | None) -> None:
        """The step is done.

        Args:
            step: how many are done now.
            after: the losses of the same rows by the new student, for a method that looks again.
        """

    def state(self) -> dict[str, Any]:
        """For the checkpoint: tensors and plain values."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """From `state`."""


class Uncertainty(ByLosses):
    """Each task's loss is divided by a variance that is learned with the student.

        total = Σ_i ( ½ exp(−s_i) L_i + ½ s_i )

    Source: Kendall, Gal, Cipolla, "Multi-Task Learning Using Uncertainty to Weigh Losses for Scene Geometry and
    Semantics" (CVPR 2018), equation 7, with s = log σ²; torchjd's `UW`.

    Use it when losses are of different sizes and you cannot say how much each task should count. It lowers the weight
    of tasks that are hard, which are not always those that matter less.
    """

    def __init__(self, num_tasks: int) -> None:
        scalarizer = UW(num_tasks)
        super().__init__(scalarizer)
        self.parameters = tuple(scalarizer.parameters())

    def state(self) -> dict[str, Any]:
        """The log-variances."""
        return {"log_variances": [parameter.detach().cpu() for parameter in self.parameters]}

    def restore(self, state: dict[str, Any]) -> None:
        """In place: the optimizer knows the parameters."""
        for parameter, value in zip(self.parameters, state["log_variances"], strict=True):
            parameter.data.copy_(value)


class DynamicAverage(ByLosses):
    """Tasks whose loss falls slowly count for more.

        w_i = K exp(r_i / T) / Σ_j exp(r_j / T),   r_i = L_i(epoch − 1) / L_i(epoch − 2)

    with the mean losses of the two last epochs; an epoch is `balancing_options.dwa.every` steps, as tasks of different
    sizes have no common one.

    Source: Liu, Johns, Davison, "End-to-End Multi-Task Learning with Attention" (CVPR 2019), equation 7; torchjd's
    `DWA`.

    Use it when some tasks learn much faster than others.
    """

    def __init__(self, temperature: float, every: int) -> None:
        self.dwa, self.every = DWA(temperature), every
        super().__init__(self.dwa)

    def weights(self, losses: Tensor) -> Tensor:
        """Those of the epoch; the losses count for the one after the next."""
        if self.dwa._loss_sum is not None:
            self.dwa._loss_sum = self.dwa._loss_sum.to(losses.device)
        self.dwa._previous_averages = [average.to(losses.device) for average in self.dwa._previous_averages]
        return super().weights(losses)

    def learn(self, step: int, after: Tensor | None) -> None:
        """An epoch may end."""
        if step % self.every == 0:
            self.dwa.step()

    def state(self) -> dict[str, Any]:
        """Sums of this epoch, means of the last two."""
        return {
            "sum": self.dwa._loss_sum, "count": self.dwa._n_batches, "averages": list(self.dwa._previous_averages)
        }  # fmt: skip

    def restore(self, state: dict[str, Any]) -> None:
        """From `state`."""
        self.dwa._loss_sum, self.dwa._n_batches = state["sum"], state["count"]
        self.dwa._previous_averages = list(state["averages"])


class RandomWeights(ByLosses):
    """New random weights every step.

        w = K softmax(z),   z ~ N(0, 1)

    Source: Lin, Ye, Zhang, Tsang, "Reasonable Effectiveness of Random Weighting" (TMLR 2022); torchjd's `Random`,
    times the number K of tasks so that the mean weight is 1.

    Use it when a balancing method claims to help: it should beat this one.
    """

    def __init__(self) -> None:
        super().__init__(Random())

    def weights(self, losses: Tensor) -> Tensor:
        """Drawn from torch's generator: the caller seeds it alike on all ranks."""
        return super().weights(losses.cpu()).to(losses.device) * len(losses)


class Geometric(ByLosses):
    """The geometric mean of the losses: relative progress counts, not size.

        total = ( Π_i L_i )^(1/K)

    Source: Chennupati, Sistu, Yogamani, Rawashdeh, "MultiNet++: Multi-Stream Feature Aggregation and Geometric Loss
    Strategy for Multi-Task Learning" (CVPR Workshops 2019); torchjd's `GeometricMean`.

    Use it when losses are of very different sizes. A loss near 0 gets a weight near infinity: keep some weight on
    labels.
    """

    def __init__(self) -> None:
        super().__init__(GeometricMean())

    def weights(self, losses: Tensor) -> Tensor:
        """See `ByLosses.weights`."""
        return super().weights(losses)


class Famo(ByLosses):
    """Weights learned so that all losses fall at the same relative rate, seen from the losses before and after a step.

        total = c Σ_i z_i log L_i,   z = softmax(w),   c = 1 / Σ_i (z_i / L_i);   w ← w − β ∇_w Σ_i z_i Δ_i

    with Δ_i = log L_i(before) − log L_i(after) on the same rows, times the number K of tasks so that equal weights
    are 1.

    Source: Liu, Feng, Stone, Liu, "FAMO: Fast Adaptive Multitask Optimization" (NeurIPS 2023), algorithm 1; torchjd's
    `FAMO`.

    Use it when you want the aim of gradient methods at less cost: it takes a second forward pass instead of one
    gradient for each task.
    """

    looks_again = True

    def __init__(self, num_tasks: int, learning_rate: float, weight_decay: float) -> None:
        self.famo = FAMO(num_tasks, lr=learning_rate, weight_decay=weight_decay)
        super().__init__(self.famo)

    def weights(self, losses: Tensor) -> Tensor:
        """Times K."""
        weights = super().weights(losses)
        return torch.where((losses > 0).all(), weights * len(losses), weights)

    def learn(self, step: int, after: Tensor | None) -> None:
        """One step of its own Adam."""
        assert after is not None
        self.famo.update(after.clamp_min(1e-8))

    def state(self) -> dict[str, Any]:
        """Its logits and its Adam."""
        optimizer = self.famo._optimizer
        return {
            "w": self.famo._w.detach().clone(),
            "adam": copy.deepcopy(optimizer.state_dict()) if optimizer else None,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """From `state`."""
        self.famo._w.data.copy_(state["w"])
        if state["adam"] is not None:
            self.famo._optimizer = torch.optim.Adam(
                [self.famo._w], lr=self.famo.lr, weight_decay=self.famo.weight_decay
            )
            self.famo._optimizer.load_state_dict(state["adam"])


METHODS: dict[str, type[ByLosses]] = {
    "uncertainty": Uncertainty,
    "dwa": DynamicAverage,
    "rlw": RandomWeights,
    "gls": Geometric,
    "famo": Famo,
}


def by_losses(name: str, num_tasks: int, options: BalancingOptions) -> ByLosses:
    """The method of that name, one of `METHODS`."""
    if name == "dwa":
        return DynamicAverage(options.dwa.temperature, options.dwa.every)
    if name == "famo":
        return Famo(num_tasks, options.famo.learning_rate, options.famo.weight_decay)
    if name == "uncertainty":
        return Uncertainty(num_tasks)
    return METHODS[name]()
