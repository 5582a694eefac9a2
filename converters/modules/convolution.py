"""Convolutions in the ways that torch's own do not have: several inputs with one set of weights, more than one batch axis, images
smaller than the kernel. Patches of any dimension."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def missing(image: tuple[int, ...], kernel: tuple[int, ...], padding: tuple[int, ...], dilation: tuple[int, ...]) -> list[int]:
    """What each axis of an image lacks behind its end for one window, in the order of F.pad."""
    pairs = zip(image, kernel, padding, dilation, strict=True)
    lacks = [max(0, d * (k - 1) + 1 - i - 2 * p) for i, k, p, d in pairs]
    return [n for lack in reversed(lacks) for n in (0, lack)]


class Each:
    """Convolves each input with the same weights; all axes before `axis` are batch axes. `short` images get zeros behind their ends."""

    def __init__(self, *, axis: int = 1, short: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axis, self.short = axis, short

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        outputs = tuple(self.convolve(x) for x in inputs)
        return outputs if len(outputs) > 1 else outputs[0]

    def convolve(self, x: Tensor) -> Tensor:
        x = F.pad(x, missing(x.shape[self.axis + 1 :], self.kernel_size, self.padding, self.dilation)) if self.short else x  # type: ignore[attr-defined]
        if self.axis <= 1:
            return super().forward(x)  # type: ignore[misc, no-any-return]
        batch = x.shape[: self.axis]
        return super().forward(x.flatten(0, self.axis - 1)).unflatten(0, batch)  # type: ignore[misc, no-any-return]


class Conv1dEach(Each, nn.Conv1d):  # type: ignore[misc]
    """nn.Conv1d for several inputs."""


class Conv2dEach(Each, nn.Conv2d):  # type: ignore[misc]
    """nn.Conv2d for several inputs."""


class Conv3dEach(Each, nn.Conv3d):  # type: ignore[misc]
    """nn.Conv3d for several inputs."""


class ConvTranspose1dEach(Each, nn.ConvTranspose1d):  # type: ignore[misc]
    """nn.ConvTranspose1d for several inputs."""


class ConvTranspose2dEach(Each, nn.ConvTranspose2d):  # type: ignore[misc]
    """nn.ConvTranspose2d for several inputs."""


class ConvTranspose3dEach(Each, nn.ConvTranspose3d):  # type: ignore[misc]
    """nn.ConvTranspose3d for several inputs."""


class Im2col(nn.Module):
    """[..., C, spatial...] -> [..., C k..., out...]: the values under a kernel at each of its places, zeros outside; channels from `axis`."""

    def __init__(self, axis: int, kernel_size: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...], dilation: tuple[int, ...]) -> None:
        super().__init__()
        self.axis, self.kernel_size, self.stride, self.padding, self.dilation = axis, kernel_size, stride, padding, dilation

    def forward(self, x: Tensor) -> Tensor:
        first, spatial = self.axis + 1, len(self.kernel_size)
        far = missing(x.shape[first:], self.kernel_size, self.padding, self.dilation)
        x = F.pad(x, [n + p for n, p in zip(far, [p for p in reversed(self.padding) for _ in range(2)], strict=True)])
        for i in reversed(range(spatial)):  # [..., size, ...] -> [..., kernel, out, ...]
            kernel, dilation = self.kernel_size[i], self.dilation[i]
            out = (x.shape[first + i] - dilation * (kernel - 1) - 1) // self.stride[i] + 1
            index = torch.arange(kernel, device=x.device)[:, None] * dilation + torch.arange(out, device=x.device) * self.stride[i]
            x = x.index_select(first + i, index.flatten()).unflatten(first + i, (kernel, out))
        kernels, outs = range(first, first + 2 * spatial, 2), range(first + 1, first + 2 * spatial, 2)
        return x.permute(*range(first), *kernels, *outs).flatten(self.axis, self.axis + spatial)
