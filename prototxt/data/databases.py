"""Databases of Datum as pictures and labels: LMDB or LevelDB, raw, float or encoded records, in the order of keys."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import DataError, FileProblem
from .buffers import Buffers
from .datum import Datum, DatumReader
from .images import decode
from .leveldb_reader import LevelDb
from .lmdb_reader import Lmdb
from .transform import Transform

Array = np.ndarray[Any, Any]
GROUP = 1 << 17  # bytes of records that are read and transformed at a time: they stay in the processor's cache


class Picture(NamedTuple):
    """A record: `pixels` [C, H, W] of bytes or floats, and its label."""

    pixels: Array
    label: int


def open_database(path: str | Path, backend: str = "LMDB") -> Lmdb | LevelDb:
    """The database in the folder `path`. FileProblem or DataError says what is there instead."""
    path = Path(path)
    if not path.exists():
        raise FileProblem(f"{path}: no such database")
    kind = "LMDB" if (path / "data.mdb").exists() else "LEVELDB" if (path / "CURRENT").exists() else ""
    if kind and kind != backend:
        raise DataError(f"{path}: holds {'an LMDB' if kind == 'LMDB' else 'a LevelDB'}; write `backend: {kind}`")
    return Lmdb(path) if backend == "LMDB" else LevelDb(path)


class Records:
    """The pictures of a database, `records[5]` -> Picture, and batches of them, transformed."""

    def __init__(self, database: Lmdb | LevelDb, transform: Transform | None = None) -> None:
        self.database, self.transform = database, transform or Transform()
        self._reader, self._buffers = DatumReader(), Buffers()
        self._complained = False

    def __len__(self) -> int:
        return len(self.database)

    def __getitem__(self, index: int) -> Picture:
        record = self.database[index]
        try:
            datum = self._reader.read(record)
            return Picture(self._pixels(record, datum), datum.label)
        except DataError as exc:
            raise self._at(index, exc) from exc

    def has(self, index: int) -> bool:
        """Whether there is a record `index`; it costs no walk over the whole database."""
        return self.database.has(index)

    def size(self, index: int = 0) -> tuple[int, ...]:
        """Channels, height and width of a record after the transformation."""
        return self._checked(index, self[index].pixels)

    def batch(self, indices: Sequence[int], draws: Array | None = None) -> tuple[Array, Array]:
        """Images [N, C, h, w] and labels [N] of records; the first one fixes the size. `draws` [N, 3] place crops and mirrors."""
        first = self[indices[0]]
        size = self._checked(indices[0], first.pixels)
        images, labels = self._buffers.array((len(indices), *size)), np.empty(len(indices), np.float32)
        at = 0
        while at < len(indices):
            done = 0 if draws is not None else self._run(indices, at, first.pixels.shape, images, labels)
            if not done:
                picture = first if at == 0 else self[indices[at]]
                self._one(indices[at], picture.pixels, images[at], None if draws is None else draws[at])
                labels[at] = picture.label
            at += done or 1
        return images, labels

    def _one(self, index: int, pixels: Array, out: Array, draw: Array | None) -> None:
        size = self._checked(index, pixels)
        if size != out.shape:
            have, want = (" x ".join(map(str, shape)) for shape in (size, out.shape))
            raise self._at(index, f"is {have} (channels x height x width), the first of its batch {want}; crop_size or a batch of 1 would allow it")
        self.transform.apply(pixels, out, draw)

    def _run(self, indices: Sequence[int], at: int, size: tuple[int, ...], images: Array, labels: Array) -> int:
        """Read raw records that follow each other, and are laid out alike, in one go; how many were, 0 where it does not pay."""
        like = self._reader.like
        if like is None or like[:3] != size or like.data[1] - like.data[0] < prod(size):
            return 0
        stop = min(len(indices), at + max(1, GROUP // prod(size)))
        if not isinstance(indices, range):
            stop = next((n for n in range(at + 1, stop) if indices[n] != indices[n - 1] + 1), stop)
        run = self.database.run(indices[at], stop - at)
        if run is None:
            return 0
        data, starts, sizes = run
        found = self._reader.read_run(data, starts, sizes)
        labels[at : at + len(found)] = found
        for done, count, step in _equal_steps(starts[: len(found)]):
            strides = (step, size[1] * size[2], size[2], 1)
            view: Array = np.ndarray((count, *size), np.uint8, data, starts[done] + like.data[0], strides)
            self.transform.apply(view, images[at + done : at + done + count])
        return len(found)

    def _checked(self, index: int, pixels: Array) -> tuple[int, ...]:
        """What becomes of a picture; DataError with its place where Caffe would stop."""
        try:
            return self.transform.size(*pixels.shape)
        except DataError as exc:
            raise self._at(index, exc) from exc

    def _pixels(self, record: bytes, datum: Datum) -> Array:
        """[C, H, W] of a record; force_color and force_gray act on encoded ones."""
        color, gray = self.transform.force_color, self.transform.force_gray
        if not datum.encoded:
            if (color or gray) and not self._complained:
                self._complained = True
                warnings.warn(f"{self.database.path}: force_color and force_gray have no effect: its records are not encoded", stacklevel=2)
            return datum.pixels(record)
        if color and gray:
            raise DataError("transform_param has force_color and force_gray; write one of the two")
        return decode(record[slice(*datum.data)], color=color if color or gray else None)

    def _at(self, index: int, problem: object) -> DataError:
        return DataError(f"{self.database.path}: record {index}: {problem}")


def _equal_steps(starts: list[int]) -> list[tuple[int, int, int]]:
    """(first, count, step) of stretches of places at equal distances: those that one strided array can show."""
    found, at, end = [], 0, len(starts)
    while at < end:
        stop, step = at + 1, starts[at + 1] - starts[at] if at + 1 < end else 0
        if starts[at:] == [starts[at] + step * n for n in range(end - at)]:
            stop = end
        while stop < end and starts[stop] - starts[stop - 1] == step:
            stop += 1
        found.append((at, stop - at, step))
        at = stop
    return found
