"""From the tasks' losses to one gradient: in one backward pass, or task by task where they have to be told apart."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from raydistill.balancing.plain import PLAIN
from raydistill.config.distill import DistillConfig
from raydistill.training.step import Objective
from raydistill.training.task_gradients import TaskGradients

BY_LOSSES = frozenset({"uncertainty", "dwa", "rlw", "gls", "famo"})
Measured = dict[str, dict[str, float]]


class Balance:
    """Brings the tasks of a student together by the method that the config names.

    A step's gradient is computed in one of two ways. *Together*: one backward pass of the weighted sum, where data
    parallelism averages as it goes. *Apart*: one backward pass for each task (which costs the same, as tasks share no
    activations), averaged over ranks at the end; the balancing is then decided on the averages, so that two ranks do
    what one with the same rows does.

    Args:
        distill: the method and its options.
        objective: what is trained.
        micro_per_step: micro-batches of a step.
        num_ranks: data-parallel workers.
        seed: of methods that draw.
    """

    def __init__(
        self, distill: DistillConfig, objective: Objective, micro_per_step: int, num_ranks: int, seed: int
    ) -> None:
        self.names = list(objective.tasks)
        options = distill.balancing_options
        self.every, self.num_ranks, self.seed = options.measure_every, num_ranks, seed
        name = distill.balancing if len(self.names) > 1 else "fixed"
        self.by_losses = self.by_gradients = None
        # Imported where they are used: they bring convex solvers along.
        if name in BY_LOSSES:
            from raydistill.balancing.scalar import by_losses

            self.by_losses = by_losses(name, len(self.names), options)
        elif name not in PLAIN:
            from raydistill.balancing.gradient import by_gradients

            self.by_gradients = by_gradients(name, len(self.names), options)
        trunk = list(objective.student.trunk.parameters()) if len(self.names) > 1 else []
        rest = [each for each in objective.student.parameters() if not any(each is other for other in trunk)]
        # Projectors learn from a task's loss, a gate from its own.
        projectors = [
            p for name, each in objective.beside.items() if name in objective.of_tasks for p in each.parameters()
        ]
        gates = [
            p for name, each in objective.beside.items() if name not in objective.of_tasks for p in each.parameters()
        ]
        # Weights that hang on the losses of a whole step are not known before its last micro-batch.
        self._whole = self.by_losses is not None and micro_per_step > 1
        # Such weights are of all that a task's loss reaches; weights by gradients are of the trunk alone.
        everything, apart = [*trunk, *rest, *projectors], [*rest, *projectors, *gates]
        shared, others = (everything, gates) if self.by_losses else (trunk, apart)
        self._task_weights = objective.task_weights
        if self.by_losses:
            self.by_losses.to(next(objective.parameters()).device)
        self._trunk_size = sum(parameter.numel() for parameter in trunk)
        self._gradients = TaskGradients(shared, others, len(self.names))
        self._losses: Tensor | None = None
        self._apart = False

    @property
    def parameters(self) -> tuple[nn.Parameter, ...]:
        """What the method learns with the student."""
        return self.by_losses.parameters if self.by_losses else ()

    @property
    def looks_again(self) -> bool:
        """`learn` wants to see the losses of the step's rows once more."""
        return self.by_losses is not None and self.by_losses.looks_again

    def begin(self, step: int) -> bool:
        """A step begins. Returns whether its backward pass is one, which data parallelism may average."""
        self._losses = None
        self._apart = (
            self.by_gradients is not None or self._whole or (len(self.names) > 1 and (step + 1) % self.every == 0)
        )
        return not self._apart

    def backward(self, by_task: dict[str, Tensor], beside: Tensor | None, step: int) -> None:
        """A micro-batch's share of the step's gradient."""
        losses = torch.stack([loss.detach() for loss in by_task.values()])
        self._losses = losses if self._losses is None else self._losses + losses
        self.names = list(by_task)  # in the order of the losses, whatever that of the student's tasks
        if self._apart:
            self._gradients.add(list(by_task.values()), beside)
            return
        if self.by_losses is None:
            total = sum(by_task.values(), torch.zeros_like(losses[0]))
        else:
            self._losses = self._over_ranks(self._losses)
            weights = self._weights_by_losses(step, self._losses)
            total = (weights.to(losses) * torch.stack(list(by_task.values()))).sum()
        if beside is not None:
            total = total + beside
        # DDP averages gradients over ranks; the counts are global, so the sum is what is wanted.
        (total * self.num_ranks).backward()

    def finish(self, step: int) -> Measured | None:
        """All micro-batches are in: leaves the gradient in the parameters.

        Returns:
            Where the tasks were told apart, how far their gradients agree: see `_measure`.
        """
        if not self._apart:
            return None
        assert self._losses is not None
        self._losses = self._over_ranks(self._losses)
        rows = self._gradients.average()
        trunk = rows[:, : self._trunk_size]
        gramian = (trunk @ trunk.T).double().cpu()
        weights = torch.ones(len(self.names), dtype=torch.float64)
        if self.by_losses is not None:
            weights = self._weights_by_losses(step, self._losses).double().cpu()
        elif self.by_gradients is not None:
            with seeded(self.seed, step):
                # A task that has nothing to say in this step, or has learned all, is none to bargain with.
                if bool((gramian.diagonal() > 0).all()):
                    weights = self.by_gradients.weights(of_full_rank(gramian)).double().cpu()
        self._gradients.write(weights.to(rows) @ rows)
        return self._measure(gramian, weights)

    def learn(self, step: int, look_again: Callable[[], Tensor]) -> None:
        """The optimizer has made its step.

        Args:
            step: how many are done now.
            look_again: the losses [tasks] of the same rows by the new student, this rank's share.
        """
        if self.by_losses is not None:
            after = self._over_ranks(look_again()) if self.looks_again else None
            self.by_losses.learn(step, after)

    def state(self) -> dict[str, Any]:
        """For the checkpoint."""
        method = self.by_losses or self.by_gradients
        return method.state() if method else {}

    def restore(self, state: dict[str, Any]) -> None:
        """From `state`."""
        method = self.by_losses or self.by_gradients
        if method and state:
            method.restore(state)

    def _weights_by_losses(self, step: int, losses: Tensor) -> Tensor:
        assert self.by_losses is not None
        with seeded(self.seed, step):
            return self.by_losses.weights(losses)

    def _over_ranks(self, losses: Tensor) -> Tensor:
        if self.num_ranks > 1:
            losses = losses.clone()
            torch.distributed.all_reduce(losses)
        return losses

    def _measure(self, gramian: Tensor, weights: Tensor) -> Measured:
        """By task its weight and its share of the loss; by pair the cosine of their gradients on the trunk."""
        assert self._losses is not None
        losses = (self._losses.double().cpu() * weights).tolist()
        total = sum(abs(loss) for loss in losses) or 1.0
        pairs: dict[str, float] = {}
        for i, first in enumerate(self.names):
            for j in range(i + 1, len(self.names)):
                norms = math.sqrt(max(0.0, float(gramian[i, i] * gramian[j, j])))
                pairs[f"{first}~{self.names[j]}"] = float(gramian[i, j]) / norms if norms else 0.0
        return {
            "weight": {
                name: weight * self._task_weights.get(name, 1.0)
                for name, weight in zip(self.names, weights.tolist(), strict=True)
            },
            "loss_share": {name: loss / total for name, loss in zip(self.names, losses, strict=True)},
            "gradient_norm": {name: math.sqrt(max(0.0, float(gramian[i, i]))) for i, name in enumerate(self.names)},
            "cosine": pairs,
        }


def of_full_rank(gramian: Tensor) -> Tensor:
    """Without the tiny negative eigenvalues that rounding leaves where gradients are alike: solvers mind them."""
    values, vectors = torch.linalg.eigh(gramian)
    if not bool(torch.isfinite(values).all()) or float(values[-1]) <= 0:
        return gramian
    mended: Tensor = vectors @ torch.diag(values.clamp_min(1e-10 * float(values[-1]))) @ vectors.T
    # A task without any gradient stays one.
    silent = gramian.diagonal() == 0
    return mended.masked_fill(silent.unsqueeze(0) | silent.unsqueeze(1), 0.0)


@contextlib.contextmanager
def seeded(seed: int, step: int) -> Iterator[None]:
    """Random numbers of a step: the same on all ranks, and after a resume."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(hash((seed, step)) & 0x7FFF_FFFF_FFFF_FFFF)
        yield
