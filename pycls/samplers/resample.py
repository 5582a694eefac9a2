"""Draws without replacement, as far as that goes: all samples, fewer of the frequent classes, or more of the rare ones."""

from __future__ import annotations

from typing import Any

import numpy as np

from .base import Array, by_class


def instance(labels: Array, generator: np.random.Generator, *, size: int | None, **_: Any) -> Array:
    """Every sample once, shuffled; those without a label too."""
    return generator.permutation(len(labels))[:size]


def under(labels: Array, generator: np.random.Generator, *, size: int | None, **_: Any) -> Array:
    """As many samples of each class as the rarest has."""
    classes = by_class(labels)
    least = min(len(samples) for samples in classes.values())
    drawn = np.concatenate([generator.permutation(samples)[:least] for samples in classes.values()])
    return generator.permutation(drawn)[:size]


def over(labels: Array, generator: np.random.Generator, *, size: int | None, **_: Any) -> Array:
    """As many samples of each class as the largest has: each of a class's samples once more before any comes again."""
    classes = by_class(labels)
    most = max(len(samples) for samples in classes.values())
    drawn = [np.concatenate([generator.permutation(samples) for _ in range(-(-most // len(samples)))])[:most] for samples in classes.values()]
    return generator.permutation(np.concatenate(drawn))[:size]
