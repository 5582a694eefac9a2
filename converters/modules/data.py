"""Modules without inputs: constant or random tensors, and parameters that are blobs."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn


class DummyData(nn.Module):
    """Tensors of fixed shapes, filled as Caffe's fillers fill: constants once, random values anew in each pass."""

    anchor: Tensor

    def __init__(self, shapes: tuple[tuple[int, ...], ...], fillers: tuple[tuple[tuple[str, Any], ...], ...]) -> None:
        super().__init__()
        self.shapes, self.fillers = shapes, tuple(dict(f) for f in fillers)
        self.register_buffer("anchor", torch.empty(0), persistent=False)  # knows the device

    def forward(self) -> Tensor | tuple[Tensor, ...]:
        made = tuple(self.fill(torch.empty(s, device=self.anchor.device), **f) for s, f in zip(self.shapes, self.fillers, strict=True))
        return made if len(made) > 1 else made[0]

    @staticmethod
    def fill(
        t: Tensor, type: str, value: float = 0.0, min: float = 0.0, max: float = 1.0, mean: float = 0.0, std: float = 1.0, sparse: int = -1,
        variance_norm: str = "FAN_IN",
    ) -> Tensor:  # fmt: skip
        """Fan in and out are count / axis 0 and count / axis 1, whatever the axes mean."""
        if type == "constant" or not t.numel():
            return t.fill_(value)
        if type == "uniform":
            return t.uniform_(min, max)
        if type == "gaussian":
            t.normal_(mean, std)
            return t if sparse < 0 else t * (torch.rand_like(t) < sparse / t.shape[0])
        if type == "positive_unitball":
            return t.uniform_(0, 1) / t.reshape(t.shape[0], -1).sum(1).view(-1, *(1,) * (t.dim() - 1))
        if type == "bilinear":
            factor = math.ceil(t.shape[3] / 2)
            ramp = 1 - (torch.arange(t.shape[3], device=t.device) / factor - (t.shape[3] - 1) / (2 * factor)).abs()
            return t.copy_(ramp[:, None] * ramp)
        fan_in, fan_out = t.numel() / t.shape[0], t.numel() / t.shape[1] if t.dim() > 1 else t.numel()
        fan = {"FAN_IN": fan_in, "FAN_OUT": fan_out, "AVERAGE": (fan_in + fan_out) / 2}[variance_norm]
        return t.uniform_(-math.sqrt(3 / fan), math.sqrt(3 / fan)) if type == "xavier" else t.normal_(0, math.sqrt(2 / fan))


class Parameter(nn.Module):
    """Gives its weight."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(shape))

    def forward(self) -> Tensor:
        return self.weight
