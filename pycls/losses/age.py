"""Age as bins, as an expectation, and as an order. Ages beyond the last bin belong to it: "100 or more"."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .reduction import loss


def bins_of(age: Tensor, low: int, step: int, bins: int) -> Tensor:
    """Ages [N] -> bins int64 [N]; what lies outside goes to the first or the last."""
    return ((age - low) / step).floor().clamp(0, bins - 1).long()


@loss(classes=True)
def age_bins(logits: Tensor, age: Tensor, *, low: int = 0, step: int = 1, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of the age's bin; read by the likeliest one. logits [N, bins], age float [N] -> costs [N]."""
    target = bins_of(age, low, step, logits.shape[1])
    return F.cross_entropy(logits, target, reduction="none", label_smoothing=label_smoothing)


@loss(classes=True)
def age_expectation(logits: Tensor, age: Tensor, *, low: int = 0, step: int = 1, distance: float = 0.0) -> Tensor:
    """The same, read by the expectation: Rothe et al., DEX, 2015. `distance` adds |E - age|, in bins, with that factor.

    A censored age, in the last bin, is not pulled down from above: its expectation may lie anywhere in that bin.
    """
    target = bins_of(age, low, step, logits.shape[1])
    costs = F.cross_entropy(logits, target, reduction="none")
    if not distance:
        return costs
    index = torch.arange(logits.shape[1], dtype=logits.dtype, device=logits.device)
    return costs + distance * ((logits.softmax(1) * index).sum(1) - target).abs()


@loss(classes=True)
def age_ordinal(logits: Tensor, age: Tensor, *, low: int = 0, step: int = 1) -> Tensor:
    """Sum over k of the binary cross-entropy of "older than bin k". logits [N, bins - 1], age float [N] -> costs [N].

    Cao, Mirjalili & Raschka, Rank consistent ordinal regression (CORAL), 2020: with one weight vector and a bias for each k, as the head
    of an ordinal task has, P(age > k) never rises with k.
    """
    above = bins_of(age, low, step, logits.shape[1] + 1).unsqueeze(1) > torch.arange(logits.shape[1], device=logits.device)
    return F.binary_cross_entropy_with_logits(logits, above.to(logits.dtype), reduction="none").sum(1)
