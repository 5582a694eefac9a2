"""Sum, product and maximum of tensors of one shape."""

from __future__ import annotations

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


class Maximum(nn.Module):
    """The largest of its inputs; a tie of the first two goes to the second, a later one wins only if it is larger."""

    def forward(self, *inputs: Tensor) -> Tensor:
        largest = torch.where(inputs[0] > inputs[1], inputs[0], inputs[1])
        for x in inputs[2:]:
            largest = torch.where(x > largest, x, largest)
        return largest
