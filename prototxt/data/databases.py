"""Databases of Datum as pictures and labels: LMDB or LevelDB, raw, float or encoded records, in the order of keys."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
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
    kind = "LMDB" if path.is_file() or (path / "data.mdb").exists() else "LEVELDB" if (path / "CURRENT").exists() else ""
    if kind and kind != backend:
        raise DataError(f"{path}: holds {'an LMDB' if kind == 'LMDB' else 'a LevelDB'}; write `backend: {kind}`")
    return Lmdb(path) if backend == "LMDB" else LevelDb(path)


class Records:
    """The pictures of a database: `records[5]` -> Picture, and batches of them, transformed. `first` is the name for errors."""

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
            raise DataError(f"{self.database.path}: record {index}: {exc}") from exc

    def has(self, index: int) -> bool:
        """Whether there is a record `index`; it costs no walk over the whole database."""
        return self.database.reaches(index)

    def batch(self, indices: Sequence[int], draws: Array | None = None) -> tuple[Array, Array]:
        """Images [N, C, h, w] and labels [N] of records; the first one fixes the size. `draws` [N, 3] place crops and mirrors."""
        first = self[indices[0]]
        size = self._checked(indices[0], first)
        images, labels = self._buffers.array((len(indices), *size)), np.empty(len(indices), np.float32)
        at = 0
        while at < len(indices):
            done = 0 if draws is not None else self._run(indices, at, first, images, labels)
            if not done:
                picture = first if at == 0 else self[indices[at]]
                if at and self._checked(indices[at], picture) != size:
                    self._differs(indices[at], picture, size)
                self.transform.apply(picture.pixels, images[at], None if draws is None else draws[at])
                labels[at] = picture.label
                done = 1
            at += done
        return images, labels

    def _run(self, indices: Sequence[int], at: int, first: Picture, images: Array, labels: Array) -> int:
        """Read records that stand side by side and are alike in one go; how many were, 0 if it does not pay."""
        like = self._reader.last
        if like is None or first.pixels.dtype != np.uint8:
            return 0
        stop = at + 1
        most = min(len(indices), at + max(1, GROUP // first.pixels.size))
        while stop < most and indices[stop] == indices[stop - 1] + 1:
            stop += 1
        run = self.database.run(indices[at], stop - at)
        if run is None:
            return 0
        data, starts, sizes = run
        found = self._reader.read_run(data, starts, sizes)
        if not found:
            return 0
        labels[at : at + len(found)] = found
        begin, done = like.data[0], 0
        shape = first.pixels.shape
        strides = (shape[1] * shape[2], shape[2], 1)
        while done < len(found):
            step = starts[done + 1] - starts[done] if done + 1 < len(found) else 0
            count = 1
            while done + count < len(found) and starts[done + count] - starts[done + count - 1] == step:
                count += 1
            view = np.ndarray((count, *shape), np.uint8, data, starts[done] + begin, (step, *strides))
            self.transform.apply(view, images[at + done : at + done + count])
            done += count
        return len(found)
