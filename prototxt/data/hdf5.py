"""HDF5Data's files: data sets of numbers, one a top, whose first axis is the rows; and the file that HDF5Output writes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from ..files import atomic_path, check_file, read_file
from ..h5 import check_numbers, floats, member, opened

Array = np.ndarray[Any, Any]


def read_list(path: str | Path) -> list[str]:
    """The names in a list of HDF5 files: split at white space, so that blank lines do not count."""
    names = [name.decode("utf-8", "surrogateescape") for name in read_file(path, limit=1 << 30).split()]
    if not names:
        raise DataError(f"{path}: the list names no HDF5 file")
    return names


def load(path: str | Path, names: Sequence[str]) -> list[Array]:
    """The data sets `names` of a file as float32."""
    path = check_file(path)
    with opened(path, DataError) as f:
        return [floats(_dataset(f, name, path), path, DataError) for name in names]


def shapes(path: str | Path, names: Sequence[str]) -> list[tuple[int, ...]]:
    """Their shapes, without reading them."""
    path = check_file(path)
    with opened(path, DataError) as f:
        return [tuple(_dataset(f, name, path).shape) for name in names]


def _dataset(f: Any, name: str, path: Path) -> Any:
    import h5py

    found = member(f, name, path, DataError)
    if not isinstance(found, h5py.Dataset):
        what = "is a group, not a data set" if found is not None else f"is not there; it has {', '.join(map(repr, sorted(f)[:20])) or 'none'}"
        raise DataError(f"{path}: the data set {name!r} {what}")
    check_numbers(found, path, DataError)
    if not found.shape:
        raise DataError(f"{path}: {name!r} is a single value; HDF5Data reads rows")
    return found


def check_rows(arrays: Sequence[Array], names: Sequence[str], path: Path) -> int:
    """The number of rows, which must be the same for all."""
    rows = [len(array) for array in arrays]
    if len(set(rows)) > 1:
        listed = ", ".join(f"{name!r} has {count}" for name, count in zip(names, rows, strict=True))
        raise DataError(f"{path}: the data sets differ in rows: {listed}")
    if not rows[0]:
        raise DataError(f"{path}: its data sets have no rows")
    return rows[0]


def write_batch(path: str | Path, data: Array, label: Array) -> None:
    """The file of an HDF5Output layer: `data` and `label`, float32 and 4-D, of as many rows. Conformance: data/hdf5_output."""
    import h5py

    if data.ndim < 1 or label.ndim < 1 or len(data) != len(label):
        have = [list(a.shape) for a in (data, label)]
        raise DataError(f"{path}: data {have[0]} and label {have[1]} must have as many rows")
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as f:
        for name, array in (("data", data), ("label", label)):
            if array.ndim > 4:
                raise DataError(f"{path}: {name} has {array.ndim} axes; HDF5Output writes at most 4")
            f.create_dataset(name, data=np.asarray(array, np.float32).reshape((*array.shape, 1, 1, 1, 1)[:4] if array.ndim < 4 else array.shape))
