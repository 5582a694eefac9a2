"""Joining, cutting, reordering, reshaping: as modules, so that each keeps its layer's name."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Concat(nn.Module):
    """Joins its inputs along an axis."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, *inputs: Tensor) -> Tensor:
        return torch.cat(inputs, self.dim)


class Slice(nn.Module):
    """Cuts along an axis into parts of the given sizes."""

    def __init__(self, sizes: tuple[int, ...], dim: int) -> None:
        super().__init__()
        self.sizes, self.dim = sizes, dim

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        parts = x.split(list(self.sizes), self.dim)
        return parts if len(parts) > 1 else parts[0]


class SliceEqual(nn.Module):
    """Cuts along an axis into equal parts, whatever its size."""

    def __init__(self, parts: int, dim: int) -> None:
        super().__init__()
        self.parts, self.dim = parts, dim

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        if torch.compiler.is_exporting():  # a chunk's size would be fixed in the file, for a free batch too
            pieces = x.unflatten(self.dim, (self.parts, -1)).unbind(self.dim)
        elif x.shape[self.dim] % self.parts:
            raise ValueError(f"axis {self.dim} of {x.shape[self.dim]} does not fall into {self.parts} equal parts")
        else:
            pieces = x.chunk(self.parts, self.dim)
        return pieces if self.parts > 1 else pieces[0]


class Split(nn.Module):
    """The same tensor several times."""

    def __init__(self, copies: int) -> None:
        super().__init__()
        self.copies = copies

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        return (x,) * self.copies if self.copies > 1 else x


class Reshape(nn.Module):
    """Reshapes the axes from `start` to `end`: 0 copies the axis at its place, -1 is inferred."""

    def __init__(self, dims: tuple[int, ...], start: int = 0, end: int | None = None) -> None:
        super().__init__()
        self.dims, self.start, self.end = dims, start, end

    def forward(self, x: Tensor) -> Tensor:
        tail = () if self.end is None else x.shape[self.end :]
        dims = [x.shape[self.start + i] if d == 0 else d for i, d in enumerate(self.dims)]
        return x.reshape([*x.shape[: self.start], *dims, *tail])


class Crop(nn.Module):
    """Cuts the first input to the size of the second from `axis` on, at an offset for each axis."""

    def __init__(self, axis: int, offsets: tuple[int, ...]) -> None:
        super().__init__()
        self.axis, self.offsets = axis, offsets

    def forward(self, x: Tensor, size: Tensor) -> Tensor:
        for i, offset in enumerate(self.offsets, self.axis):
            x = x.narrow(i, offset, size.shape[i])
        return x


class CropCenter(nn.Module):
    """Takes as many values off both ends of each axis as `sizes` says."""

    def __init__(self, sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.sizes = sizes

    def forward(self, x: Tensor) -> Tensor:
        for axis, size in enumerate(self.sizes):
            x = x.narrow(axis, size, x.shape[axis] - 2 * size) if size else x
        return x


class Permute(nn.Module):
    """Reorders the axes."""

    def __init__(self, order: tuple[int, ...]) -> None:
        super().__init__()
        self.order = order

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(self.order)


class Tile(nn.Module):
    """Repeats along an axis."""

    def __init__(self, dim: int, tiles: int) -> None:
        super().__init__()
        self.dim, self.tiles = dim, tiles

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x] * self.tiles, self.dim)


class Silence(nn.Module):
    """Takes anything, gives nothing."""

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return ()
