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
        if self.axis is not None and self.values:
            return rows.amax(axis, keepdim=True) if self.top_k == 1 else rows.topk(self.top_k, axis).values
        value, place = self.highest(rows, axis)
        index = place.to(x.dtype)
        if self.axis is not None:
            return index
        top = torch.stack((index, value), 1) if self.values else index[:, None]
        return top.reshape(*top.shape, *(1,) * (x.dim() - 3))

    def highest(self, rows: Tensor, axis: int) -> tuple[Tensor, Tensor]:
        """The largest values along an axis and their places; of equals the last comes first."""
        count, size = self.top_k, rows.shape[axis]
        order: Any
        if torch.compiler.is_exporting():  # ONNX has no stable sort, but its TopK gives ties in their order
            order = rows.flip(axis).topk(count, axis)
        elif count == 1:
            return last_of_largest(rows, axis)
        else:
            order = rows.topk(min(count + 1, size), axis)  # gives ties in any order
            if not torch.compiler.is_compiling() and not bool((order.values.diff(dim=axis) == 0).any()):
                return order.values.narrow(axis, 0, count), order.indices.narrow(axis, 0, count)
            order = rows.flip(axis).sort(dim=axis, descending=True, stable=True)
        return order.values.narrow(axis, 0, count), size - 1 - order.indices.narrow(axis, 0, count)


def last_of_largest(rows: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """The largest value along an axis and its last place, as a float: without integers, which no processor compares as fast."""
    largest, place = rows.amax(axis, keepdim=True), torch.arange(rows.shape[axis], device=rows.device, dtype=rows.dtype)
    equal = rows.clone().ge_(largest)
    return largest, equal.mul_(place.view(-1, *(1,) * (rows.dim() - 1 - axis))).amax(axis, keepdim=True)
