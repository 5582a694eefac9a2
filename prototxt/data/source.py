"""What a database and a list of pictures have in common: pictures by index, and batches of them, transformed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..errors import DataError
from .buffers import Buffers
from .transform import Transform

Array = np.ndarray[Any, Any]


class Picture(NamedTuple):
    """A record: `pixels` [C, H, W] of bytes or floats, before the transformation, and its label, or labels [K]."""

    pixels: Array
    label: Any


class Source(ABC):
    """A sequence of Pictures. `has` tells whether there is an index without walking over everything, which `len` may have to."""

    label_shape: tuple[int, ...] = ()  # of one record: (K,) where each has K labels

    def __init__(self, transform: Transform) -> None:
        self.transform = transform
        self._buffers = Buffers()

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Picture: ...

    @abstractmethod
    def has(self, index: int) -> bool:
        """Whether there is a record `index`."""

    @abstractmethod
    def place(self, index: int) -> str:
        """Where a record stands, for errors."""

    def size(self, index: int = 0) -> tuple[int, ...]:
        """Channels, height and width of a record after the transformation."""
        return self._checked(index, self[index].pixels)

    def sample(self, index: int, draw: Array | None = None) -> tuple[Array, Any]:
        """One picture, transformed, float32 [C, h, w], and its label; `draw` as in `batch`."""
        picture = self[index]
        out = np.empty(self._checked(index, picture.pixels), np.float32)
        self.transform.apply(picture.pixels, out, draw)
        return out, picture.label

    def batch(self, indices: Sequence[int], draws: Array | None = None) -> tuple[Array, Array]:
        """Images [N, C, h, w] and labels [N] (or [N, K]) of records; the first one fixes the size. `draws` [N, 3] place mirrors and crops.

        The memory of the images is used again once nobody holds them, nor a view of them.
        """
        first = self[indices[0]]
        size = self._checked(indices[0], first.pixels)
        images, labels = self._buffers.array((len(indices), *size)), np.empty((len(indices), *self.label_shape), np.float32)
        at = 0
        while at < len(indices):
            done = self._run(indices, at, first.pixels.shape, images, labels, draws)
            if not done:
                picture = first if at == 0 else self[indices[at]]
                self._one(indices[at], picture.pixels, images[at], None if draws is None else draws[at])
                labels[at] = picture.label
            at += done or 1
        return images, labels

    def _run(self, indices: Sequence[int], at: int, size: tuple[int, ...], images: Array, labels: Array, draws: Array | None) -> int:
        """Bring several records from `at` on in one go, if there is a faster way than one by one; how many were brought."""
        return 0

    def _one(self, index: int, pixels: Array, out: Array, draw: Array | None) -> None:
        size = self._checked(index, pixels)
        if size != out.shape:
            have, want = (" x ".join(map(str, shape)) for shape in (size, out.shape))
            raise self._at(index, f"is {have} (channels x height x width), the first of its batch {want}; crop_size or a batch of 1 would allow it")
        self.transform.apply(pixels, out, draw)

    def _checked(self, index: int, pixels: Array) -> tuple[int, ...]:
        """What becomes of a picture; DataError with its place where Caffe would stop."""
        try:
            return self.transform.size(*pixels.shape)
        except DataError as exc:
            raise self._at(index, exc) from exc

    def _at(self, index: int, problem: object) -> DataError:
        return DataError(f"{self.place(index)}: {problem}")
