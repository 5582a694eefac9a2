"""Modules for layers of forks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
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
