"""Losses of forks; each gives a 0-d tensor first."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LOG_FLT_MIN = 87.33654475  # -log of the smallest normal float32, where Caffe cuts a probability
NO_LABEL = -(2**40)  # torch would pass over -100


def divided(total: Tensor, by: str | float, batch: int, count: int, valid: Tensor | None = None) -> Tensor:
    """`total` by a number, or by FULL (all), VALID (those that count; None: all do), BATCH_SIZE or NONE; by 1 at least."""
    if not isinstance(by, str):
        return total / max(by, 1.0)
    if by == "VALID" and valid is not None:
        return total / valid.sum().clamp(min=1)
    return total if by == "NONE" else total / max(batch if by == "BATCH_SIZE" else count, 1)


def like(t: Tensor, other: Tensor) -> Tensor:
    """The values in the shape of the other; a reshape to the same shape would cost as much as a small loss."""
    return t if t.shape == other.shape else t.reshape(other.shape)


class L1Loss(nn.Module):
    """The sum of absolute differences, by the batch size or by their number."""

    def __init__(self, normalization: str = "BATCH_SIZE") -> None:
        super().__init__()
        self.normalization = normalization

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return divided((a - like(b, a)).abs().sum(), self.normalization, a.shape[0], a.numel())


class SmoothL1LossEach(nn.Module):
    """0.5 d^2 where |d| < 1, else |d| - 0.5, of weighed differences, summed, by the places; and by choice the sum at each place [N, 1, H, W].

    The gradient is that of d alone, as R-FCN has it: not weighed once more.
    """

    def __init__(self, normalization: str | float, each: bool = False) -> None:
        super().__init__()
        self.normalization, self.each = normalization, each

    def forward(self, a: Tensor, b: Tensor, weight: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        b = like(b, a)
        if weight is not None:
            difference = a - b
            a, b = difference.detach() * like(weight.detach(), a), a.new_zeros(()).expand_as(a)
            a = a + (difference - difference.detach()) if difference.requires_grad else a
        cost = F.smooth_l1_loss(a, b, reduction="none" if self.each else "sum")
        total = cost.sum() if self.each else cost
        loss = divided(total, self.normalization, a.shape[0], math.prod((a.shape[0], *a.shape[2:])))
        return (loss, cost.sum(1).reshape(a.shape[0], 1, *(*a.shape[2:], 1, 1)[:2])) if self.each else loss


class SoftmaxWithLossEach(nn.Module):
    """-log softmax(x)[label] along `axis`, by the labels that count; then the probabilities and the loss of each label, with 4 axes."""

    def __init__(self, axis: int, normalization: str | float, ignore_label: int | None = None, outputs: int = 1) -> None:
        super().__init__()
        self.axis, self.normalization, self.ignore_label, self.outputs = axis, normalization, ignore_label, outputs

    def forward(self, x: Tensor, label: Tensor) -> Tensor | tuple[Tensor, ...]:
        batch, classes, inner = math.prod(x.shape[: self.axis]), x.shape[self.axis], math.prod(x.shape[self.axis + 1 :])
        # torch's ONNX export of a loss of two axes loses the sum behind it; of three it is slow
        places = (inner,) if inner != 1 or torch.compiler.is_exporting() else ()
        true, valid = label.detach().long().reshape(batch, *places), None
        if self.ignore_label is not None:
            valid = true != self.ignore_label
            true = torch.where(valid, true, 0)
        cost = self.cost(F.cross_entropy(x.reshape(batch, classes, *places), true, ignore_index=NO_LABEL, reduction="none"))
        cost = cost if valid is None else cost * valid
        loss = divided(cost.sum(), self.normalization, batch, cost.numel(), valid)
        if self.outputs == 1:
            return loss
        each = cost.reshape((*label.shape, 1, 1, 1, 1)[:4])
        return (loss, self.probabilities(x), each)[: self.outputs]

    def cost(self, surprise: Tensor) -> Tensor:
        """What a label costs by -log of its probability, cut at the smallest float in its value alone: a hopeless sample learns too."""
        return surprise - F.softshrink(surprise.detach(), LOG_FLT_MIN) if surprise.requires_grad else surprise.clamp(max=LOG_FLT_MIN)

    def probabilities(self, x: Tensor) -> Tensor:
        """The softmax, with 4 axes."""
        return x.softmax(self.axis).reshape((*x.shape, 1, 1, 1, 1)[:4])


class FocalLoss(SoftmaxWithLossEach):
    """-alpha (1 - p)^gamma log p of the label's softmax p, by the labels that count."""

    def __init__(self, axis: int, alpha: float, gamma: float, normalization: str | float, ignore_label: int | None = None, outputs: int = 1) -> None:
        super().__init__(axis, normalization, ignore_label, outputs)
        self.alpha, self.gamma = alpha, gamma

    def cost(self, surprise: Tensor) -> Tensor:
        """Down-weighs the easy labels; where a power has no derivative, below 1 at probability 1, Caffe passes no gradient on."""
        doubt = 1 - (-surprise).exp()
        doubt = doubt.clamp(min=torch.finfo(torch.float32).tiny) if self.gamma % 1 else doubt  # nor is one of a rounding below 0
        return self.alpha * doubt.pow(self.gamma) * super().cost(surprise)

    def probabilities(self, x: Tensor) -> Tensor:
        """The softmax."""
        return x.softmax(self.axis)


class ToCentres(torch.autograd.Function):
    """Half the mean squared distance of features [N, K] to their centres, with caffe-face's gradients.

    To a centre: sum of (centre - x) over its samples by 1 + their number, whatever the weight of the loss.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, centres: Tensor, label: Tensor) -> Tensor:
        distance = x - F.embedding(label, centres)
        ctx.save_for_backward(distance, label)
        ctx.classes = len(centres)
        return torch.linalg.vecdot(distance.flatten(), distance.flatten()) / (2 * len(x))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        distance, label = ctx.saved_tensors
        count = torch.bincount(label, minlength=ctx.classes)
        share = distance / -(1 + count[label])[:, None]
        move = distance.new_zeros(ctx.classes, distance.shape[1]).index_add_(0, label, share)
        return distance * (gradient / len(distance)), move, None


class CenterLoss(nn.Module):
    """Half the mean squared distance of features [N, K] to the centre of their class."""

    def __init__(self, classes: int, size: int) -> None:
        super().__init__()
        self.centres = nn.Parameter(torch.zeros(classes, size))

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        x, label = x.reshape(-1, self.centres.shape[1]), label.detach().long().flatten()
        if torch.compiler.is_compiling():
            return (x - self.centres[label]).square().sum() / (2 * len(x))
        return ToCentres.apply(x, self.centres, label)  # type: ignore[no-any-return]


class TripletLoss(nn.Module):
    """max(0, margin + |a - p|^2 - |a - n|^2) of anchors, positives and negatives [N, ...], summed; with weights [N] weighed, by 2 N."""

    def __init__(self, margin: float, normalization: str = "BATCH_SIZE") -> None:
        super().__init__()
        self.margin, self.normalization = margin, normalization

    def forward(self, anchor: Tensor, positive: Tensor, negative: Tensor, weight: Tensor | None = None) -> Tensor:
        near, far = ((anchor - other).flatten(1).square().sum(1) for other in (positive, negative))
        cost = F.relu(self.margin + near - far)
        batch = anchor.shape[0]
        if weight is None:
            return divided(cost.sum(), self.normalization, batch, batch)
        return (cost * weight.detach().flatten()).sum() / (2 * batch)
