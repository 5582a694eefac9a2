"""Digits somewhere on a larger, cluttered image: where to look is part of the task. Pixels are the real digits'; the clutter is pieces of them."""

from __future__ import annotations

import torch
from torch import Tensor

PIECE = 4


def cluttered(images: Tensor, size: int, pieces: int, generator: torch.Generator, noise: float = 0.1) -> Tensor:
    """Images [N, 1, 8, 8] -> [N, 1, size, size]: each at a place of its own, over `pieces` cut from others and over noise."""
    n, _, height, width = images.shape
    canvas = noise * torch.rand(n, 1, size, size, generator=generator)
    at = torch.randint(0, size - PIECE + 1, (n, pieces, 2), generator=generator)
    cut = torch.randint(0, height - PIECE + 1, (n, pieces, 2), generator=generator)
    other = torch.randint(0, n, (n, pieces), generator=generator)
    place = torch.randint(0, size - height + 1, (n, 2), generator=generator)
    for i in range(n):
        for k in range(pieces):
            (y, x), (v, u) = at[i, k].tolist(), cut[i, k].tolist()
            piece = images[other[i, k], 0, v : v + PIECE, u : u + PIECE]
            canvas[i, 0, y : y + PIECE, x : x + PIECE] = torch.maximum(canvas[i, 0, y : y + PIECE, x : x + PIECE], piece)
        y, x = place[i].tolist()
        canvas[i, 0, y : y + height, x : x + width] = images[i, 0]
    return canvas.clamp(max=1)
