"""Draws with replacement: first a class, then a sample of it. Kang et al., Decoupling Representation and Classifier, 2020, eq. 1-2."""

from __future__ import annotations

from typing import Any

import numpy as np

from prototxt.errors import TaskError

from .base import Array, by_class


def class_balanced(labels: Array, generator: np.random.Generator, *, size: int | None, **_: Any) -> Array:
    """Each class with probability 1 / C."""
    return _weighted(labels, generator, size, power=0.0)


def sqrt(labels: Array, generator: np.random.Generator, *, size: int | None, **_: Any) -> Array:
    """Each class with probability ~ sqrt(n)."""
    return _weighted(labels, generator, size, power=0.5)


def progressive(labels: Array, generator: np.random.Generator, *, epoch: int, size: int | None, epochs: int, **_: Any) -> Array:
    """A blend by e / (epochs - 1), from a class by its share in the first epoch to every class alike in the last."""
    if epochs < 1:
        raise TaskError(f"progressive sampling over {epochs} epochs: it needs one at least")
    return _weighted(labels, generator, size, blend=min(epoch / max(epochs - 1, 1), 1.0))


def _weighted(labels: Array, generator: np.random.Generator, size: int | None, *, power: float = 1.0, blend: float = 0.0) -> Array:
    """Draw a class by n^power, blended with all alike, and a sample of it."""
    classes = by_class(labels)
    counts = np.array([len(samples) for samples in classes.values()], dtype=np.float64)
    share = counts**power / (counts**power).sum()
    share = (1 - blend) * share + blend / len(counts)
    weights = np.concatenate([np.full(len(samples), p / len(samples)) for samples, p in zip(classes.values(), share, strict=True)])
    pool = np.concatenate(list(classes.values()))
    return generator.choice(pool, size=len(pool) if size is None else size, p=weights / weights.sum())
