"""Sum, product and maximum of tensors of one shape."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Sum(nn.Module):
    """The sum of its inputs, each by its coefficient."""

    def __init__(self, coefficients: tuple[float, ...] | None = None) -> None:
        super().__init__()
        self.coefficients = coefficients

    def forward(self, *inputs: Tensor) -> Tensor:
        first, *others = self.coefficients or (1,) * len(inputs)
        total = inputs[0] if first == 1 else inputs[0] * first
        for x, coefficient in zip(inputs[1:], others, strict=True):
            total = torch.add(total, x, alpha=coefficient)
        return total


class Product(nn.Module):
    """The product of its inputs."""

    def forward(self, *inputs: Tensor) -> Tensor:
        total = inputs[0] * inputs[1]
        for x in inputs[2:]:
            total = total * x
        return total


class Larger(torch.autograd.Function):
    """The larger of two, and the second of equals, with a mask for the gradient."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        first = a > b
        ctx.save_for_backward(first)
        return torch.where(first, a, b)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (first,), (to_a, to_b) = ctx.saved_tensors, ctx.needs_input_grad
        return gradient * first if to_a else None, gradient * ~first if to_b else None


class Maximum(nn.Module):
    """The largest of its inputs; a tie of the first two goes to the second, a later one wins only if it is larger."""

    def forward(self, *inputs: Tensor) -> Tensor:
        largest = self.larger(inputs[0], inputs[1])
        for x in inputs[2:]:
            largest = self.larger(x, largest)
        return largest

    def larger(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.where(a > b, a, b) if torch.compiler.is_compiling() else Larger.apply(a, b)  # type: ignore[no-any-return]
