"""torch's two multi-label margin losses, with labels that may be missing."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .reduction import Numbers, loss, numbers


@loss()
def soft_margin(logits: Tensor, target: Tensor, *, weight: Numbers | None = None) -> Tensor:
    """-w (y log s(z) + (1 - y) log s(-z)). All [N, K], weight [K] -> costs [N, K].

    torch's MultiLabelSoftMarginLoss, whose mean over labels and then samples is "valid" where no label is missing; weights multiply
    and are not divided out.
    """
    costs = -(target * F.logsigmoid(logits) + (1 - target) * F.logsigmoid(-logits))
    return costs if weight is None else costs * numbers(weight, logits)


@loss(rows=True)
def margin(logits: Tensor, target: Tensor, present: Tensor) -> Tensor:
    """Sum over positives j and negatives i of max(0, 1 - (z_j - z_i)), by K. All [N, K], target multi-hot -> costs [N].

    torch's MultiLabelMarginLoss takes indices instead: see `multi_hot_to_indices`. A missing label is neither positive nor negative.
    """
    positive, negative = present & (target > 0.5), present & (target <= 0.5)
    pairs = positive.unsqueeze(2) & negative.unsqueeze(1)
    gaps = F.relu(1 - (logits.unsqueeze(2) - logits.unsqueeze(1)))
    return torch.where(pairs, gaps, 0.0).sum((1, 2)) / logits.shape[1]


def multi_hot_to_indices(target: Tensor) -> Tensor:
    """Multi-hot [N, K] -> the indices of the positives int64 [N, K], in order, padded with -1: the target of torch's MultiLabelMarginLoss."""
    positive = target > 0.5
    order = (~positive).long().argsort(dim=1, stable=True)
    return torch.where(positive.gather(1, order), order, -1)
