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
        rows, axis = (x[..., None].flatten(1), 1) if self.axis is None else (x, self.axis)
        value, place = self.highest(rows.flip(axis), axis)  # so that the last of equals comes first
        index = (rows.shape[axis] - 1 - place).to(x.dtype)
        if self.axis is not None:
            return value if self.values else index
        top = torch.stack((index, value), 1) if self.values else index[:, None]
        return top.reshape(*top.shape, *(1,) * (x.dim() - 3))

    def highest(self, rows: Tensor, axis: int) -> tuple[Tensor, Tensor]:
        """The largest values along an axis and their places; of equals the first."""
        count, exporting = self.top_k, torch.compiler.is_exporting()
        if count == 1 and not exporting:
            return rows.max(axis, keepdim=True)
        # torch's topk gives ties in any order; ONNX has no stable sort, but its TopK gives them in theirs
        order: Any = rows.topk(count if exporting else min(count + 1, rows.shape[axis]), axis)
        if not exporting and (torch.compiler.is_compiling() or bool((order.values.diff(dim=axis) == 0).any())):
            order = rows.sort(dim=axis, descending=True, stable=True)
        return order.values.narrow(axis, 0, count), order.indices.narrow(axis, 0, count)
