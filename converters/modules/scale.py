"""Factors and summands that are broadcast over the axes behind them."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def broadcast(t: Tensor, axis: int, like: Tensor) -> Tensor:
    """`t` with axes of 1 behind it, so that its first axis meets `axis` of `like`."""
    return t.reshape((*t.shape, *(1,) * (like.dim() - axis - t.dim())))


class Scale(nn.Module):
    """x * weight (+ bias), both of `shape`, which covers the axes of x from `axis` on."""

    def __init__(self, axis: int, shape: tuple[int, ...], bias: bool = False) -> None:
        super().__init__()
        self.axis = axis
        self.weight = nn.Parameter(torch.ones(shape))
        self.bias = nn.Parameter(torch.zeros(shape)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        y = x * broadcast(self.weight, self.axis, x)
        return y if self.bias is None else y + broadcast(self.bias, self.axis, x)


class ScaleBy(nn.Module):
    """x * factor (+ bias); the factor is the second input and covers the axes of x from `axis` on."""

    def __init__(self, axis: int, bias: tuple[int, ...] | None = None) -> None:
        super().__init__()
        self.axis = axis
        self.bias = None if bias is None else nn.Parameter(torch.zeros(bias))

    def forward(self, x: Tensor, factor: Tensor) -> Tensor:
        y = x * broadcast(factor, self.axis, x)
        return y if self.bias is None else y + broadcast(self.bias, self.axis, x)


class Bias(nn.Module):
    """x + bias; the bias covers the axes of x from `axis` on."""

    def __init__(self, axis: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.axis = axis
        self.bias = nn.Parameter(torch.zeros(shape))

    def forward(self, x: Tensor) -> Tensor:
        return x + broadcast(self.bias, self.axis, x)


class BiasBy(nn.Module):
    """x + summand; the summand is the second input and covers the axes of x from `axis` on."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, x: Tensor, summand: Tensor) -> Tensor:
        return x + broadcast(summand, self.axis, x)


class Axpy(nn.Module):
    """a x + y, one a for each channel."""

    def forward(self, a: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return a.reshape(*x.shape[:2], *(1,) * (x.dim() - 2)) * x + y
