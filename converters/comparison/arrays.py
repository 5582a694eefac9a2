"""Files of arrays (.npz, .npy): whatever is wrong with one ends in one of our errors."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import numpy as np

from prototxt import FileProblem, FormatError, WeightsError
from prototxt.files import check_file

from .runners.base import Array, first_line


class Arrays:
    """The arrays of an .npz, each read when it is asked for; a .npy has one, without a name. `error` is raised where the file is at fault."""

    def __init__(self, path: str | Path, error: type[FormatError] = WeightsError, what: str = "no .npz of arrays") -> None:
        self.path, self.error = check_file(path), error
        try:
            opened = open(self.path, "rb")  # noqa: SIM115  open as long as the object
        except OSError as exc:
            raise FileProblem(f"{self.path}: cannot be read: {exc.strerror}") from exc
        weakref.finalize(self, opened.close)
        try:
            self._file: Any = np.load(opened, allow_pickle=False)
        except Exception as exc:  # zipfile, zlib and numpy raise what they like
            opened.close()
            raise error(f"{self.path}: {what}, or a damaged one: {first_line(exc)}") from exc
        self.alone = isinstance(self._file, np.ndarray)
        self.keys: tuple[str, ...] = ("",) if self.alone else tuple(self._file.files)

    def __contains__(self, key: str) -> bool:
        return key in self.keys

    def numbers(self, key: str) -> Array:
        """An array, of numbers."""
        try:
            value: Array = self._file if self.alone else self._file[key]
        except Exception as exc:  # likewise
            raise self.error(f"{self.path}: {key} cannot be read: {first_line(exc)}") from exc
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiub":
            raise self.error(f"{self.path}: {key or 'the array'} does not hold real numbers")
        return value

    def floats(self, key: str) -> Array:
        """An array as float32, as nets take it."""
        return self.numbers(key).astype(np.float32)

    def indices(self, key: str, below: int, count: int) -> Array:
        """`count` places in a blob of `below` values."""
        value = self.numbers(key).reshape(-1)
        if value.dtype.kind not in "iu" or value.size != count or (value.size and not 0 <= int(value.min()) <= int(value.max()) < below):
            raise self.error(f"{self.path}: {key} shall hold {count} whole numbers, each below the blob's {below:,} values")
        return value

    def shape(self, key: str) -> tuple[int, ...]:
        """A blob's shape."""
        value = self.numbers(key).reshape(-1)
        if value.dtype.kind not in "iu" or (value.size and int(value.min()) < 0):
            raise self.error(f"{self.path}: {key} shall hold a shape: whole numbers, none below 0")
        return tuple(int(d) for d in value)
