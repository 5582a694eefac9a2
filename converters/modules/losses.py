"""Caffe's losses; each gives a 0-d tensor."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LOG_FLT_MIN = 87.33654475  # -log of the smallest normal float32, where Caffe cuts a probability


def divisor(mode: str, batch: int, valid: Tensor) -> Tensor | int:
    """What a loss is divided by: FULL all, VALID those that count, BATCH_SIZE, NONE 1; never less than 1."""
    if mode == "VALID":
        return valid.sum().clamp(min=1)
    if mode == "NONE":
        return 1
    return torch.sym_max(math.prod(valid.shape) if mode == "FULL" else batch, 1)  # type: ignore[return-value]


class SoftmaxWithLoss(nn.Module):
    """-log softmax(x)[label] along `axis`, summed over the labels that count; a hopeless sample costs 87.3, its gradient stays p - 1."""

    def __init__(self, axis: int, normalization: str, ignore_label: int | None = None, probabilities: bool = False) -> None:
        super().__init__()
        self.axis, self.normalization, self.ignore_label, self.probabilities = axis, normalization, ignore_label, probabilities

    def forward(self, x: Tensor, label: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        log_p = x.log_softmax(self.axis).movedim(self.axis, -1)
        label = label.detach().trunc().long().reshape(log_p.shape[:-1])
        valid = torch.ones_like(label, dtype=x.dtype) if self.ignore_label is None else (label != self.ignore_label).to(x.dtype)
        cost = -log_p.gather(-1, torch.where(valid > 0, label, 0)[..., None]).squeeze(-1)
        cost = cost + (cost.clamp(max=LOG_FLT_MIN) - cost).detach()
        batch = math.prod(x.shape[: self.axis])
        loss = (cost * valid).sum() / divisor(self.normalization, batch, valid)
        return (loss, x.softmax(self.axis)) if self.probabilities else loss


class SigmoidCrossEntropyLoss(nn.Module):
    """-t log s(x) - (1 - t) log(1 - s(x)), summed; targets may lie outside of 0..1. A target counts as ignored by its whole part."""

    def __init__(self, normalization: str, ignore_label: int | None = None, probabilities: bool = False) -> None:
        super().__init__()
        self.normalization, self.ignore_label, self.probabilities = normalization, ignore_label, probabilities

    def forward(self, x: Tensor, target: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        target = target.detach().reshape(x.shape)
        valid = torch.ones_like(target) if self.ignore_label is None else (target.trunc() != self.ignore_label).to(x.dtype)
        cost = F.binary_cross_entropy_with_logits(x, torch.where(valid > 0, target, 0), reduction="none")
        loss = (cost * valid).sum() / divisor(self.normalization, x.shape[0], valid)
        return (loss, x.sigmoid()) if self.probabilities else loss


class EuclideanLoss(nn.Module):
    """Half the sum of squared differences, by the batch size."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return (a - b.reshape(a.shape)).square().sum() / (2 * a.shape[0])
