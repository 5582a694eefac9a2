"""Caffe's element-wise layers that torch has no module for."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SharedPReLU(nn.Module):
    """x above 0, else weight * x, with one weight of no axes."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.25))

    def forward(self, x: Tensor) -> Tensor:
        return F.prelu(x, self.weight.view(1))


class Abs(nn.Module):
    """|x|."""

    def forward(self, x: Tensor) -> Tensor:
        return x.abs()


class Power(nn.Module):
    """(shift + scale * x) ** power."""

    def __init__(self, power: float, scale: float, shift: float) -> None:
        super().__init__()
        self.power, self.scale, self.shift = power, scale, shift

    def forward(self, x: Tensor) -> Tensor:
        if self.power == 0 or self.scale == 0:
            return torch.full_like(x, self.shift if self.power else 1.0).pow(self.power)
        x = x * self.scale if self.scale != 1 else x
        x = x + self.shift if self.shift else x
        return x if self.power == 1 else x.square() if self.power == 2 else x.pow(self.power)


class Exp(nn.Module):
    """base ** (shift + scale * x); base -1 stands for e."""

    def __init__(self, base: float, scale: float, shift: float) -> None:
        super().__init__()
        self.base, self.scale, self.shift = base, scale, shift

    def forward(self, x: Tensor) -> Tensor:
        log_base = 1.0 if self.base in (-1, 2) else math.log(self.base)
        x = x * (self.scale * log_base) if self.scale * log_base != 1 else x
        x = x + self.shift * log_base if self.shift else x
        return x.exp2() if self.base == 2 else x.exp()


class Log(nn.Module):
    """Logarithm of shift + scale * x to a base; base -1 stands for e."""

    def __init__(self, base: float, scale: float, shift: float) -> None:
        super().__init__()
        self.base, self.scale, self.shift = base, scale, shift

    def forward(self, x: Tensor) -> Tensor:
        x = x * self.scale if self.scale != 1 else x
        x = x + self.shift if self.shift else x
        return x.log() if self.base == -1 else x.log2() if self.base == 2 else x.log() / math.log(self.base)


class BNLL(nn.Module):
    """Binomial normal log likelihood: log(1 + exp(x))."""

    def forward(self, x: Tensor) -> Tensor:
        return F.softplus(x, threshold=50.0)


class Threshold(nn.Module):
    """1 where x > threshold, else 0."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold = threshold

    def forward(self, x: Tensor) -> Tensor:
        return (x > self.threshold).to(x.dtype)


class Cut(torch.autograd.Function):
    """x cut to low..high; the gradient passes on both bounds, which torch's clamp does not promise."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, low: float, high: float) -> Tensor:
        y = x.clamp(low, high)
        ctx.save_for_backward(x == y)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return gradient * ctx.saved_tensors[0], None, None


class Clip(nn.Module):
    """max(min(x, high), low), so `low` everywhere if low > high."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.low, self.high = low, high

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_exporting():  # one operator for whoever reads the file
            return x.clamp(max=self.high).clamp(min=self.low)
        if self.low <= self.high and not torch.compiler.is_compiling():
            return Cut.apply(x, self.low, self.high)  # type: ignore[no-any-return]
        x = torch.where(x > self.high, self.high, x)
        return torch.where(x < self.low, self.low, x)


class Swish(nn.Module):
    """x * sigmoid(beta * x)."""

    def __init__(self, beta: float) -> None:
        super().__init__()
        self.beta = beta

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(x) if self.beta == 1 else x * torch.sigmoid(self.beta * x)


class PhaseDropout(nn.Module):
    """Dropout of a layer whose phase stands in the file: on or off whatever the mode of the net."""

    def __init__(self, p: float, training: bool) -> None:
        super().__init__()
        self.p, self.always = p, training

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.p, training=self.always)


class UnscaledDropout(nn.Module):
    """Dropout that scales after training and not in it: zeroes with probability p, then x * (1 - p)."""

    def __init__(self, p: float, training: bool | None = None) -> None:
        super().__init__()
        self.p, self.always = p, training

    def forward(self, x: Tensor) -> Tensor:
        training = self.training if self.always is None else self.always
        return x * (torch.rand_like(x) >= self.p) if training else x * (1 - self.p)
