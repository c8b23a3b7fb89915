"""What every loss needs of its numbers: enough digits, and classes that no teacher knows."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

UNKNOWN = -6e4
# bfloat16 rounds UNKNOWN up to -59904, which must still read as unknown.
_UNKNOWN_AT_MOST = -5.98e4
# The log-probability of a class that is left out: finite, so that 0 · log 0 is 0 and never NaN; exp of it is 0.
LOG_ZERO = -1e30


def exact(tensor: Tensor) -> Tensor:
    """The tensor in at least float32: half precisions are widened, float64 stays."""
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


def unknown_classes(logits: Tensor) -> Tensor:
    """True where a logit says `UNKNOWN`: a bool tensor of the same shape. NaN is not unknown: it stays loud."""
    return logits <= _UNKNOWN_AT_MOST


def mask_unknown(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """The student's logits with the teacher's own value where no teacher knows the class, in at least float32.

    Both distributions are then restricted to the known classes, and nothing flows back to the others.

    Args:
        student_logits: [batch, num_classes], raw.
        teacher_logits: [batch, num_classes], raw; `UNKNOWN` or less where no teacher knows the class on this row.
    """
    student = exact(student_logits)
    return torch.where(unknown_classes(teacher_logits), exact(teacher_logits).to(student.dtype), student)


def log_probabilities(logits: Tensor, temperature: float, excluded: Tensor) -> Tensor:
    """log softmax(logits / T) over the classes that are not excluded; `LOG_ZERO`, without gradient, on the others.

    Args:
        logits: [batch, num_classes], raw.
        temperature: > 0.
        excluded: [batch, num_classes] bool. A row of excluded classes only is `LOG_ZERO` throughout.
    """
    tempered = exact(logits) / temperature
    # The lowest number, not -inf: a row of excluded classes only would be NaN on the way, and autograd's anomaly
    # detection would stop there.
    kept = tempered.masked_fill(excluded, torch.finfo(tempered.dtype).min)
    return F.log_softmax(kept, dim=-1).masked_fill(excluded, LOG_ZERO)


def mean_of_kept(values: Tensor, excluded: Tensor) -> Tensor:
    """Mean over the last dimension of the entries that are not excluded, [batch]; 0 where all are."""
    num_kept = (~excluded).sum(dim=-1).clamp_min(1)
    return values.masked_fill(excluded, 0.0).sum(dim=-1) / num_kept


def matrix_product(left: Tensor, right: Tensor) -> Tensor:
    """`left @ right` in the precision of its arguments: autocast would make it bfloat16."""
    with torch.autocast(left.device.type, enabled=False):
        return left @ right
