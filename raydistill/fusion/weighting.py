"""How much each teacher counts on each row: the strategies of a teacher ensemble."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from raydistill.losses.numerics import UNKNOWN, matrix_product, unknown_classes
from raydistill.min_norm import smallest_norm


def by_accuracy(accuracies: Sequence[float]) -> list[float]:
    """The teacher that is best on the validation split speaks alone.

        w_k = 1 for k = argmax_j accuracy_j, else 0

    Where it says nothing, because it is lost, the others speak with equal weights.

    Source: model selection by validation; what every ensemble has to beat.

    Use it when one teacher is clearly better than the others.
    """
    best = max(range(len(accuracies)), key=lambda index: accuracies[index])
    return [float(index == best) for index in range(len(accuracies))]


def by_entropy(logits: Tensor, speaks: Tensor) -> Tensor:
    """The surer a teacher is of a row, the more it counts there.

        w_k = (1 − H_k / Σ_j H_j) / (K − 1),   H_k = −Σ_c p_k,c log p_k,c

    over the K teachers that speak on the row, at temperature 1. The entropy is of the classes that a teacher knows,
    relative to the most that they allow.

    Source: Kwon, Na, Lee, Kim, "Adaptive Knowledge Distillation Based on Entropy" (ICASSP 2020), in the form in which
    the authors of CA-MKD compare with it (EBKD).

    Use it when the teachers are calibrated and good at different rows. A teacher that is sure of everything wins
    everywhere: look at who was trusted. Of multilabel tasks the weights are of each label; a number has no entropy:
    not for regression.

    Args:
        logits: [teachers, batch, classes]; see `combining.spoken`.
        speaks: [teachers, batch] bool.

    Returns:
        [teachers, batch], not yet brought to a sum of 1.
    """
    log_p = logits.log_softmax(dim=-1)
    entropy = -(log_p.exp() * log_p.clamp_min(UNKNOWN)).sum(dim=-1)
    num_known = (~unknown_classes(logits)).sum(dim=-1).clamp_min(2)
    return _least_is_best(entropy / num_known.log().to(entropy.dtype), speaks)


def by_confidence(logits: Tensor, speaks: Tensor, hard_labels: Tensor) -> Tensor:
    """The better a teacher knows the label of a row, the more it counts there.

        w_k = (1 − exp(L_k) / Σ_j exp(L_j)) / (K − 1),   L_k = −log p_k,label

    over the K teachers that speak on the row. A teacher that does not know the label's class counts for nothing
    there. Rows without a label have equal weights.

    Source: Zhang, Chen, Wang, "Confidence-Aware Multi-Teacher Knowledge Distillation" (ICASSP 2022), equations 1–2.

    Use it when most rows have labels and some teachers are wrong on some of them. Of multilabel tasks the weights are
    of each label; of regression L_k is half the squared error.

    Args:
        logits: [teachers, batch, classes]; see `combining.spoken`.
        speaks: [teachers, batch] bool.
        hard_labels: [batch] int64, −1: none.

    Returns:
        [teachers, batch], not yet brought to a sum of 1.
    """
    labelled = hard_labels >= 0
    target = hard_labels.clamp_min(0).expand(len(logits), -1).unsqueeze(-1)
    losses = -logits.log_softmax(dim=-1).gather(-1, target).squeeze(-1)
    able = speaks & ~unknown_classes(logits.gather(-1, target).squeeze(-1))
    return torch.where(labelled, by_losses(losses, able), speaks.to(losses.dtype))


def by_losses(losses: Tensor, able: Tensor) -> Tensor:
    """(1 − exp(L_k) / Σ_j exp(L_j)) / (K − 1) over the teachers that are able; 1 for one alone.

    Args:
        losses: [teachers, batch].
        able: [teachers, batch] bool.
    """
    relative = losses.masked_fill(~able, -torch.inf).softmax(dim=0).nan_to_num(nan=0.0)
    count = able.sum(dim=0)
    return torch.where(count > 1, (1.0 - relative) / (count - 1).clamp_min(1), 1.0) * able


def by_gradients(logits: Tensor, speaks: Tensor, student_logits: Tensor, temperature: float, most: float) -> Tensor:
    """The weights whose common gradient hurts no teacher's loss, as far as no teacher gets more than `most`.

        min_w ‖ Σ_k w_k g_k ‖²,   Σ_k w_k = 1,   0 ≤ w_k ≤ most,   g_k = mean over rows of T (q − p_k)

    where g_k is the gradient of the student's loss against teacher k with respect to the student's logits, averaged
    over the batch, as in the authors' code.

    Source: Du, You, Li, Wu, Wang, Qian, Zhang, "Agree to Disagree: Adaptive Ensemble Knowledge Distillation in
    Gradient Space" (NeurIPS 2020), equations 9–11.

    Use it when teachers pull in different directions and none is known to be the better one. Small and outlying
    gradients get the most weight, which is no sign of quality. Of multilabel tasks softmax is the logistic function; of
    regression g_k = mean over rows of (student − teacher k).

    Args:
        logits: [teachers, batch, classes]; see `combining.spoken`.
        speaks: [teachers, batch] bool. Rows on which not all speak do not count; a teacher that says nothing in the
            whole batch has no part.
        student_logits: [batch, classes].
        most: 1 / K at least is used; 1: the min-norm point.

    Returns:
        [teachers, batch], the same on every row.
    """
    present = speaks.any(dim=1)
    rows = (speaks | ~present.unsqueeze(1)).all(dim=0)
    known = ~unknown_classes(logits)
    q = torch.where(known, student_logits.detach(), torch.full_like(logits, UNKNOWN)).div(temperature).softmax(dim=-1)
    gradients = temperature * (q - (logits / temperature).softmax(dim=-1)) * rows.unsqueeze(-1)
    mean = gradients.sum(dim=1) / rows.sum().clamp_min(1)
    return of_least_norm(mean, present, most).unsqueeze(1).expand(-1, logits.shape[1])


def of_least_norm(gradients: Tensor, present: Tensor, most: float) -> Tensor:
    """The weights [teachers] of the shortest mean of gradients: see `by_gradients`.

    Args:
        gradients: [teachers, outputs].
        present: [teachers] bool; the others have no part.
        most: of one weight.
    """
    # In double precision: rounded inner products of like gradients are no Gramian any more.
    exactly = gradients.double()
    gramian = matrix_product(exactly, exactly.T).cpu().numpy()
    weights = np.zeros(len(gradients))
    there = present.cpu().numpy()
    if there.any():
        weights[there] = smallest_norm(gramian[np.ix_(there, there)], most)
    return torch.from_numpy(weights).to(gradients)


def _least_is_best(values: Tensor, speaks: Tensor) -> Tensor:
    """(1 − v_k / Σ v) / (K − 1) over those that speak; 1 for one alone."""
    values = values * speaks
    count = speaks.sum(dim=0)
    total = values.sum(dim=0)
    # Nobody has any doubt: all are alike.
    relative = torch.where(
        total > 0, values / total.clamp_min(torch.finfo(values.dtype).tiny), 1.0 / count.clamp_min(1)
    )
    return torch.where(count > 1, (1.0 - relative) / (count - 1).clamp_min(1), 1.0) * speaks


class Gate(torch.nn.Module):
    """Learned on the labelled rows: from what all teachers say to how much each of them counts.

        w = softmax(W [p_1; …; p_K] + b),   loss_gate = −log Σ_k w_k p_k,label

    It begins with equal weights. Its loss reaches no other part of the student, and the student's loss does not
    reach it, so that it cannot make its task easy by choosing the teacher that is easiest to follow.

    Source: a mixture of experts (Jacobs, Jordan, Nowlan, Hinton, "Adaptive Mixtures of Local Experts", 1991, equation
    1.2) whose experts are frozen: stacked generalisation (Wolpert, 1992).

    Use it when some rows have labels, and teachers differ by class or by kind of row. Of multilabel tasks one gate
    serves all labels: it sees what the teachers say of one of them, and not which. Numbers have no probabilities:
    regression has no gate.

    Args:
        num_teachers: K.
        num_classes: of the task.
    """

    def __init__(self, num_teachers: int, num_classes: int) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(num_teachers * num_classes, num_teachers)
        torch.nn.init.zeros_(self.linear.weight)
        torch.nn.init.zeros_(self.linear.bias)

    def forward(self, logits: Tensor, speaks: Tensor) -> Tensor:
        """[teachers, batch] weights from [teachers, batch, classes], see `combining.spoken`."""
        probabilities = logits.softmax(dim=-1) * speaks.unsqueeze(-1)
        entered = probabilities.permute(1, 0, 2).flatten(1)
        with torch.autocast(entered.device.type, enabled=False):
            scores = self.linear(entered.to(self.linear.weight.dtype)).T
        weights: Tensor = scores.masked_fill(~speaks, -torch.inf).softmax(dim=0).nan_to_num(nan=0.0)
        return weights

    def loss(self, weights: Tensor, logits: Tensor, hard_labels: Tensor) -> Tensor:
        """−log of what the teachers together give the label, summed over the labelled rows."""
        labelled = hard_labels >= 0
        target = hard_labels.clamp_min(0).expand(len(logits), -1).unsqueeze(-1)
        log_p = F.log_softmax(logits, dim=-1).gather(-1, target).squeeze(-1).clamp_min(-50.0)
        # The floor keeps a row that every teacher has wrong from outweighing all others.
        together = (weights * log_p.exp()).sum(dim=0).clamp_min(1e-12)
        return -(together.log() * labelled).sum()
