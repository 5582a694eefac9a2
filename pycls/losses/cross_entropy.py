"""Softmax cross-entropy, weighted or smoothed, and the negative log-likelihood behind a LogSoftmax."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .reduction import Numbers, loss, numbers, picked


def target_weights(like: Tensor, target: Tensor, *, weight: Numbers | None = None, **_: object) -> Tensor:
    """The weight of each target's class; 1 without weights."""
    return torch.ones_like(target, dtype=like.dtype) if weight is None else numbers(weight, like)[target]


@loss(classes=True, weights=target_weights)
def cross_entropy(logits: Tensor, target: Tensor, *, weight: Numbers | None = None, label_smoothing: float = 0.0) -> Tensor:
    """-w_y log softmax(z)_y. logits [N, C, ...], target int64 [N, ...], weight [C] -> costs [N, ...].

    Under "torch" the divisor is the sum of the targets' weights, so that a batch of one rare sample is not louder; Caffe's InfogainLoss
    with diag(w) is "valid", which counts.
    """
    weights = None if weight is None else numbers(weight, logits)
    return F.cross_entropy(logits, target, weight=weights, reduction="none", label_smoothing=label_smoothing)


@loss(classes=True, weights=target_weights)
def nll(log_probabilities: Tensor, target: Tensor, *, weight: Numbers | None = None) -> Tensor:
    """-w_y log p_y. log_probabilities [N, C, ...], as of a LogSoftmax -> costs [N, ...]."""
    return -picked(log_probabilities, target) * target_weights(log_probabilities, target, weight=weight)
