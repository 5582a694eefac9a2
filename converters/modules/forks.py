"""Modules for layers of forks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class HardSigmoid(nn.Module):
    """min(max(alpha x + beta, 0), 1)."""

    def __init__(self, alpha: float, beta: float) -> None:
        super().__init__()
        self.alpha, self.beta = alpha, beta

    def forward(self, x: Tensor) -> Tensor:
        return (self.alpha * x + self.beta).clamp(0, 1)


class Squeeze(nn.Module):
    """Takes away axes of size 1."""

    def __init__(self, axes: tuple[int, ...]) -> None:
        super().__init__()
        self.axes = axes

    def forward(self, x: Tensor) -> Tensor:
        return x.squeeze(self.axes)


class Interp(nn.Module):
    """Bilinear with corners on corners: [N, C, H, W] cut at both ends, to a size, by factors, or to the size of a second input."""

    def __init__(self, begin: int = 0, end: int = 0, size: tuple[int, int] | None = None, zoom: int = 1, shrink: int = 1) -> None:
        super().__init__()
        self.begin, self.end, self.size, self.zoom, self.shrink = begin, end, size, zoom, shrink

    def forward(self, x: Tensor, like: Tensor | None = None) -> Tensor:
        x = x[:, :, self.begin : x.shape[2] - self.end, self.begin : x.shape[3] - self.end]
        size = self.size
        if like is not None:
            size = (like.shape[2], like.shape[3])
        elif size is None:
            rows, columns = (x.shape[2] - 1) // self.shrink + 1, (x.shape[3] - 1) // self.shrink + 1
            size = (rows + (rows - 1) * (self.zoom - 1), columns + (columns - 1) * (self.zoom - 1))
        return F.interpolate(x, size, mode="bilinear", align_corners=True)


def half_up(t: Tensor) -> Tensor:
    """Rounded as C rounds: halves away from zero."""
    return torch.where(t < 0, (t - 0.5).ceil(), (t + 0.5).floor())


def bins(start: Tensor, extent: Tensor, count: int, size: int) -> tuple[Tensor, Tensor]:
    """First and last + 1 place of each of `count` bins of regions [R], within 0..size: two [R, count]."""
    place = torch.arange(count, device=start.device, dtype=start.dtype)
    width = extent[:, None] / count
    low, high = (place * width + start[:, None]).floor(), ((place + 1) * width + start[:, None]).ceil()
    return low.clamp(0, size).long(), high.clamp(0, size).long()


class RoiPool(nn.Module):
    """The maximum of each bin of regions [R, 5]: corners rounded to whole cells, both ends inside; an empty bin is 0."""

    def __init__(self, size: tuple[int, int], scale: float) -> None:
        super().__init__()
        self.size, self.scale = size, scale

    def forward(self, x: Tensor, regions: Tensor) -> Tensor:
        regions = regions.detach().reshape(-1, 5)
        images = regions[:, 0].long().tolist()
        corner = half_up(regions[:, 1:] * self.scale)
        extent = (corner[:, 2:] - corner[:, :2] + 1).clamp(min=1)
        left, right = (t.tolist() for t in bins(corner[:, 0], extent[:, 0], self.size[1], x.shape[3]))
        top, bottom = (t.tolist() for t in bins(corner[:, 1], extent[:, 1], self.size[0], x.shape[2]))
        pooled = [self.of_region(x[image], top[i], bottom[i], left[i], right[i]) for i, image in enumerate(images)]
        return torch.stack(pooled) if pooled else x.new_zeros(0, x.shape[1], *self.size)

    @staticmethod
    def of_region(x: Tensor, top: list[int], bottom: list[int], left: list[int], right: list[int]) -> Tensor:
        """[C, H, W] -> [C, bins, bins]."""
        nothing = x.new_zeros(x.shape[0])
        rows = [
            [x[:, a:b, c:d].amax((1, 2)) if b > a and d > c else nothing for c, d in zip(left, right, strict=True)]
            for a, b in zip(top, bottom, strict=True)
        ]
        return torch.stack([torch.stack(row, -1) for row in rows], 1)


class PositionSensitiveRoiPool(nn.Module):
    """The mean of each bin of regions [R, 5], each bin from score maps of its own: [N, out * group^2, H, W] -> [R, out, group, group]."""

    def __init__(self, group: int, scale: float) -> None:
        super().__init__()
        self.group, self.scale = group, scale

    def forward(self, x: Tensor, regions: Tensor) -> Tensor:
        regions = regions.detach().reshape(-1, 5)
        start, end = half_up(regions[:, 1:3]) * self.scale, (half_up(regions[:, 3:]) + 1) * self.scale
        extent = (end - start).clamp(min=0.1)
        left, right = bins(start[:, 0], extent[:, 0], self.group, x.shape[3])
        top, bottom = bins(start[:, 1], extent[:, 1], self.group, x.shape[2])
        sums = F.pad(x.double().cumsum(2).cumsum(3), (1, 0, 1, 0))  # of all above and to the left
        maps = sums.unflatten(1, (-1, self.group, self.group))[regions[:, 0].long()]  # [R, out, group, group, H + 1, W + 1]
        total = self.at(maps, bottom, right) - self.at(maps, top, right) - self.at(maps, bottom, left) + self.at(maps, top, left)
        area = ((bottom - top).clamp(min=0)[:, :, None] * (right - left).clamp(min=0)[:, None]).to(total.dtype)[:, None]
        return torch.where(area > 0, total / area.clamp(min=1), 0).to(x.dtype)

    def at(self, maps: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """[R, out, group, group]: the value of each bin's own map at its row and column."""
        regions, out = maps.shape[:2]
        row = rows[:, None, :, None, None, None].expand(regions, out, self.group, self.group, 1, maps.shape[5])
        column = columns[:, None, None, :, None].expand(regions, out, self.group, self.group, 1)
        return maps.gather(4, row).squeeze(4).gather(4, column).squeeze(4)
