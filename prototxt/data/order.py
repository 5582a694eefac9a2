"""In which order a layer takes its records: one after the other, on over the end; or shuffled anew in each round.

Random orders are made from a seed and the number of the round, so that a position and a round are all that a resumed run needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import DataError
from .source import Source

Array = np.ndarray[Any, Any]


class Order:
    """Indices of a source, as many as a batch asks for. `seed` is a list of numbers."""

    def __init__(self, source: Source, *, shuffle: bool = False, seed: Sequence[int] = (0,), start: int = 0) -> None:
        self.source, self.shuffle, self.seed = source, shuffle, list(seed)
        self.position, self.round = start, 0
        self._permutation: tuple[int, Array] | None = None

    def take(self, count: int) -> Sequence[int]:
        """The next `count` indices."""
        if not self.shuffle and self.source.has(self.position + count - 1):
            self.position += count
            return range(self.position - count, self.position)
        return [self._next() for _ in range(count)]

    def _next(self) -> int:
        if not self.source.has(self.position):
            if self.position == 0:
                raise DataError(f"{self.source.place(0)}: there is none; the source is empty")
            self.position, self.round = 0, self.round + 1
        self.position += 1
        return self._shuffled(self.position - 1) if self.shuffle else self.position - 1

    def _shuffled(self, position: int) -> int:
        if self._permutation is None or self._permutation[0] != self.round:
            self._permutation = self.round, shuffled(len(self.source), [*self.seed, self.round])
        return int(self._permutation[1][position])


def shuffled(count: int, seed: Sequence[int]) -> Array:
    """A permutation of `count` indices that the seed determines."""
    return np.random.default_rng(list(seed)).permutation(count)
