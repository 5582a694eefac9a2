"""Caffe's pooling where torch's modules do not reach: padding above half the kernel, masks, stochastic pooling, pyramids."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def windows(size: int, kernel: int, stride: int, pad: int, ceil: bool, padded: bool) -> int:
    """How many windows there are along an axis; of a padded image, the last is dropped if it starts behind the image and its near padding."""
    span = size + 2 * pad - kernel
    count = (-(-span // stride) if ceil else span // stride) + 1
    return count - 1 if padded and (count - 1) * stride >= size + pad else count


class WidePool2d(nn.Module):
    """Pads by itself, so that padding may be anything below the kernel size."""

    def __init__(
        self,
        kernel_size: tuple[int, int] | None,
        stride: tuple[int, int] = (1, 1),
        padding: tuple[int, int] = (0, 0),
        ceil_mode: bool = False,
    ) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.padding, self.ceil_mode = kernel_size, stride, padding, ceil_mode

    def far_padding(self, size: int, axis: int) -> int:
        """What to pad behind the image, so that the last window fits exactly."""
        kernel, stride, pad = self.kernel_size[axis], self.stride[axis], self.padding[axis]  # type: ignore[index]
        return (windows(size, kernel, stride, pad, self.ceil_mode, any(self.padding)) - 1) * stride + kernel - size - pad

    def padded(self, x: Tensor, value: float) -> Tensor:
        """[N, C, H, W] with the padding that the windows need; negative padding cuts what no window reaches."""
        right, below = self.far_padding(x.shape[3], 1), self.far_padding(x.shape[2], 0)
        return F.pad(x, (self.padding[1], right, self.padding[0], below), value=value)


class WideMaxPool2d(WidePool2d):
    """MAX pooling of [N, C, H, W]; padding never wins."""

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(self.padded(x, float("-inf")), self.kernel_size, self.stride)  # type: ignore[arg-type]


class MaxPool2dWithMask(WidePool2d):
    """MAX pooling of [N, C, H, W], and the index of each maximum in its H x W plane, as float; the first of equals wins."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.kernel_size is None:
            values, index = x.flatten(2).max(-1)
            return values[..., None, None], index[..., None, None].to(x.dtype)
        if self.fits() and not torch.compiler.is_exporting():
            values, index = F.max_pool2d(x, self.kernel_size, self.stride, self.padding, ceil_mode=self.ceil_mode, return_indices=True)
            return values, index.to(x.dtype)
        values, index = F.max_pool2d(self.padded(x, float("-inf")), self.kernel_size, self.stride, return_indices=True)
        width = x.shape[3] + self.padding[1] + self.far_padding(x.shape[3], 1)
        row, column = index // width - self.padding[0], index % width - self.padding[1]
        return values, (row * x.shape[3] + column).to(x.dtype)

    def fits(self) -> bool:
        """Whether torch's own padding and last window are Caffe's."""
        axes = zip(self.kernel_size, self.stride, self.padding, strict=True)  # type: ignore[arg-type]
        return all(2 * pad <= kernel and (pad > 0 or stride <= kernel) for kernel, stride, pad in axes)


class WideAvgPool2d(WidePool2d):
    """AVE pooling of [N, C, H, W]: the sum of a window by its area inside the image and its near padding, which ends the far one too."""

    def forward(self, x: Tensor) -> Tensor:
        mean = F.avg_pool2d(self.padded(x, 0.0), self.kernel_size, self.stride)  # type: ignore[arg-type]
        rows, columns = (self.last_factor(x.shape[2 + axis], axis) for axis in (0, 1))
        if rows == columns == 1:
            return mean
        height, width = mean.shape[2:]
        by_row, by_column = (x.new_tensor([1.0] * (n - 1) + [factor]) for n, factor in ((height, rows), (width, columns)))
        return mean * (by_row[:, None] * by_column)

    def last_factor(self, size: int, axis: int) -> float:
        """The kernel's extent by the last window's; all others lie inside, since what lies outside is less than a stride."""
        kernel = self.kernel_size[axis]  # type: ignore[index]
        return kernel / (kernel - max(self.far_padding(size, axis) - self.padding[axis], 0))


class StochasticPool2d(WidePool2d):
    """Zeiler & Fergus 2013: training draws one element of a window with probability x / sum, inference takes sum x^2 / sum x."""

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.kernel_size or (x.shape[2], x.shape[3])
        x = x if self.kernel_size is None else self.padded(x, 0.0)
        total = F.avg_pool2d(x, kernel, self.stride)
        if not self.training:
            return F.avg_pool2d(x * x, kernel, self.stride) / total.clamp(min=torch.finfo(x.dtype).tiny)
        windows = x.unfold(2, kernel[0], self.stride[0]).unfold(3, kernel[1], self.stride[1]).flatten(-2)
        threshold = torch.rand_like(total) * total * (kernel[0] * kernel[1])
        drawn = (windows.cumsum(-1) < threshold[..., None]).sum(-1).clamp(max=windows.shape[-1] - 1)
        return windows.gather(-1, drawn[..., None]).squeeze(-1)


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
        rows, columns = self.level_windows(x.shape[2], bins), self.level_windows(x.shape[3], bins)
        kernel, padding = (rows[0], columns[0]), (columns[1], columns[2], rows[1], rows[2])
        if not self.average:
            return F.max_pool2d(F.pad(x, padding, value=float("-inf")) if any(padding) else x, kernel)
        if not any(padding):
            return F.avg_pool2d(x, kernel) if torch.compiler.is_exporting() else F.adaptive_avg_pool2d(x, bins)
        total = F.avg_pool2d(F.pad(x, padding), kernel) * (kernel[0] * kernel[1])
        return total / (self.extents(x.shape[2], rows, x)[:, None] * self.extents(x.shape[3], columns, x))

    @staticmethod
    def level_windows(size: int, bins: int) -> tuple[int, int, int]:
        """Width of the windows along an axis, and what to pad before and behind it so that the last one fits."""
        kernel = -(-size // bins)
        pad = (kernel * bins - size + 1) // 2
        return kernel, pad, windows(size, kernel, kernel, pad, True, pad > 0) * kernel - size - pad

    @staticmethod
    def extents(size: int, level: tuple[int, int, int], like: Tensor) -> Tensor:
        """Extent of each window along an axis, without the padding behind the image that the near side does not have; [count]."""
        kernel, pad, far = level
        start = torch.arange(0, size + pad + far, kernel, device=like.device)
        return ((start + kernel).clamp(max=size + 2 * pad) - start).to(like.dtype)
