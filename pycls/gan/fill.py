"""Filling classes up to a count with generated rows, each marked, and how far they lie from what they were learned from."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .training import Gan, Settings, train_gan


@dataclass(frozen=True)
class Filled:
    """Real rows first, then generated ones: images [N, C, S, S], classes [N], and where each is from."""

    images: Tensor
    classes: Tensor
    source: tuple[str, ...]
    gan: Gan

    @property
    def generated(self) -> Tensor:
        """The generated images alone."""
        return self.images[torch.tensor([s != "real" for s in self.source])]


def fill(images: Tensor, classes: Tensor, settings: Settings, *, count: int | None = None, seed: int = 0) -> Filled:
    """Fill each class that has fewer than `count` rows (by default the largest class's) with generated ones.

    `images` must be the training fold alone: what is in no fold that a test sees cannot leak into one. With `settings.style` half of a
    class's new rows are images of larger classes in its manner, source "gan-style"; the rest are from noise, source "gan".
    """
    gan = train_gan(images, classes, settings, seed=seed)
    counts = classes.bincount()
    count = int(counts.max()) if count is None else count
    parts, labels, source = [images], [classes], ["real"] * len(images)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + 1)
        for c in range(len(counts)):
            missing = max(count - int(counts[c]), 0) if counts[c] else 0
            larger = torch.nonzero(counts[classes] > counts[c]).squeeze(1)
            redrawn = missing // 2 if settings.style and len(larger) else 0
            label = torch.full((missing,), c, dtype=classes.dtype, device=classes.device)
            if redrawn:
                rows = larger[torch.randint(0, len(larger), (redrawn,))]
                parts.append(gan.restyle(images[rows], label[:redrawn]))
            if missing - redrawn:
                parts.append(gan.make(label[redrawn:]))
            labels.append(label)
            source += ["gan-style"] * redrawn + ["gan"] * (missing - redrawn)
    return Filled(torch.cat(parts), torch.cat(labels), tuple(source), gan)


def nearest(rows: Tensor, among: Tensor) -> Tensor:
    """Euclidean distance [N] of each row [N, ...] to its nearest of `among` [M, ...]; of a row to itself where both are one tensor, not."""
    apart = torch.cdist(rows.flatten(1), among.flatten(1), compute_mode="donot_use_mm_for_euclid_dist")
    if rows is among:
        apart.fill_diagonal_(torch.inf)
    return apart.min(1).values
