"""Rows of a batch, chosen by another tensor."""

from __future__ import annotations

from torch import Tensor, nn


class BatchReindex(nn.Module):
    """Rows of x [N, ...] by float indices [M], cut towards zero -> [M, ...]."""

    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        return x[index.detach().long()]


class Filter(nn.Module):
    """Of each input [N, ...] the rows whose selector, the last input, is not 0."""

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        *tensors, selector = inputs
        rows = selector.detach().flatten().nonzero().squeeze(1)
        filtered = tuple(x.index_select(0, rows) for x in tensors)
        return filtered if len(filtered) > 1 else filtered[0]
