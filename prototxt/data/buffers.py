"""Memory for batches, used again once nobody holds them: touching fresh pages costs more than writing the pixels.

An array is lent, not given: it is an ndarray over a block of the pool, and every view of it, or tensor over it, keeps it alive. Only when
all of them are gone does its block serve the next batch.
"""

from __future__ import annotations

import weakref
from math import prod
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
KEPT = 8  # blocks of a pool


class Buffers:
    """Float32 arrays of the sizes that were asked for last."""

    def __init__(self) -> None:
        self._lent: list[tuple[bytearray, weakref.ref[Array]]] = []

    def array(self, shape: tuple[int, ...]) -> Array:
        """An array of `shape`; what is in it is undefined."""
        size = 4 * prod(shape)
        free = next((i for i, (block, array) in enumerate(self._lent) if len(block) == size and array() is None), None)
        block = self._lent.pop(free)[0] if free is not None else bytearray(size)
        # A bytearray, not an ndarray, owns the memory: numpy lets the base of a view be the array that lends, and not what is behind it.
        array = np.ndarray(shape, np.float32, block)
        self._lent.append((block, weakref.ref(array)))
        del self._lent[:-KEPT]
        return array

    def __reduce__(self) -> tuple[type[Buffers], tuple[()]]:
        return Buffers, ()
