"""HDF5Data's files: data sets of numbers, one a top, whose first axis is the rows; and the file that HDF5Output writes.

What stands in an HDF5 file may point elsewhere (external links and storage, virtual data sets); such are refused, and so is a data set
that would unfold to more than 4,128 times its file (deflate reaches 1,032, and a byte becomes a float).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from ..files import atomic_path, check_file, read_file

Array = np.ndarray[Any, Any]
UNFOLDS, SPARE, MAX_COUNT = 4 * 1032, 1 << 26, 2**31 - 1


def read_list(path: str | Path) -> list[str]:
    """The names in a list of HDF5 files: split at white space, so that blank lines do not count."""
    names = [name.decode("utf-8", "surrogateescape") for name in read_file(path, limit=1 << 30).split()]
    if not names:
        raise DataError(f"{path}: the list names no HDF5 file")
    return names


def load(path: str | Path, names: Sequence[str]) -> list[Array]:
    """The data sets `names` of a file as float32, all of the same number of rows."""
    import h5py

    path = check_file(path)
    try:
        with h5py.File(path, "r") as f:
            arrays = [_read(_dataset(f, name, path), path.stat().st_size) for name in names]
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError, MemoryError) as exc:
        raise DataError(f"{path}: no HDF5 file, or a damaged one: {exc}") from exc
    return arrays


def shapes(path: str | Path, names: Sequence[str]) -> list[tuple[int, ...]]:
    """Their shapes, without reading them."""
    import h5py

    path = check_file(path)
    try:
        with h5py.File(path, "r") as f:
            return [tuple(_dataset(f, name, path).shape) for name in names]
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError) as exc:
        raise DataError(f"{path}: no HDF5 file, or a damaged one: {exc}") from exc


def _dataset(f: Any, name: str, path: Path) -> Any:
    import h5py

    link = f.get(name, getlink=True) if name in f else None
    if link is None:
        raise DataError(f"{path}: has no data set {name!r}; it has {', '.join(map(repr, sorted(f)[:20])) or 'none'}")
    if isinstance(link, h5py.ExternalLink):
        raise DataError(f"{path}: {name!r} is a link to another file; copy the data in")
    found = f[name]
    if not isinstance(found, h5py.Dataset):
        raise DataError(f"{path}: {name!r} is a group, not a data set")
    if found.external or found.is_virtual:
        raise DataError(f"{path}: {name!r} keeps its data in other files; copy them in")
    if found.dtype.kind not in "fiu" or not found.shape:
        what = "a single value" if not found.shape else f"of type {found.dtype}"
        raise DataError(f"{path}: {name!r} is {what}; HDF5Data reads rows of whole or floating-point numbers")
    return found


def _read(dataset: Any, file_size: int) -> Array:
    if dataset.size > MAX_COUNT or 4 * dataset.size > UNFOLDS * file_size + SPARE:
        raise DataError(f"{dataset.file.filename}: {dataset.name}: {dataset.shape} is more than a file of {file_size:,} bytes may unfold to")
    out = np.empty(dataset.shape, np.float32)
    if out.size:
        dataset.read_direct(out)
    return out


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
