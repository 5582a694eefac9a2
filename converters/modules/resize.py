"""Modules that change the size of an image [N, C, H, W]."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MODES = {("corners", True): "bilinear", ("half", True): "bilinear", ("plain", False): "nearest", ("half", False): "nearest-exact"}


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


class GridResize(nn.Module):
    """Bilinear or nearest, on TensorFlow's three grids: place i of the output is, on the input,

    corners: i (in - 1) / (out - 1); half: (i + 0.5) in / out - 0.5; plain: i in / out. Nearest takes the place below,
    but with corners the nearest one, and with half pixels (i + 0.5) in / out, cut. Behind the last place the last value goes on, or `zeros`.
    """

    def __init__(self, size: tuple[int, int], grid: str, bilinear: bool, zeros: bool = False) -> None:
        super().__init__()
        self.size, self.grid, self.bilinear, self.zeros = size, grid, bilinear, zeros

    def forward(self, x: Tensor) -> Tensor:
        mode = MODES.get((self.grid, self.bilinear))
        if mode and not self.zeros and not torch.compiler.is_exporting():  # readers of a file round places in ways of their own
            return F.interpolate(x, self.size, mode=mode, align_corners=self.grid == "corners" if self.bilinear else None)
        for axis in (2, 3):
            x = self.along(x, axis)
        return x

    def along(self, x: Tensor, axis: int) -> Tensor:
        """Resized along one axis: both ways are separable."""
        old, new = x.shape[axis], self.size[axis - 2]
        i = torch.arange(new, device=x.device, dtype=x.dtype)
        if self.grid == "corners":
            place = i * ((old - 1) / (new - 1)) if new > 1 else i
        else:
            place = (i + 0.5) * (old / new) - (0.5 if self.bilinear else 0.0) if self.grid == "half" else i * (old / new)
        if not self.bilinear:
            nearest = place.floor()
            if self.grid == "corners":  # place + 0.5 would round a place just below the half up
                nearest = nearest + (place - nearest >= 0.5)
            return x.index_select(axis, nearest.clamp(0, old - 1).long())
        if not self.zeros:
            place = place.clamp(0, old - 1)
        low = place.floor().long()
        high = (low + 1).clamp(max=old - 1)
        weight = (place - low).view(-1, *(1,) * (3 - axis))
        behind = weight * (high > low).view_as(weight) if self.zeros else weight
        return x.index_select(axis, low) * (1 - weight) + x.index_select(axis, high) * behind


class Repeat(nn.Module):
    """Every pixel `scale` times, down and across."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return x.repeat_interleave(self.scale, 2).repeat_interleave(self.scale, 3)


class MaskUnpool(nn.Module):
    """Values [N, C, h, w] at the places in the H x W plane that a pooling mask of the same shape names; 0 elsewhere.

    Of values for the same place the last counts; the gradient comes from there to each of them (SegNet).
    """

    def __init__(self, size: tuple[int, int] | None = None, scale: tuple[int, int] = (2, 2), less: tuple[int, int] = (0, 0)) -> None:
        super().__init__()
        self.size, self.scale, self.less = size, scale, less

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        high, wide = self.size or (x.shape[2] * self.scale[0] - self.less[0], x.shape[3] * self.scale[1] - self.less[1])
        place = mask.detach().long().flatten(2)
        plane = x.new_zeros(x.shape[0], x.shape[1], high * wide).scatter_(2, place, x.flatten(2))
        return plane.unflatten(2, (high, wide))


class Reorg(nn.Module):
    """Space into channels in Darknet's order: the input is read as C / s^2 planes of H s x W s, whose s x s phases become channels."""

    def __init__(self, stride: int, reverse: bool = False) -> None:
        super().__init__()
        self.stride, self.reverse = stride, reverse

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        s = self.stride
        inner = c // s**2
        if self.reverse:
            planes = x.reshape(n, s, s, inner, h, w).permute(0, 3, 4, 1, 5, 2)
            return planes.reshape(n, inner, h * s, w * s)
        phases = x.reshape(n, inner, h, s, w, s).permute(0, 3, 5, 1, 2, 4)
        return phases.reshape(n, c * s**2, h // s, w // s)


class Pad(nn.Module):
    """Padding around the last axes, from the last one on: before, behind, before, behind, ..."""

    def __init__(self, around: tuple[int, ...], mode: str = "constant", value: float = 0.0) -> None:
        super().__init__()
        self.around, self.mode, self.value = around, mode, value

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, self.around, self.mode, self.value if self.mode == "constant" else None)
