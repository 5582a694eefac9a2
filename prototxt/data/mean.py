"""Mean files: a BlobProto, 1 x channels x height x width, as compute_image_mean writes it (conformance: formats/mean_*)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from ..files import read_file, write_file
from ..wire import Wire, varint

Array = np.ndarray[Any, Any]
LIMIT = 1 << 30  # bytes of a mean file


def read_mean(path: str | Path) -> Array:
    """The mean of a .binaryproto: float32 [C, H, W]. Caffe takes the axes of its blob from the front, missing ones are 1."""
    data = read_file(path, limit=LIMIT)
    blob = Wire(data, path, DataError, "mean file (a BlobProto)").blob(0, len(data), "the mean")
    if len(blob.shape) > 4:
        raise DataError(f"{path}: a mean of {len(blob.shape)} axes; it has four: 1 x channels x height x width")
    shape = (*blob.shape, 1, 1, 1, 1)[:4]
    if min(shape) < 1:
        raise DataError(f"{path}: {list(blob.shape)} is no shape of a mean")
    return np.asarray(blob.array, np.float32).reshape(shape)[0]


def write_mean(path: str | Path, mean: Array) -> None:
    """Write a mean [C, H, W] as Caffe's tool does, with the older 4-D shape, which every Caffe reads."""
    values = np.ascontiguousarray(mean, "<f4")
    if values.ndim != 3:
        raise DataError(f"{path}: a mean is channels x height x width, not an array of {values.ndim} axes")
    shape = b"".join(bytes([number << 3]) + varint(size) for number, size in enumerate((1, *values.shape), 1))
    write_file(path, shape + b"\x2a" + varint(values.nbytes) + values.tobytes())
