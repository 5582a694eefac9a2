"""Caffe's normalisations. Inputs are [N, C, ...]."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def window_sum(t: Tensor, size: int) -> Tensor:
    """Sum over `size` neighbouring channels of [N, C, ...], cut at the ends."""
    total = t.clone()
    for shift in range(1, min(size // 2, t.shape[1] - 1) + 1):
        total[:, shift:] += t[:, :-shift]
        total[:, :-shift] += t[:, shift:]
    return total


def inverse_power(scale: Tensor, beta: float) -> Tensor:
    """scale ** -beta; for the usual 0.75 two roots are faster than a power."""
    if beta != 0.75:
        return scale.pow(-beta)
    root = scale.rsqrt()
    return root * root.sqrt()


class AcrossChannels(torch.autograd.Function):
    """LRN with its gradient by hand: g s^-b - 2 a b / n * x * sum over the window of (g y / s), for s = k + a / n * sum x^2."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, size: int, alpha: float, beta: float, k: float) -> Tensor:
        scale = window_sum(x * x, size).mul_(alpha / size).add_(k)
        power = inverse_power(scale, beta)
        ctx.save_for_backward(x, scale, power)
        ctx.size, ctx.factor = size, 2 * alpha * beta / size
        return x * power

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, power = ctx.saved_tensors
        direct = gradient * power
        total = window_sum((direct * x).div_(scale), ctx.size)
        return direct.addcmul_(x, total, value=-ctx.factor), None, None, None, None


class LRN(nn.Module):
    """y = x / (k + alpha / size * sum of x^2 over `size` neighbouring channels) ** beta; the window is cut at the ends."""

    def __init__(self, size: int, alpha: float, beta: float, k: float) -> None:
        super().__init__()
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, x: Tensor) -> Tensor:
        if not torch.compiler.is_compiling():
            return AcrossChannels.apply(x, self.size, self.alpha, self.beta, self.k)  # type: ignore[no-any-return]
        reach, channels = self.size // 2, x.shape[1]
        squares = F.pad(x * x, (0, 0, 0, 0, reach, reach))
        total = squares[:, :channels]
        for i in range(1, self.size):
            total = total + squares[:, i : i + channels]
        return x * inverse_power(total * (self.alpha / self.size) + self.k, self.beta)


class LRNWithin(nn.Module):
    """y = x / (1 + alpha * mean of x^2 over a size x size square, padding counted as zeros) ** beta."""

    def __init__(self, size: int, alpha: float, beta: float) -> None:
        super().__init__()
        self.size, self.alpha, self.beta = size, alpha, beta

    def forward(self, x: Tensor) -> Tensor:
        mean = F.avg_pool2d(x * x, self.size, stride=1, padding=self.size // 2)
        return x * (1 + self.alpha * mean).pow(-self.beta)


def by_batch(x: Tensor, like: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """x [N, C, ...] by the batch's own statistics; its mean and its unbiased variance, [C] each, of the type of `like`."""
    mean, variance = torch.zeros_like(like), torch.zeros_like(like)
    if x.numel() == x.shape[1]:  # one value a channel: its own mean, of variance 0
        return F.batch_norm(x * 0, mean, variance, weight, bias, eps=eps), x.detach().flatten(), variance
    if torch.compiler.is_exporting():  # torch's ONNX export of the form that also gives the statistics divides by eps alone
        variance, mean = torch.var_mean(x, (0, *range(2, x.dim())))
        return F.batch_norm(x, None, None, weight, bias, training=True, eps=eps), mean, variance
    return F.batch_norm(x, mean, variance, weight, bias, training=True, momentum=1.0, eps=eps), mean, variance


class BatchNorm(nn.Module):
    """Caffe's BatchNorm: no scale and shift, and running sums in place of running means.

    mean = mean_sum / factor, variance = variance_sum / factor; factor 0 counts as statistics of 0. A training pass multiplies all
    three by `fraction` and adds the batch's mean, its unbiased variance, and 1; it normalises by the biased variance. A Scale that
    follows may be given as `weight` and `bias`, [C] each.
    """

    mean: Tensor
    variance: Tensor
    factor: Tensor

    def __init__(self, channels: int, eps: float = 1e-5, fraction: float = 0.999, use_global_stats: bool | None = None) -> None:
        super().__init__()
        self.eps, self.fraction, self.use_global_stats = eps, fraction, use_global_stats
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.zeros(channels))
        self.register_buffer("factor", torch.zeros(1))

    def forward(self, x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        stored = not self.training if self.use_global_stats is None else self.use_global_stats
        if stored:
            factor = torch.where(self.factor == 0, 0.0, 1 / self.factor)
            return F.batch_norm(x, self.mean * factor, self.variance * factor, weight, bias, eps=self.eps)
        normal, mean, variance = by_batch(x, self.mean, weight, bias, self.eps)
        with torch.no_grad():
            self.mean.mul_(self.fraction).add_(mean)
            self.variance.mul_(self.fraction).add_(variance)
            self.factor.mul_(self.fraction).add_(1)
        return normal


class MVN(nn.Module):
    """(x - mean) / (std + eps) over space, or over channels and space; the output always has 4 axes."""

    def __init__(self, across_channels: bool, normalize_variance: bool, eps: float) -> None:
        super().__init__()
        self.across_channels, self.normalize_variance, self.eps = across_channels, normalize_variance, eps

    def forward(self, x: Tensor) -> Tensor:
        x = x.reshape(*x.shape, *(1,) * (4 - x.dim()))
        axes = (1, 2, 3) if self.across_channels else (2, 3)
        x = x - x.mean(axes, keepdim=True)
        if not self.normalize_variance:
            return x
        flat = x.flatten(axes[0])
        variance = (torch.linalg.vecdot(flat, flat) / flat.shape[-1]).view(*x.shape[: axes[0]], *(1,) * len(axes))
        constant = variance == 0  # where the root has no derivative, and Caffe passes no gradient on
        return x * (1 / (torch.where(constant, 1.0, variance).sqrt() * ~constant + self.eps))  # one division a plane


class Normalize(nn.Module):
    """weight * x / sqrt(sum x^2 + eps) over channels, or over channels and space. One weight, or one a channel (ParseNet)."""

    def __init__(self, channels: int | None, across_spatial: bool, eps: float) -> None:
        super().__init__()
        self.across_spatial, self.eps = across_spatial, eps
        self.weight = nn.Parameter(torch.ones(()) if channels is None else torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight if self.weight.dim() == 0 else self.weight.view(-1, *(1,) * (x.dim() - 2))
        if self.weight.dim() and x.requires_grad:  # Caffe's backward passes through the norm first, and scales what comes out
            x = x.detach() + (x - x.detach()) * weight.detach()
            normal = self.normal(x)
            return normal.detach() * weight + (normal - normal.detach())
        return self.normal(x) * weight

    def normal(self, x: Tensor) -> Tensor:
        """x by its norm."""
        axes = tuple(range(1, x.dim())) if self.across_spatial else (1,)
        return x / (x.square().sum(axes, keepdim=True) + self.eps).sqrt()


class ScaledBatchNorm(nn.Module):
    """weight * (x - mean) / sqrt(variance + eps) + bias in one layer, as forks have it. Statistics are running averages.

    A training pass moves them by 1 - momentum towards the batch's mean and its biased variance. `stored` true: always the averages
    (frozen: weight and bias are constants then); false: always the batch's; None: the averages in eval mode. `correction` is a third
    statistic that the stored ones are divided by (NVIDIA's). Shapes: [N, C, ...].
    """

    mean: Tensor
    variance: Tensor

    def __init__(
        self, channels: int, eps: float = 1e-5, momentum: float = 0.9, stored: bool | None = None, frozen: bool = False, correction: bool = False
    ) -> None:
        super().__init__()
        self.eps, self.momentum, self.stored = eps, momentum, stored
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.zeros(channels))
        self.factor: Tensor | None
        self.register_buffer("factor", torch.ones(1) if correction else None)
        self.weight = nn.Parameter(torch.ones(channels), requires_grad=not frozen)
        self.bias = nn.Parameter(torch.zeros(channels), requires_grad=not frozen)

    def forward(self, x: Tensor) -> Tensor:
        stored = not self.training if self.stored is None else self.stored
        if stored:
            factor = 1.0 if self.factor is None else torch.where(self.factor == 0, 0.0, 1 / self.factor)
            return F.batch_norm(x, self.mean * factor, self.variance * factor, self.weight, self.bias, eps=self.eps)
        normal, mean, variance = by_batch(x, self.mean, self.weight, self.bias, self.eps)
        count = x.numel() // x.shape[1]
        with torch.no_grad():
            self.mean.lerp_(mean, 1 - self.momentum)
            self.variance.lerp_(variance * ((count - 1) / count), 1 - self.momentum)  # the biased one
        return normal


class BatchStatistics(nn.Module):
    """weight * (x - mean) / sqrt(variance + eps) + bias with the batch's own statistics, in training and after it (SegNet)."""

    def __init__(self, channels: int, eps: float = 1e-9) -> None:
        super().__init__()
        self.eps = eps
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return by_batch(x, self.weight.detach(), self.weight, self.bias, self.eps)[0]
