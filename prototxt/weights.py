"""Weights: .caffemodel, .caffemodel.h5, and what is in them, without copying.

A .caffemodel is a NetParameter on the wire. Only tags and lengths are walked; the values stay in the mapped file and are seen
through numpy views, or read straight into their destination. The cost is per blob, not per byte. Handles V0, V1 and V2
layers, legacy 4-D shapes, packed, unpacked and split fields, double, and NVIDIA's raw_data (fp16 too). Conformance: formats/weights_*.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from .errors import FileProblem, WeightsError
from .files import check_file

Span = tuple[int, int]  # offset and length in the file
MAX_AXES = 32  # Caffe's kMaxBlobAxes
HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"


@dataclass(frozen=True, slots=True)
class Blob:
    """One parameter blob of a file. `legacy` shapes are 4-D num x channels x height x width."""

    shape: tuple[int, ...]
    legacy: bool
    array: np.ndarray[Any, Any]  # flat; a view of the mapped file where the file allows it
    span: Span | None = None  # of the values in the file, where they are one float32 run

    @property
    def values(self) -> np.ndarray[Any, Any]:
        """The values in their shape: float32, float64 or float16, read-only."""
        return self.array.reshape(self.shape)


@dataclass(frozen=True, slots=True)
class LayerBlobs:
    """A layer of a file of weights: its name, its type as written there, its blobs."""

    name: str
    type: str
    blobs: tuple[Blob, ...]


@dataclass(frozen=True, slots=True)
class Weights:
    """All layers of a file, in file order; a name may come twice, and then the last one counts."""

    path: Path
    layers: tuple[LayerBlobs, ...]
    hdf5: bool = False
    shared: frozenset[tuple[str, int]] = frozenset()  # HDF5 stores a shared blob under its owner only

    def __iter__(self) -> Iterator[LayerBlobs]:
        return iter(self.layers)


def read_weights(path: str | Path) -> Weights:
    """The weights in a .caffemodel or .h5, told apart by content. WeightsError names the place of any damage."""
    path = check_file(path)
    try:
        with open(path, "rb") as f:
            head = f.read(len(HDF5_MAGIC))
            if head == HDF5_MAGIC:
                return _read_hdf5(path)
            size = os.fstat(f.fileno()).st_size
            if size == 0:
                return Weights(path, ())  # a message without fields: valid, and holds nothing
            data = mmap.mmap(f.fileno(), size, access=mmap.ACCESS_READ)
    except OSError as exc:
        raise FileProblem(f"{path}: cannot be read: {exc.strerror or exc}") from exc
    return _Walk(path, data).net()


def read_into(path: Path, blob: Blob, target: np.ndarray[Any, Any]) -> None:
    """Copy a blob into a contiguous float32 array: by a read into its memory where possible, which maps no pages of the file."""
    if blob.span is None or target.dtype != np.float32 or not target.flags.c_contiguous:
        target[...] = blob.array.reshape(target.shape)
        return
    view = memoryview(target.reshape(-1).data).cast("B")
    with open(path, "rb", buffering=0) as f:
        offset, done = blob.span[0], 0
        while done < len(view):
            got = os.preadv(f.fileno(), [view[done:]], offset + done)
            if got <= 0:
                raise WeightsError(f"{path}: the file became shorter while it was read")
            done += got


# The wire -------------------------------------------------------------------------------------------------------------

_VARINT, _FIXED64, _BYTES, _GROUP, _END, _FIXED32 = range(6)
# What the fields of a layer are, by number: V0 inside V1, V1 in `layers`, V2 in `layer`.
_V0 = {1: "name", 2: "type", 50: "blob"}
_V1 = {1: "v0", 4: "name", 5: "type", 6: "blob"}
_V2 = {1: "name", 2: "type", 7: "blob"}
_NET = {2: _V1, 100: _V2}
_RAW_TYPES = {0: "<f8", 1: "<f4", 2: "<f2"}


class _Walk:
    """One walk over the wire of a mapped NetParameter."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path, self.data = path, data

    def net(self) -> Weights:
        """All layers of the file."""
        fields = self._fields(0, len(self.data))
        return Weights(self.path, tuple(self._layer(at, stop, _NET[n]) for n, wire, at, stop in fields if n in _NET and wire == _BYTES))

    def _layer(self, start: int, stop: int, roles: dict[int, str]) -> LayerBlobs:
        name, type_, blobs = "", "", []
        for number, wire, at, end in self._fields(start, stop):
            role = roles.get(number)
            if role == "blob" and wire == _BYTES:
                blobs.append(self._blob(at, end, name))
            elif role == "v0" and wire == _BYTES:
                inner = self._layer(at, end, _V0)
                name, type_ = inner.name, inner.type
                blobs += inner.blobs
            elif role == "name" and wire == _BYTES:
                name = self._text(at, end)
            elif role == "type":
                type_ = self._text(at, end) if wire == _BYTES else str(self._varint(at, end)[0])
        return LayerBlobs(name, type_, tuple(blobs))

    def _text(self, at: int, end: int) -> str:
        return self.data[at:end].decode("utf-8", "surrogateescape")

    def _blob(self, start: int, stop: int, layer: str) -> Blob:
        legacy, dims = {}, []
        floats: list[Any] = []
        doubles: list[Any] = []
        raw: Span | None = None
        raw_type = 1
        for number, wire, at, end in self._fields(start, stop):
            if number == 5 or number == 8:
                self._values(floats if number == 5 else doubles, number, wire, at, end, layer)
            elif number == 7 and wire == _BYTES:
                dims += self._dims(at, end)
            elif 1 <= number <= 4 and wire == _VARINT:
                legacy[number] = _signed(self._varint(at, end)[0], 32)
            elif number == 10 and wire == _VARINT:
                raw_type = self._varint(at, end)[0]
            elif number == 12 and wire == _BYTES:
                raw = (at, end - at)
        shape = tuple(legacy.get(i, 0) for i in (1, 2, 3, 4)) if legacy else tuple(dims)
        self._check_shape(shape, layer)
        array, span = self._joined(floats, doubles, raw, raw_type, layer)
        if prod(shape) != array.size:
            raise WeightsError(f"{self.path}: layer {layer!r}: a blob of shape {list(shape)} holds {array.size:,} values, not {prod(shape):,}")
        return Blob(shape, bool(legacy), array, span)

    def _values(self, parts: list[Any], number: int, wire: int, at: int, end: int, layer: str) -> None:
        """Spans of packed values and of runs of single ones (tag, value, tag, value, ...)."""
        width = 4 if number == 5 else 8
        if wire == _BYTES:
            if (end - at) % width:
                raise WeightsError(f"{self.path}: layer {layer!r}: {end - at} bytes of values, not a multiple of {width}")
            parts.append((at, (end - at) // width, width))
        elif wire == (_FIXED32 if width == 4 else _FIXED64):
            if parts and parts[-1][2] == width + 1 and parts[-1][0] + parts[-1][1] * (width + 1) == at:
                parts[-1] = (parts[-1][0], parts[-1][1] + 1, width + 1)
            else:
                parts.append((at, 1, width + 1))

    def _joined(self, floats: list[Any], doubles: list[Any], raw: Span | None, raw_type: int, layer: str) -> tuple[np.ndarray[Any, Any], Span | None]:
        parts, dtype = (doubles, "<f8") if doubles else (floats, "<f4")  # double_data wins, as in Caffe
        if not parts and raw is not None:
            if raw_type not in _RAW_TYPES:
                raise WeightsError(f"{self.path}: layer {layer!r}: raw_data of type {raw_type}; only double, float and half are known")
            dtype = _RAW_TYPES[raw_type]
            width = np.dtype(dtype).itemsize
            if raw[1] % width:
                raise WeightsError(f"{self.path}: layer {layer!r}: {raw[1]} bytes of raw_data, not a multiple of {width}")
            parts = [(raw[0], raw[1] // width, width)]
        width = np.dtype(dtype).itemsize
        arrays = [np.ndarray((count,), dtype, self.data, at, (stride,)) for at, count, stride in parts]
        if len(arrays) != 1:
            return (np.concatenate(arrays) if arrays else np.empty(0, "<f4")), None
        at, count, stride = parts[0]
        span = (at, count * 4) if dtype == "<f4" and stride == 4 else None
        return arrays[0], span

    def _check_shape(self, shape: tuple[int, ...], layer: str) -> None:
        if len(shape) > MAX_AXES or any(d < 0 for d in shape) or prod(shape) > 2**31 - 1:
            raise WeightsError(f"{self.path}: layer {layer!r}: {list(shape)[:40]} is no shape of a blob")

    def _dims(self, start: int, stop: int) -> list[int]:
        dims: list[int] = []
        for number, wire, at, end in self._fields(start, stop):
            if number == 1 and wire == _VARINT:
                dims.append(_signed(self._varint(at, end)[0], 64))
            elif number == 1 and wire == _BYTES:
                while at < end:
                    value, at = self._varint(at, end)
                    dims.append(_signed(value, 64))
                    if len(dims) > MAX_AXES:
                        raise WeightsError(f"{self.path}: byte {at:,}: a shape of more than {MAX_AXES} axes")
        return dims

    def _fields(self, at: int, stop: int) -> Iterator[tuple[int, int, int, int]]:
        """(field number, wire type, start of the value, end of the value) of each field of a message; `self.tag` is its start."""
        data = self.data
        while at < stop:
            self.tag = at
            key = data[at]
            at += 1
            if key > 127:
                key, at = self._varint(at - 1, stop)
            number, wire = key >> 3, key & 7
            if number == 0:
                self._damaged(self.tag, "no field has the number 0")
            if wire == _BYTES:
                length, at = self._varint(at, stop)
                end = at + length
                if end > stop:
                    self._damaged(self.tag, f"a field of {length:,} bytes, but {stop - at:,} are left")
            elif wire == _VARINT:
                end = self._varint(at, stop)[1]
            elif wire in (_FIXED32, _FIXED64):
                end = at + (4 if wire == _FIXED32 else 8)
                if end > stop:
                    self._damaged(self.tag, "a number is cut off")
            elif wire == _GROUP:
                end = self._group(at, stop, number)
            else:
                self._damaged(self.tag, f"wire type {wire} does not exist")
            yield number, wire, at, end
            at = end

    def _group(self, at: int, stop: int, number: int) -> int:
        """The end of an unknown group: old protobuf's brackets, which may nest."""
        open_ = [number]
        while open_:
            key, at = self._varint(at, stop)
            inner, wire = key >> 3, key & 7
            if wire == _GROUP:
                open_.append(inner)
            elif wire == _END:
                if open_.pop() != inner:
                    self._damaged(at, "a group is closed that is not open")
            elif wire == _BYTES:
                length, at = self._varint(at, stop)
                at += length
            elif wire == _VARINT:
                at = self._varint(at, stop)[1]
            elif wire in (_FIXED32, _FIXED64):
                at += 4 if wire == _FIXED32 else 8
            else:
                self._damaged(at, f"wire type {wire} does not exist")
            if at > stop or len(open_) > 100:
                self._damaged(min(at, stop), "a group does not end")
        return at

    def _varint(self, at: int, stop: int) -> tuple[int, int]:
        value = shift = 0
        while at < stop and shift < 70:
            byte = self.data[at]
            at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value, at
            shift += 7
        self._damaged(at, "a number is cut off" if at >= stop else "a number of more than 10 bytes")

    def _damaged(self, at: int, problem: str) -> NoReturn:
        raise WeightsError(f"{self.path}: byte {at:,} of {len(self.data):,}: {problem}; the file is no .caffemodel, or it is truncated or damaged")


def _signed(value: int, bits: int) -> int:
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


# Fitting --------------------------------------------------------------------------------------------------------------


def fits(blob: Blob, shape: Sequence[int]) -> bool:
    """Whether Caffe would copy `blob` into a parameter of `shape`: a legacy 4-D shape matches one of fewer axes, right-aligned."""
    if not blob.legacy:
        return blob.shape == tuple(shape)
    return len(shape) <= 4 and (1,) * (4 - len(shape)) + tuple(shape) == blob.shape


# HDF5 -----------------------------------------------------------------------------------------------------------------


def _read_hdf5(path: Path) -> Weights:
    """/data/<layer>/<index>; a layer name may hold slashes, so groups nest."""
    import h5py

    layers: list[LayerBlobs] = []

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Group):
            blobs = {key: item[key] for key in item if isinstance(item[key], h5py.Dataset)}
            indices = sorted(int(k) for k in blobs if k.isdigit())
            arrays = []
            for i in range(max(indices, default=-1) + 1):
                dataset = blobs.get(str(i))
                if dataset is None:
                    shared.add((name, i))
                    arrays.append(Blob((0,), False, np.empty(0, np.float32)))
                    continue
                if dataset.ndim > MAX_AXES or prod(dataset.shape) > 2**31 - 1 or dataset.dtype.kind not in "fiu":
                    raise WeightsError(f"{path}: /data/{name}/{i}: {dataset.dtype} of shape {dataset.shape} is no blob")
                values = np.asarray(dataset[()], dtype=np.float64 if dataset.dtype == np.float64 else np.float32)
                arrays.append(Blob(tuple(dataset.shape), False, values.reshape(-1)))
            layers.append(LayerBlobs(name, "", tuple(arrays)))

    shared: set[tuple[str, int]] = set()
    try:
        with h5py.File(path, "r") as f:
            if not isinstance(f.get("data"), h5py.Group):
                raise WeightsError(f"{path}: an HDF5 file without the group /data, so not weights that Caffe wrote")
            f["data"].visititems(visit)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as exc:
        raise WeightsError(f"{path}: a damaged HDF5 file: {exc}") from exc
    return Weights(path, tuple(layers), hdf5=True, shared=frozenset(shared))
