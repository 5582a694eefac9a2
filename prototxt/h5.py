"""HDF5 files that may be hostile: what points out of the file is refused, and no more is allocated than the file can hold.

Deflate reaches 1,032 to 1, and a byte may become a float: a data set may take 4,128 times its file, and 64 MiB are free.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from .errors import FormatError
from .wire import MAX_AXES, MAX_COUNT

Array = np.ndarray[Any, Any]
UNFOLDS, SPARE = 4 * 1032, 1 << 26


@contextmanager
def opened(path: Path, error: type[FormatError]) -> Iterator[Any]:
    """The file, open for reading; all that the library finds wrong becomes `error`."""
    import h5py

    try:
        with h5py.File(path, "r") as f:
            yield f
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError, MemoryError) as exc:
        raise error(f"{path}: no HDF5 file, or a damaged one: {exc}") from exc


def member(group: Any, name: str, path: Path, error: type[FormatError]) -> Any:
    """The data set or group `name` of a group, or None if there is none; not one of another file."""
    import h5py

    if group.get(name, getlink=True) is None:
        return None
    link = group.get(name, getlink=True)
    if isinstance(link, h5py.ExternalLink):
        raise error(f"{path}: {name!r} is a link to another file; copy the data in")
    found = group.get(name)
    if isinstance(link, h5py.SoftLink) and found is not None and found.file.filename != group.file.filename:
        raise error(f"{path}: {name!r} is a link that leads to another file; copy the data in")
    if isinstance(found, h5py.Dataset) and (found.external or found.is_virtual):
        raise error(f"{path}: {name!r} keeps its data in other files; copy them in")
    return found


def check_numbers(dataset: Any, path: Path, error: type[FormatError]) -> None:
    """Refuse what is not numbers, or would unfold to more than the file can hold."""
    if dataset.dtype.kind not in "fiu" or dataset.shape is None:
        raise error(
            f"{path}: {dataset.name}: {'empty' if dataset.shape is None else f'of type {dataset.dtype}'}; whole or floating-point numbers are read"
        )
    if dataset.ndim > MAX_AXES or dataset.size > MAX_COUNT or 4 * dataset.size > UNFOLDS * path.stat().st_size + SPARE:
        raise error(f"{path}: {dataset.name}: {list(dataset.shape)} is more than a blob, or a file of {path.stat().st_size:,} bytes, can hold")


def floats(dataset: Any, path: Path, error: type[FormatError], dtype: type = np.float32) -> Array:
    """The values of a data set of numbers."""
    check_numbers(dataset, path, error)
    out: Array = np.empty(dataset.shape, dtype)
    if out.size:
        dataset.read_direct(out)
    return out
