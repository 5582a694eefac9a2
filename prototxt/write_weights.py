"""Writing a .caffemodel: a NetParameter on the wire, its values straight from the arrays, so that nothing is held twice."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .errors import WeightsError
from .wire import BYTES, varint

Array = np.ndarray[Any, Any]
PROTOBUF_LIMIT = 2**31 - 1  # bytes; Caffe reads no larger message


def write_caffemodel(path: Path, name: str, layers: Sequence[tuple[bytes, Sequence[Array]]]) -> None:
    """Write each layer: its serialized LayerParameter without blobs, then its blobs as float32. WeightsError above protobuf's 2 GiB."""
    heads = [[_blob_head(array) for array in arrays] for _, arrays in layers]
    sizes = [
        len(plain) + sum(_field_size(7, len(head) + 4 * array.size) for head, array in zip(layer_heads, arrays, strict=True))
        for (plain, arrays), layer_heads in zip(layers, heads, strict=True)
    ]
    encoded = name.encode("utf-8", "surrogateescape")
    if _field_size(1, len(encoded)) + sum(_field_size(100, size) for size in sizes) > PROTOBUF_LIMIT:
        raise WeightsError(f"{path}: the weights take more than 2 GiB, which no .caffemodel can hold; write .h5 or .safetensors")
    with open(path, "wb") as f:
        f.write(_tag(1, len(encoded)) + encoded)
        for (plain, arrays), layer_heads, size in zip(layers, heads, sizes, strict=True):
            f.write(_tag(100, size) + plain)
            for head, array in zip(layer_heads, arrays, strict=True):
                f.write(_tag(7, len(head) + 4 * array.size) + head)
                f.write(memoryview(np.ascontiguousarray(array, "<f4").reshape(-1).data).cast("B"))


def _blob_head(array: Array) -> bytes:
    """A BlobProto up to its values: the shape, and the tag and length of the packed floats."""
    dims = b"".join(varint(d) for d in array.shape)
    shape = _tag(1, len(dims)) + dims if dims else b""
    return _tag(7, len(shape)) + shape + _tag(5, 4 * array.size)


def _tag(number: int, length: int) -> bytes:
    return varint(number << 3 | BYTES) + varint(length)


def _field_size(number: int, length: int) -> int:
    return len(_tag(number, length)) + length
