"""Draws that go by classes: m samples of each class of a batch, and classes in turn."""

from __future__ import annotations

from typing import Any

import numpy as np

from prototxt.errors import TaskError

from .base import Array, by_class


def m_per_class(labels: Array, generator: np.random.Generator, *, size: int | None, m: int = 4, batch_size: int, **_: Any) -> Array:
    """Batches of batch_size / m classes with m samples each (PK sampling); a class of fewer than m repeats its own.

    Give the loader the same batch size, and do not let it drop or shuffle.
    """
    classes = by_class(labels)
    if m < 1 or batch_size < 1:
        raise TaskError(f"batches of {batch_size} with {m} of a class: both are at least 1")
    if batch_size % m or batch_size // m > len(classes):
        raise TaskError(
            f"batches of {batch_size} with {m} of a class need {batch_size / m:g} classes, a whole number of the {len(classes)} there are"
        )
    batches = max((sum(map(len, classes.values())) if size is None else size) // batch_size, 1)
    decks = {c: _Deck(samples, generator) for c, samples in classes.items()}
    order = _Deck(np.array(list(classes)), generator)
    return np.concatenate([decks[c].take(m) for _ in range(batches) for c in order.take_apart(batch_size // m)])


def class_aware(labels: Array, generator: np.random.Generator, *, size: int | None, **_: Any) -> Array:
    """Classes in turn, in a new order each round; of a class its samples in turn, none again before all have come.

    Shen, Lin & Huang, Relay Backpropagation, 2016.
    """
    classes = by_class(labels)
    count = sum(map(len, classes.values())) if size is None else size
    decks = {c: _Deck(samples, generator) for c, samples in classes.items()}
    order = _Deck(np.array(list(classes)), generator)
    return np.array([decks[int(c)].take(1)[0] for c in order.take(count)], dtype=np.int64)


class _Deck:
    """Cards that are dealt until none is left, then shuffled again."""

    def __init__(self, cards: Array, generator: np.random.Generator) -> None:
        self.cards, self.generator, self.left = cards, generator, np.empty(0, dtype=np.int64)

    def take(self, n: int) -> Array:
        """The next n cards."""
        while len(self.left) < n:
            self.left = np.concatenate([self.left, self.generator.permutation(self.cards)])
        taken, self.left = self.left[:n], self.left[n:]
        return taken

    def take_apart(self, n: int) -> list[int]:
        """The next n cards, all different: a few that are left at the end of a round wait for the next one."""
        if len(self.left) < n:
            new = self.generator.permutation(self.cards)
            late = np.isin(new, self.left)
            self.left = np.concatenate([self.left, new[~late], new[late]])
        return [int(c) for c in self.take(n)]
