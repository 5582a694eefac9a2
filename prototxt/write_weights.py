"""Writing a .caffemodel: a NetParameter on the wire, its values straight from where they are, so that nothing is held twice."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .binary import encode
from .errors import WeightsError
from .message import Message
from .wire import BYTES, Blob, varint

PROTOBUF_LIMIT = 2**31 - 1  # bytes; Caffe reads no larger message


def write_caffemodel(path: Path, net: Message, blobs: Sequence[Sequence[Blob]]) -> None:
    """Write a net, and the blobs of each of its layers as float32. WeightsError above protobuf's 2 GiB."""
    head = net.copy()
    head.values.pop("layer", None)
    start, plain = encode(head), [encode(layer) for layer in net.layer]
    heads = [[_blob_head(blob) for blob in layer] for layer in blobs]
    sizes = [
        len(layer) + sum(_field_size(7, len(blob_head) + 4 * _count(blob)) for blob_head, blob in zip(layer_heads, layer_blobs, strict=True))
        for layer, layer_heads, layer_blobs in zip(plain, heads, blobs, strict=True)
    ]
    if len(start) + sum(_field_size(100, size) for size in sizes) > PROTOBUF_LIMIT:
        raise WeightsError(f"{path}: the weights take more than 2 GiB, which no .caffemodel can hold; write .h5 or .safetensors")
    with open(path, "wb") as f:
        f.write(start)
        for layer, layer_heads, layer_blobs, size in zip(plain, heads, blobs, sizes, strict=True):
            f.write(_tag(100, size) + layer)
            for blob_head, blob in zip(layer_heads, layer_blobs, strict=True):
                f.write(_tag(7, len(blob_head) + 4 * _count(blob)) + blob_head)
                f.write(memoryview(np.ascontiguousarray(blob.array, "<f4").reshape(-1).data).cast("B") if _count(blob) else b"")


def _count(blob: Blob) -> int:
    return int(np.prod(blob.shape, dtype=np.int64))


def _blob_head(blob: Blob) -> bytes:
    """A BlobProto up to its values: the shape, in the older four fields where it was read so, and the tag and length of the packed floats."""
    if blob.legacy:
        shape = b"".join(varint(number << 3) + varint(size) for number, size in enumerate(blob.shape, 1))
    else:
        dims = b"".join(map(varint, blob.shape))
        inner = _tag(1, len(dims)) + dims if dims else b""
        shape = _tag(7, len(inner)) + inner
    return shape + _tag(5, 4 * _count(blob))


def _tag(number: int, length: int) -> bytes:
    return varint(number << 3 | BYTES) + varint(length)


def _field_size(number: int, length: int) -> int:
    return len(_tag(number, length)) + length
