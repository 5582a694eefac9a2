"""The two players, for square images of 8 to 64 px.

The generator's normalisation takes its scale and shift from the class (class-conditional BatchNorm, Dumoulin et al. 2017); the
discriminator scores h . (w + e_class) with a projection of the class (Miyato & Koyama 2018) and spectral norm in every layer.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from prototxt import DataError


def levels_of(size: int) -> int:
    """How often a side is halved down to 4 to 7 pixels; DataError where it cannot be."""
    levels = 0
    while size % 2 == 0 and size >= 8:
        size, levels = size // 2, levels + 1
    if not 1 <= levels <= 4 or size > 7:
        raise DataError("the GAN is for square images of 8 to 64 pixels a side that halve to 4 to 7, such as 8, 12, 28, 32, 48 or 64")
    return levels


class ClassNorm(nn.Module):
    """BatchNorm whose scale and shift belong to a class."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.scale, self.shift = nn.Embedding(classes, channels), nn.Embedding(classes, channels)
        nn.init.ones_(self.scale.weight)
        nn.init.zeros_(self.shift.weight)

    def forward(self, x: Tensor, classes: Tensor) -> Tensor:
        """[N, C, H, W] and [N] -> same."""
        return self.norm(x) * self.scale(classes)[:, :, None, None] + self.shift(classes)[:, :, None, None]


class Generator(nn.Module):
    """Content [N, width, s, s] (of noise, or of an image by `Encoder`) and classes [N] -> images [N, C, S, S] in 0..1."""

    def __init__(self, classes: int, channels: int, size: int, *, noise: int = 32, width: int = 64) -> None:
        super().__init__()
        levels = levels_of(size)
        self.noise, self.start = noise, (width, size >> levels, size >> levels)
        self.seed = nn.Linear(noise, width * self.start[1] ** 2)
        self.norms = nn.ModuleList(ClassNorm(width, classes) for _ in range(2 * levels))
        self.convs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(2 * levels))
        self.last = nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, content: Tensor, classes: Tensor) -> Tensor:
        """Decode content in the manner of the classes."""
        x = content
        for n in range(0, len(self.convs), 2):
            y = F.interpolate(F.relu(self.norms[n](x, classes)), scale_factor=2)
            y = self.convs[n + 1](F.relu(self.norms[n + 1](self.convs[n](y), classes)))
            x = F.interpolate(x, scale_factor=2) + y
        return self.last(F.relu(x)).sigmoid()

    def content(self, noise: Tensor) -> Tensor:
        """[N, noise] -> content [N, width, s, s]."""
        return self.seed(noise).reshape(-1, *self.start)


class Encoder(nn.Module):
    """Images [N, C, S, S] -> content [N, width, s, s]: instance norms take each map's own mean and scale away, which is its style."""

    def __init__(self, channels: int, size: int, *, width: int = 64) -> None:
        super().__init__()
        sides = [channels, *[width] * levels_of(size)]
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 4, 2, 1) for a, b in pairwise(sides))

    def forward(self, x: Tensor) -> Tensor:
        """What is there, not how it looks."""
        for conv in self.convs:
            x = F.leaky_relu(F.instance_norm(conv(x)), 0.2)
        return x


class Discriminator(nn.Module):
    """Images [N, C, S, S] and classes [N] -> scores [N], higher for real."""

    def __init__(self, classes: int, channels: int, size: int, *, width: int = 64) -> None:
        super().__init__()
        levels = levels_of(size)
        self.first = spectral_norm(nn.Conv2d(channels, width, 3, padding=1))
        self.convs = nn.ModuleList(spectral_norm(nn.Conv2d(width, width, 4, 2, 1)) for _ in range(levels))
        self.score = spectral_norm(nn.Linear(width, 1))
        self.embed = spectral_norm(nn.Embedding(classes, width))

    def forward(self, x: Tensor, classes: Tensor) -> Tensor:
        """The sum over places is what the projection sees."""
        x = F.leaky_relu(self.first(x), 0.2)
        for conv in self.convs:
            x = F.leaky_relu(conv(x), 0.2)
        h = x.sum((2, 3))
        return self.score(h).squeeze(1) + (self.embed(classes) * h).sum(1)


def hinge(real: Tensor, made: Tensor) -> Tensor:
    """The discriminator's loss: real above 1, made below -1."""
    return F.relu(1 - real).mean() + F.relu(1 + made).mean()


def noise_for(generator: Generator, count: int, device: torch.device | None = None) -> Tensor:
    """[count, noise] from torch's generator."""
    return torch.randn(count, generator.noise, device=device)
