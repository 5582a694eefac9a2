"""DiffAugment (Zhao et al. 2020): one policy for real and generated images, in both players' steps, so that neither can cheat by it.

colour       brightness + U(-0.5, 0.5), saturation x U(0, 2), contrast x U(0.5, 1.5)
translation  by up to 1/8 of each side
cutout       a square of half of each side
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def diff_augment(x: Tensor, policy: tuple[str, ...] = ("color", "translation", "cutout")) -> Tensor:
    """[N, C, H, W] -> same; differentiable, from torch's generator."""
    for name in policy:
        x = POLICIES[name](x)
    return x


def _uniform(x: Tensor, low: float, high: float) -> Tensor:
    return torch.empty(len(x), 1, 1, 1, device=x.device).uniform_(low, high)


def color(x: Tensor) -> Tensor:
    """Brightness, saturation (nothing on one channel), contrast."""
    x = x + _uniform(x, -0.5, 0.5)
    grey = x.mean(1, keepdim=True)
    x = (x - grey) * _uniform(x, 0, 2) + grey
    mean = x.mean((1, 2, 3), keepdim=True)
    return (x - mean) * _uniform(x, 0.5, 1.5) + mean


def translation(x: Tensor, share: float = 1 / 8) -> Tensor:
    """Moved by whole pixels, zeros behind."""
    n, _, height, width = x.shape
    reach = (round(height * share), round(width * share))
    padded = F.pad(x, (reach[1], reach[1], reach[0], reach[0]))
    rows = torch.randint(0, 2 * reach[0] + 1, (n, 1), device=x.device) + torch.arange(height, device=x.device)
    columns = torch.randint(0, 2 * reach[1] + 1, (n, 1), device=x.device) + torch.arange(width, device=x.device)
    moved = padded.movedim(1, -1)[torch.arange(n, device=x.device)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return moved.movedim(-1, 1)


def cutout(x: Tensor, share: float = 1 / 2) -> Tensor:
    """A rectangle set to 0, its middle anywhere."""
    within = []
    for axis in (2, 3):
        size = x.shape[axis]
        middle = torch.randint(0, size, (len(x), 1, 1, 1), device=x.device)
        apart = torch.arange(size, device=x.device).reshape([size if a == axis else 1 for a in range(4)]) - middle
        half = round(size * share) // 2
        within.append((apart >= -half) & (apart < half))
    return x.masked_fill(within[0] & within[1], 0)


POLICIES = {"color": color, "cutout": cutout, "translation": translation}
