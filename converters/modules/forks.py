"""Modules for layers of forks."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class HardSigmoid(nn.Module):
    """min(max(alpha x + beta, 0), 1)."""

    def __init__(self, alpha: float, beta: float) -> None:
        super().__init__()
        self.alpha, self.beta = alpha, beta

    def forward(self, x: Tensor) -> Tensor:
        return (self.alpha * x + self.beta).clamp(0, 1)


class Squeeze(nn.Module):
    """Takes away axes of size 1."""

    def __init__(self, axes: tuple[int, ...]) -> None:
        super().__init__()
        self.axes = axes

    def forward(self, x: Tensor) -> Tensor:
        return x.squeeze(self.axes)


class Unsqueeze(nn.Module):
    """A new axis of size 1."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        return x.unsqueeze(self.axis)


class Reverse(nn.Module):
    """Each of the axes from its end to its beginning."""

    def __init__(self, axes: tuple[int, ...]) -> None:
        super().__init__()
        self.axes = axes

    def forward(self, x: Tensor) -> Tensor:
        return x.flip(self.axes)


class Continuation(nn.Module):
    """[steps, batch]: 0 where a sequence begins, at the first step, else 1."""

    markers: Tensor

    def __init__(self, steps: int, batch: int) -> None:
        super().__init__()
        markers = torch.ones(steps, batch)
        markers[0] = 0
        self.register_buffer("markers", markers, persistent=False)

    def forward(self) -> Tensor:
        return self.markers
