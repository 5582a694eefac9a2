"""Caffe's Reduction."""

from __future__ import annotations

from torch import Tensor, nn


class Reduction(nn.Module):
    """[A..., B...] -> [A...]: SUM, ASUM of magnitudes, SUMSQ of squares or MEAN over the axes from `axis` on, times a coefficient."""

    def __init__(self, operation: str, axis: int, coefficient: float = 1.0) -> None:
        super().__init__()
        self.operation, self.axis, self.coefficient = operation, axis, coefficient

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(self.axis)
        if self.operation == "MEAN":
            reduced = x.mean(-1)
        elif self.operation == "ASUM":
            reduced = x.abs().sum(-1)
        else:
            reduced = (x.square() if self.operation == "SUMSQ" else x).sum(-1)
        return reduced if self.coefficient == 1 else reduced * self.coefficient
