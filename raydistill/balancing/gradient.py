"""Methods that weigh the tasks by how their gradients on the shared trunk lie to each other."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchjd.aggregation import AlignedMTLWeighting, CAGradWeighting, NashMTL, PCGradWeighting
from torchjd.aggregation import UPGradWeighting as UpgradOfTorchjd
from torchjd.linalg import QuadprogProjector

from raydistill.config.distill import BalancingOptions
from raydistill.min_norm import smallest_norm

EXACT = 1e-9  # of solvers: Gramians come in float64


class ByGradients:
    """Weights of tasks from the Gramian of their gradients; the balanced gradient is the weighted sum.

    Every method here sees nothing of the gradients but their inner products, so that weights are decided on a small
    matrix in float64, whatever the trunk's size.
    """

    def __init__(self, weighting: Callable[[Tensor], Tensor], times: float = 1.0) -> None:
        self._weighting, self._times = weighting, times

    def weights(self, gramian: Tensor) -> Tensor:
        """[tasks] from G Gᵀ [tasks, tasks], float64 on the CPU, of gradients averaged over all ranks."""
        if not bool(gramian.diagonal().any()):
            return torch.ones_like(gramian[0])  # nothing pulls: there is nothing to balance
        return self._weighting(gramian) * self._times

    def state(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """From `state`."""


class PcGrad(ByGradients):
    """Where two tasks pull against each other, each gives up the part that hurts the other one.

        g_i ← g_i − (g_i · g_j / ‖g_j‖²) g_j   where g_i · g_j < 0, for all j in random order;   g = Σ_i g_i

    Source: Yu, Kumar, Gupta, Levine, Hausman, Finn, "Gradient Surgery for Multi-Task Learning" (NeurIPS 2020),
    algorithm 1; torchjd's `PCGrad`.

    Use it when the report shows negative cosines between tasks. Without any it changes nothing.
    """

    def __init__(self) -> None:
        super().__init__(PCGradWeighting())


class CaGrad(ByGradients):
    """The direction that helps the worst-off task most, within a ball around the mean gradient.

        max_g min_i g_i · g,   ‖g − g_0‖ ≤ c ‖g_0‖,   g_0 = (1/K) Σ_i g_i

    times K, so that it is of the size of the sum.

    Source: Liu, Liu, Jin, Stone, Liu, "Conflict-Averse Gradient Descent for Multi-task Learning" (NeurIPS 2021),
    equation 3; torchjd's `CAGrad`.

    Use it when one task stays behind the others. c = 0 is the plain mean.
    """

    def __init__(self, num_tasks: int, c: float) -> None:
        super().__init__(CAGradWeighting(c, norm_eps=EXACT), num_tasks)


class Mgda(ByGradients):
    """The shortest vector in the convex hull of the gradients: it lowers every loss, or no direction does.

        min_w ‖ Σ_i w_i g_i ‖²,   Σ_i w_i = 1,   w_i ≥ 0

    times K, so that it is of the size of the sum.

    Source: Désidéri, "Multiple-gradient descent algorithm (MGDA) for multiobjective optimization" (2012); Sener,
    Koltun, "Multi-Task Learning as Multi-Objective Optimization" (NeurIPS 2018), equation 3, solved exactly.

    Use it when no task may get worse. It follows the task with the smallest gradient, often the one that is done.
    """

    def __init__(self, num_tasks: int) -> None:
        super().__init__(lambda gramian: torch.from_numpy(smallest_norm(gramian.numpy())), num_tasks)


class NashMtl(ByGradients):
    """The bargain that all tasks would agree on: the product of what they gain is largest.

        G Gᵀ w = 1 / w   (elementwise),   g = Σ_i w_i g_i

    shortened to `balancing_options.nash_mtl.max_norm`.

    Source: Navon, Shamsian, Achituve, Maron, Kawaguchi, Chechik, Fetaya, "Multi-Task Learning as a Bargaining Game"
    (ICML 2022), algorithm 1; torchjd's `NashMTL`.

    Use it when losses have different scales: it does not depend on them. A convex program is solved at each bargain;
    `every` makes them rarer.
    """

    def __init__(self, num_tasks: int, every: int, max_norm: float) -> None:
        self.nash = NashMTL(num_tasks, max_norm=max_norm, update_weights_every=every)
        super().__init__(self._bargain)

    def _bargain(self, gramian: Tensor) -> Tensor:
        values, vectors = torch.linalg.eigh(gramian)
        # Any matrix with this Gramian will do: the method uses inner products and norms only.
        root = vectors * values.clamp_min(0.0).sqrt()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the solver, about its accuracy
            weights: Tensor = self.nash.weighting(root)
        return weights

    def state(self) -> dict[str, Any]:
        """The last bargain, where the next one begins."""
        weighting = self.nash.weighting
        return {"step": float(weighting.step), "last": torch.from_numpy(np.array(weighting.prvs_alpha))}

    def restore(self, state: dict[str, Any]) -> None:
        """From `state`."""
        weighting = self.nash.weighting
        weighting.prvs_alpha = state["last"].numpy()
        weighting.step = state["step"]
        if weighting.step:
            weighting._init_optim_problem()


class AlignedMtl(ByGradients):
    """The gradients' principal axes are brought to one length, so that no task and no direction rules the others.

        B = √λ_min V Σ⁻¹ Vᵀ,   w = B (1/K, …, 1/K),   G Gᵀ = V Σ² Vᵀ

    times K, so that it is of the size of the sum.

    Source: Senushkin, Patakin, Kuznetsov, Konushin, "Independent Component Alignment for Multi-Task Learning" (CVPR
    2023), algorithm 1; torchjd's `AlignedMTL`.

    Use it when gradients differ much in size. It shrinks all of them to the smallest axis: learning may be slow.
    """

    def __init__(self, num_tasks: int) -> None:
        super().__init__(AlignedMTLWeighting(), num_tasks)


class UpGrad(ByGradients):
    """Each gradient is brought to the nearest direction that hurts no task; then they are averaged.

        g = (1/K) Σ_i argmin_v { ‖v − g_i‖² : g_j · v ≥ 0 for all j }

    times K, so that it is of the size of the sum.

    Source: Quinton, Rey, "Jacobian Descent for Multi-Objective Optimization" (2024), definition of A_UPGrad; torchjd's
    `UPGrad`.

    Use it when no task may get worse and each should count in proportion to its gradient: without a conflict it is
    the plain sum.
    """

    def __init__(self, num_tasks: int) -> None:
        super().__init__(UpgradOfTorchjd(projector=QuadprogProjector(norm_eps=EXACT, reg_eps=EXACT)), num_tasks)


METHODS: dict[str, type[ByGradients]] = {
    "pcgrad": PcGrad,
    "cagrad": CaGrad,
    "mgda": Mgda,
    "nash_mtl": NashMtl,
    "aligned_mtl": AlignedMtl,
    "upgrad": UpGrad,
}


def by_gradients(name: str, num_tasks: int, options: BalancingOptions) -> ByGradients:
    """The method of that name, one of `METHODS`."""
    if name == "pcgrad":
        return PcGrad()
    if name == "cagrad":
        return CaGrad(num_tasks, options.cagrad.c)
    if name == "nash_mtl":
        return NashMtl(num_tasks, options.nash_mtl.every, options.nash_mtl.max_norm)
    sized: dict[str, Callable[[int], ByGradients]] = {"mgda": Mgda, "aligned_mtl": AlignedMtl, "upgrad": UpGrad}
    return sized[name](num_tasks)
