"""Caffe's ArgMax."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class ArgMax(nn.Module):
    """Indices of the `top_k` largest, as floats, the largest first; of equal values the highest index."""

    def __init__(self, top_k: int, values: bool, axis: int | None = None) -> None:
        super().__init__()
        self.top_k, self.values, self.axis = top_k, values, axis

    def forward(self, x: Tensor) -> Tensor:
        x = x.detach()
        rows = x[..., None].flatten(1) if self.axis is None else x.movedim(self.axis, -1)
        flipped = rows.flip(-1)  # so that the last of equals comes first
        if torch.compiler.is_exporting():  # ONNX has no stable sort, but its TopK gives ties in order
            order: Any = flipped.topk(self.top_k, dim=-1)
        else:
            order = flipped.sort(dim=-1, descending=True, stable=True)
        value = order.values[..., : self.top_k]
        index = (rows.shape[-1] - 1 - order.indices[..., : self.top_k]).to(x.dtype)
        if self.axis is not None:
            return (value if self.values else index).movedim(-1, self.axis)
        top = torch.stack((index, value), 1) if self.values else index[:, None]
        return top.reshape(*top.shape, *(1,) * (x.dim() - 3))
