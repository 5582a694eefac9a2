"""Caffe's losses; each gives a 0-d tensor."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LOG_FLT_MIN = 87.33654475  # -log of the smallest normal float32, where Caffe cuts a probability
NO_LABEL = -(2**40)  # torch would pass over -100
LEAST_PROBABILITY = 1e-20  # where the other losses cut it


def divisor(mode: str, batch: int, count: int, valid: Tensor | None) -> Tensor | int:
    """What a loss is divided by: FULL all, VALID those that count (None: all do), BATCH_SIZE, NONE 1; never less than 1."""
    if mode == "VALID" and valid is not None:
        return valid.sum().clamp(min=1)
    if mode == "NONE":
        return 1
    return torch.sym_max(batch if mode == "BATCH_SIZE" else count, 1)  # type: ignore[return-value]


def like(t: Tensor, other: Tensor) -> Tensor:
    """The values in the shape of the other; a reshape to the same shape would cost as much as a small loss."""
    return t if t.shape == other.shape else t.reshape(other.shape)


class SoftmaxWithLoss(nn.Module):
    """-log softmax(x)[label] along `axis`, summed over the labels that count; a hopeless sample costs 87.3, its gradient stays p - 1."""

    def __init__(self, axis: int, normalization: str, ignore_label: int | None = None, probabilities: bool = False) -> None:
        super().__init__()
        self.axis, self.normalization, self.ignore_label, self.probabilities = axis, normalization, ignore_label, probabilities

    def forward(self, x: Tensor, label: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        shape, axis = x.shape, self.axis
        batch, classes, inner = math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])
        places = (inner,) if inner != 1 or torch.compiler.is_exporting() else ()  # torch's ONNX export of a loss of two axes loses the sum behind it
        label = label.long().reshape(batch, *places)
        flat = x if shape == (batch, classes, *places) else x.reshape(batch, classes, *places)
        total = self.costs(flat, label).sum()
        valid = None if self.ignore_label is None else (label != self.ignore_label).to(x.dtype)
        loss = total / divisor(self.normalization, batch, batch * inner, valid)
        return (loss, x.softmax(axis)) if self.probabilities else loss

    def costs(self, x: Tensor, label: Tensor) -> Tensor:
        """What each label of [N, ...] costs, from [N, C, ...]: in the value, what lies above the cut is left out."""
        ignored = NO_LABEL if self.ignore_label is None else self.ignore_label
        if torch.compiler.is_exporting():  # in operators that more readers of a file know
            cost = F.nll_loss(x.log_softmax(1), label, ignore_index=ignored, reduction="none")
            return cost + (cost.clamp(max=LOG_FLT_MIN) - cost).detach()
        cost = F.cross_entropy(x, label, ignore_index=ignored, reduction="none")
        return cost - F.softshrink(cost.detach(), LOG_FLT_MIN)


class SigmoidCrossEntropyLoss(nn.Module):
    """-t log s(x) - (1 - t) log(1 - s(x)), summed; targets may lie outside of 0..1. A target counts as ignored by its whole part."""

    def __init__(self, normalization: str, ignore_label: int | None = None, probabilities: bool = False) -> None:
        super().__init__()
        self.normalization, self.ignore_label, self.probabilities = normalization, ignore_label, probabilities

    def forward(self, x: Tensor, target: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        target, valid = like(target.detach(), x), None
        if self.ignore_label is None:
            total = F.binary_cross_entropy_with_logits(x, target, reduction="sum")
        else:
            valid = (target.trunc() != self.ignore_label).to(x.dtype)
            total = F.binary_cross_entropy_with_logits(x, torch.where(valid > 0, target, 0), valid, reduction="sum")
        loss = total / divisor(self.normalization, x.shape[0], math.prod(x.shape), valid)
        return (loss, x.sigmoid()) if self.probabilities else loss


class EuclideanLoss(nn.Module):
    """Half the sum of squared differences, by the batch size."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return F.mse_loss(a, like(b, a), reduction="sum") / (2 * a.shape[0])


def classes_of(label: Tensor, batch: int) -> Tensor:
    """The classes [N, 1] of float labels, cut towards zero."""
    return label.detach().reshape(-1)[:batch, None].long()


class HingeLoss(nn.Module):
    """max(0, 1 - x) of the true class and max(0, 1 + x) of all others, or their squares, summed, by the batch size."""

    def __init__(self, squared: bool = False) -> None:
        super().__init__()
        self.squared = squared

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        x = x[..., None].flatten(1)
        sign = torch.ones_like(x).scatter(1, classes_of(label, x.shape[0]), -1.0)
        cost = F.relu(1 + sign * x)
        return (cost.square() if self.squared else cost).sum() / x.shape[0]


class MultinomialLogisticLoss(nn.Module):
    """Mean of -log p[label]; a probability below 1e-20 counts as 1e-20."""

    def forward(self, p: Tensor, label: Tensor) -> Tensor:
        p = p[..., None].flatten(1)
        return -p.gather(1, classes_of(label, p.shape[0])).clamp(min=LEAST_PROBABILITY).log().sum() / p.shape[0]


class ContrastiveLoss(nn.Module):
    """d^2 of a similar pair, max(margin - d, 0)^2 of another (legacy: max(margin - d^2, 0)), summed, by twice the batch size.

    Hadsell, Chopra & LeCun, Dimensionality Reduction by Learning an Invariant Mapping, 2006. The gradient divides by d + 1e-4 (CASES 16).
    """

    def __init__(self, margin: float, legacy: bool = False) -> None:
        super().__init__()
        self.margin, self.legacy = margin, legacy

    def forward(self, a: Tensor, b: Tensor, similar: Tensor) -> Tensor:
        squared = (a - like(b, a))[..., None].flatten(1).square().sum(1)
        if self.legacy:
            apart = F.relu(self.margin - squared)
        else:
            distance = squared.detach().sqrt()
            pull = squared / (2 * (distance + 1e-4))  # its gradient is Caffe's: (a - b) / (d + 1e-4), which is 0 for equal features
            apart = F.relu(self.margin - (distance + (pull - pull.detach()))).square()
        return torch.where(classes_of(similar, a.shape[0]).squeeze(1) != 0, squared, apart).sum() / (2 * a.shape[0])


class Raised(torch.autograd.Function):
    """At least `least`, in the value alone: the gradient passes where the value was raised too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, least: float) -> Tensor:
        return x.clamp(min=least)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


class InfogainLoss(nn.Module):
    """-sum over l of matrix[label, l] * log softmax(x)[l] along `axis`, over the labels that count; log p is cut at log 1e-20.

    The matrix [C, C] is a buffer, or the third input, which gets no gradient.
    """

    matrix: Tensor | None

    def __init__(
        self, axis: int, normalization: str, classes: int | None = None, ignore_label: int | None = None, probabilities: bool = False
    ) -> None:
        super().__init__()
        self.axis, self.normalization, self.ignore_label, self.probabilities = axis, normalization, ignore_label, probabilities
        self.register_buffer("matrix", None if classes is None else torch.eye(classes))

    def forward(self, x: Tensor, label: Tensor, matrix: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        matrix = (self.matrix if matrix is None else matrix).detach().reshape(x.shape[self.axis], -1).to(x.dtype)  # type: ignore[union-attr]
        log_p = x.log_softmax(self.axis).movedim(self.axis, -1)
        label = label.detach().long().reshape(log_p.shape[:-1])
        valid = None if self.ignore_label is None else (label != self.ignore_label).to(x.dtype)
        weight = F.embedding(label if valid is None else torch.where(valid > 0, label, 0), matrix)
        weight = (weight if valid is None else weight * valid[..., None]).flatten()
        total = weight @ Raised.apply(log_p.flatten(), math.log(LEAST_PROBABILITY))
        loss = -total / divisor(self.normalization, math.prod(x.shape[: self.axis]), math.prod(label.shape), valid)
        return (loss, x.softmax(self.axis)) if self.probabilities else loss
