"""Weights: .caffemodel, .caffemodel.h5, and what is in them, without copying.

A .caffemodel is a NetParameter on the wire. Only tags and lengths are walked; the values stay in the file until they are asked for: seen
through the mapped file (`Blob.view`), or read straight into their destination, as Decant's own commands do, since a mapped file that
becomes shorter would end the interpreter. The cost is per blob, not per byte. Handles V0, V1 and V2 layers, legacy 4-D shapes, packed,
unpacked and split fields, double, and NVIDIA's raw_data (fp16 too). Conformance: formats/weights_*.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .errors import WeightsError
from .files import FileBytes, check_file
from .h5 import floats, member, opened
from .wire import BYTES, Blob, Wire

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
MAX_SHARED = 1000  # blobs of a layer that HDF5 stores elsewhere: no layer of Caffe's has as many


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
    data = FileBytes(path, WeightsError)
    if data[: len(HDF5_MAGIC)] == HDF5_MAGIC:
        return _read_hdf5(path)
    return _net(Wire(data, path, WeightsError, ".caffemodel"), path)  # an empty file is a message without fields: valid


# The wire -------------------------------------------------------------------------------------------------------------

# What the fields of a layer are, by number: V0 inside V1, V1 in `layers`, V2 in `layer`.
_V0 = {1: "name", 2: "type", 50: "blob"}
_V1 = {1: "v0", 4: "name", 5: "type", 6: "blob"}
_V2 = {1: "name", 2: "type", 7: "blob"}
_NET = {2: _V1, 100: _V2}


def _net(wire: Wire, path: Path) -> Weights:
    """All layers of the file, which are of one generation."""
    found = [(n, at, stop) for n, kind, at, stop in wire.fields(0, len(wire.data)) if n in _NET and kind == BYTES]
    if len({n for n, _, _ in found}) > 1:
        raise WeightsError(f"{path}: has `layer` and `layers`: V2 and V1 layers cannot stand in one file")
    return Weights(path, tuple(_layer(wire, at, stop, _NET[n]) for n, at, stop in found))


def _layer(wire: Wire, start: int, stop: int, roles: dict[int, str]) -> LayerBlobs:
    name, type_, blobs = "", "", []
    for number, kind, at, end in wire.fields(start, stop):
        role = roles.get(number)
        if role == "blob" and kind == BYTES:
            blobs.append(wire.blob(at, end, f"layer {name!r}"))
        elif role == "v0" and kind == BYTES:
            inner = _layer(wire, at, end, _V0)
            name, type_ = inner.name, inner.type
            blobs += inner.blobs
        elif role == "name" and kind == BYTES:
            name = wire.text(at, end)
        elif role == "type":
            type_ = wire.text(at, end) if kind == BYTES else str(wire.varint(at, end)[0])
    return LayerBlobs(name, type_, tuple(blobs))


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
    shared: set[tuple[str, int]] = set()

    def visit(name: str, item: Any) -> None:
        if not isinstance(item, h5py.Group):
            if "/" not in name:
                raise WeightsError(f"{path}: /data/{name} is a data set; Caffe has a group of blobs for each layer there")
            return
        found = {int(key): member(item, key, path, WeightsError) for key in item if key.isascii() and key.isdecimal() and len(key) < 10}
        datasets = {index: dataset for index, dataset in found.items() if isinstance(dataset, h5py.Dataset)}
        count = max(datasets, default=-1) + 1
        if count > len(datasets) + MAX_SHARED:
            raise WeightsError(f"{path}: /data/{name} has a blob {count - 1:,}, but only {len(datasets)} in all; no layer of Caffe's is so")
        shared.update((name, i) for i in range(count) if i not in datasets)
        layers.append(LayerBlobs(name, "", tuple(_dataset_blob(datasets.get(i), path) for i in range(count))))

    with opened(path, WeightsError) as f:
        data = member(f, "data", path, WeightsError)
        if not isinstance(data, h5py.Group):
            raise WeightsError(f"{path}: an HDF5 file without the group /data, so not weights that Caffe wrote")
        data.visititems(visit)
    return Weights(path, tuple(layers), hdf5=True, shared=frozenset(shared))


def _dataset_blob(dataset: Any, path: Path) -> Blob:
    """A data set as a blob; an empty one for what is stored under the layer that owns it."""
    if dataset is None:
        return Blob((0,), False, np.empty(0, np.float32))
    values = floats(dataset, path, WeightsError, np.float64 if dataset.dtype == np.float64 else np.float32)
    return Blob(values.shape, False, values.reshape(-1))
