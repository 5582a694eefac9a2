"""What the losses share: labels that are missing, and what a sum is divided by.

valid        the labels that are there                    Caffe's VALID, torch's "mean" without weights
full         all labels                                   Caffe's FULL
batch_size   the batch                                    Caffe's BATCH_SIZE
none         1                                            Caffe's NONE, torch's "sum"
torch        as torch's "mean": the weights of the targets for a weighted cross-entropy, else the labels that are there

A loss without a label is 0 and its gradient 0: nothing divides by less than what is there. Shapes never depend on the mask, so all
compile; and nothing is multiplied by the mask, since 0 * nan is nan.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import update_wrapper
from typing import Any, NamedTuple

import torch
from torch import Tensor

Numbers = Sequence[float] | Tensor | float


class Sums(NamedTuple):
    """A loss before its division. Both add up over batches and processes; the divisor of "none" is 0, which divides by 1."""

    numerator: Tensor
    divisor: Tensor

    @property
    def loss(self) -> Tensor:
        """The loss, 0-d."""
        return divided(self.numerator, self.divisor)


def divided(numerator: Tensor, divisor: Tensor) -> Tensor:
    """The quotient; the numerator itself where the divisor is 0."""
    return numerator / torch.where(divisor > 0, divisor, 1.0)


class Loss:
    """A function of costs with masks and normalizations around it. Made by `loss`.

    `costs(logits, target, **options)` gives one cost a label, of the target's shape. With `rows` it takes the mask as well, and
    gives one a row; a row counts if one of its labels is there. `weights(target, **options)` are what "torch" divides by.
    """

    def __init__(self, costs: Callable[..., Tensor], classes: bool, rows: bool, weights: Callable[..., Tensor] | None) -> None:
        update_wrapper(self, costs)
        self.costs, self.classes, self.rows, self.weights = costs, classes, rows, weights

    def __call__(self, logits: Tensor, target: Tensor, mask: Tensor | None = None, *, normalization: str = "valid", **options: Any) -> Tensor:
        """The loss, 0-d."""
        return self.sums(logits, target, mask, normalization=normalization, **options).loss

    def sums(self, logits: Tensor, target: Tensor, mask: Tensor | None = None, *, normalization: str = "valid", **options: Any) -> Sums:
        """Numerator and divisor. Half precision is computed in float32."""
        logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
        if not self.classes:
            logits = logits.reshape(target.shape)
            target = target.to(logits.dtype)
        present = torch.ones_like(target, dtype=torch.bool) if mask is None else mask.reshape(target.shape)
        target = torch.where(present, target, 0)
        logits = torch.where(present.unsqueeze(1) if self.classes else present, logits, 0.0)
        costs = self.costs(logits, target, present, **options) if self.rows else self.costs(logits, target, **options)
        kept = present.flatten(1).any(1) if self.rows else present
        return Sums(torch.where(kept, costs, 0.0).sum(), self._divisor(normalization, logits, target, kept, options))

    def divisor(self, target: Tensor, mask: Tensor | None = None, *, normalization: str = "valid", **options: Any) -> Tensor:
        """What the loss is divided by, of the labels alone; adds up over the batches that shall count as one."""
        present = torch.ones_like(target, dtype=torch.bool) if mask is None else mask.reshape(target.shape)
        kept = present.flatten(1).any(1) if self.rows else present
        return self._divisor(normalization, torch.empty(0, device=target.device), torch.where(present, target, 0), kept, options)

    def _divisor(self, normalization: str, like: Tensor, target: Tensor, kept: Tensor, options: dict[str, Any]) -> Tensor:
        if normalization == "torch" and self.weights is not None:
            return torch.where(kept, self.weights(like, target, **options), 0.0).sum()
        if normalization in ("valid", "torch"):
            return kept.sum().to(like.dtype)
        count = {"full": kept.numel(), "batch_size": kept.shape[0], "none": 0}[normalization]
        return torch.full((), count, dtype=like.dtype, device=kept.device)


def loss(*, classes: bool = False, rows: bool = False, weights: Callable[..., Tensor] | None = None) -> Callable[[Callable[..., Tensor]], Loss]:
    """Make a Loss of a function of costs. `classes`: logits [N, C, ...] against a target [N, ...]; else both have one shape."""
    return lambda costs: Loss(costs, classes, rows, weights)


def numbers(values: Numbers, like: Tensor) -> Tensor:
    """Options of a loss as a tensor beside `like`."""
    return torch.as_tensor(values, dtype=like.dtype, device=like.device)


def picked(values: Tensor, target: Tensor) -> Tensor:
    """values [N, C, ...] at target [N, ...] -> [N, ...]."""
    return values.gather(1, target.unsqueeze(1)).squeeze(1)
