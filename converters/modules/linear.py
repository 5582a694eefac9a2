"""InnerProduct with an axis or a transposed weight; Embed."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class InnerProduct(nn.Linear):
    """Flattens `axis` and everything behind it, then x W^T + b; with `transpose` the weight is [in_features, out_features]."""

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, axis: int = 1, transpose: bool = False, device: str | None = None
    ) -> None:
        super().__init__(in_features, out_features, bias, device=device)
        self.axis, self.transpose = axis, transpose
        if transpose:
            self.weight = nn.Parameter(torch.empty(in_features, out_features, device=device))

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(self.axis)
        if not self.transpose:
            return F.linear(x, self.weight, self.bias)
        return x @ self.weight if self.bias is None else x @ self.weight + self.bias


class Embed(nn.Module):
    """Rows of a table by float indices, cut towards zero; plus a bias."""

    def __init__(self, rows: int, columns: int, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(rows, columns))
        self.bias = nn.Parameter(torch.empty(columns)) if bias else None

    def forward(self, index: Tensor) -> Tensor:
        rows = F.embedding(index.long(), self.weight)
        return rows if self.bias is None else rows + self.bias
