"""Binary cross-entropy on logits: a label each."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .reduction import Numbers, loss, numbers


@loss()
def bce(logits: Tensor, target: Tensor, *, weight: Numbers | None = None, pos_weight: Numbers | None = None, label_smoothing: float = 0.0) -> Tensor:
    """w (-p y log s(z) - (1 - y) log(1 - s(z))), which is Caffe's SigmoidCrossEntropyLoss. All [N] or [N, K]; weights [K] or a number.

    Caffe divides by "batch_size", so it is K times torch's mean, "valid": the same learning rate is K times as hot.
    """
    weights = None if weight is None else numbers(weight, logits)
    positive = None if pos_weight is None else numbers(pos_weight, logits)
    if label_smoothing:
        target = target * (1 - label_smoothing) + label_smoothing / 2
    return F.binary_cross_entropy_with_logits(logits, target, weights, reduction="none", pos_weight=positive)
