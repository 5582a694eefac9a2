"""Databases of Datum as pictures and labels: LMDB or LevelDB, raw, float or encoded records, in the order of keys."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError, FileProblem
from .datum import Datum, DatumReader
from .images import decode
from .leveldb_reader import LevelDb
from .lmdb_reader import Lmdb
from .source import Picture, Source
from .transform import Transform

Array = np.ndarray[Any, Any]
GROUP = 1 << 18  # bytes of records that are read and transformed at a time: they stay in the processor's cache


def kind_of_database(path: Path) -> str:
    """LMDB or LEVELDB, by the files in the folder; empty if it is neither."""
    return "LMDB" if (path / "data.mdb").exists() else "LEVELDB" if (path / "CURRENT").exists() else ""


def open_database(path: str | Path, backend: str = "") -> Lmdb | LevelDb:
    """The database in the folder `path`; an empty backend is found out. FileProblem or DataError says what is there instead."""
    path = Path(path)
    if not path.exists():
        raise FileProblem(f"{path}: no such database")
    kind = kind_of_database(path)
    if backend and kind and kind != backend:
        raise DataError(f"{path}: holds {'an LMDB' if kind == 'LMDB' else 'a LevelDB'}; write `backend: {kind}`")
    if not kind:
        raise DataError(f"{path}: holds neither an LMDB (data.mdb) nor a LevelDB (CURRENT)")
    return Lmdb(path) if kind == "LMDB" else LevelDb(path)


class Records(Source):
    """The records of a database."""

    def __init__(self, database: Lmdb | LevelDb, transform: Transform | None = None) -> None:
        super().__init__(transform or Transform())
        self.database = database
        self._reader = DatumReader()
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
        """Whether there is a record `index`."""
        return self.database.has(index)

    def place(self, index: int) -> str:
        """The database, and the record's number from 0."""
        return f"{self.database.path}: record {index}"

    def _run(self, indices: Sequence[int], at: int, size: tuple[int, ...], images: Array, labels: Array, draws: Array | None) -> int:
        """Read raw records that follow each other, and are laid out alike, in one go."""
        like = self._reader.like
        if like is None or like[:3] != size or like.data[1] - like.data[0] < prod(size):
            return 0
        stop = min(len(indices), at + max(1, GROUP // prod(size)))
        if not isinstance(indices, range) and indices[at:stop] != list(range(indices[at], indices[at] + stop - at)):
            stop = next((n for n in range(at + 1, stop) if indices[n] != indices[n - 1] + 1), stop)
        run = self.database.run(indices[at], stop - at)
        if run is None:
            return 0
        data, starts, sizes = run
        found = self._reader.read_run(data, starts, sizes)
        if not len(found):
            return 0
        labels[at : at + len(found)] = found
        if draws is not None:
            pixels = [np.ndarray(size, np.uint8, data, start + like.data[0]) for start in starts[: len(found)]]
            self.transform.apply_each(pixels, images[at : at + len(found)], draws[at : at + len(found)])
            return len(found)
        for done, count, step in _equal_steps(starts[: len(found)]):
            strides = (step, size[1] * size[2], size[2], 1)
            view: Array = np.ndarray((count, *size), np.uint8, data, starts[done] + like.data[0], strides)
            self.transform.apply(view, images[at + done : at + done + count])
        return len(found)

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
