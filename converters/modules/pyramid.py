"""Caffe's spatial pyramid pooling."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SPP(nn.Module):
    """[N, C, H, W] pooled by `height` levels of 2^l x 2^l windows, flattened and joined; windows of ceil(size / bins) without overlap.

    The average divides by the part of a window inside the image and the padding of its near sides.
    """

    def __init__(self, height: int, average: bool = False) -> None:
        super().__init__()
        self.height, self.average = height, average

    def forward(self, x: Tensor) -> Tensor:
        levels = [self.level(x, 2**i) for i in range(self.height)]
        return levels[0] if self.height == 1 else torch.cat([level.flatten(1) for level in levels], 1)

    def level(self, x: Tensor, bins: int) -> Tensor:
        rows, columns = self.windows(x.shape[2], bins), self.windows(x.shape[3], bins)
        kernel, padding = (rows[0], columns[0]), (columns[1], columns[2], rows[1], rows[2])
        if not self.average:
            return F.max_pool2d(F.pad(x, padding, value=float("-inf")) if any(padding) else x, kernel)
        if not any(padding):
            return F.avg_pool2d(x, kernel) if torch.compiler.is_exporting() else F.adaptive_avg_pool2d(x, bins)
        total = F.avg_pool2d(F.pad(x, padding), kernel) * (kernel[0] * kernel[1])
        return total / (self.extents(x.shape[2], rows, x)[:, None] * self.extents(x.shape[3], columns, x))

    @staticmethod
    def windows(size: int, bins: int) -> tuple[int, int, int]:
        """Width of the windows along an axis, and what to pad before and behind it so that the last one fits."""
        kernel = -(-size // bins)
        pad = (kernel * bins - size + 1) // 2
        count = -(-(size + 2 * pad - kernel) // kernel) + 1
        if pad and (count - 1) * kernel >= size + pad:
            count -= 1
        return kernel, pad, count * kernel - size - pad

    @staticmethod
    def extents(size: int, windows: tuple[int, int, int], like: Tensor) -> Tensor:
        """Extent of each window along an axis, without the padding behind the image that the near side does not have; [count]."""
        kernel, pad, far = windows
        start = torch.arange(0, size + pad + far, kernel, device=like.device)
        return ((start + kernel).clamp(max=size + 2 * pad) - start).to(like.dtype)
