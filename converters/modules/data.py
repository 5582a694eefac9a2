"""Modules without inputs: constant or random tensors, and parameters that are blobs."""

from __future__ import annotations

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
        t: Tensor, type: str = "constant", value: float = 0.0, min: float = 0.0, max: float = 1.0, mean: float = 0.0, std: float = 1.0, **_: Any
    ) -> Tensor:
        if type == "uniform":
            return t.uniform_(min, max)
        if type == "gaussian":
            return t.normal_(mean, std)
        return t.fill_(value)


class Parameter(nn.Module):
    """Gives its weight."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(shape))

    def forward(self) -> Tensor:
        return self.weight
