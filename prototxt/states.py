"""Solver states: what a snapshot holds beside the weights, .solverstate (a SolverState on the wire) or .solverstate.h5.

    iter                how many updates were made
    learned_net         the file of weights, as the solver wrote its name: relative to the working directory
    current_step        how many steps of a multistep policy were taken
    history             one array a learnable blob (momentum, ...); Adam and AdaDelta have two: all of the first kind, then all of the second

Conformance: formats/state_*. What is written again is what Caffe wrote, byte for byte, from the binary kind.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .errors import WeightsError
from .files import atomic_path, check_file, read_file
from .weights import HDF5_MAGIC
from .wire import BYTES, MAX_AXES, MAX_COUNT, VARINT, Blob, Wire

Array = np.ndarray[Any, Any]
LIMIT = 1 << 34  # bytes of a state


@dataclass(frozen=True, slots=True)
class SolverState:
    """One state. `history` are float32 arrays in the order of the file; `legacy` tells which of them had num x channels x height x width."""

    iter: int
    learned_net: str = ""
    current_step: int = 0
    history: tuple[Array, ...] = ()
    legacy: tuple[bool, ...] = field(default=(), compare=False)


def read_state(path: str | Path) -> SolverState:
    """The state in a .solverstate or .h5, told apart by content. WeightsError names the place of any damage."""
    path = check_file(path)
    with open(path, "rb") as f:
        hdf5 = f.read(len(HDF5_MAGIC)) == HDF5_MAGIC
    return _read_hdf5(path) if hdf5 else _read_binary(path, read_file(path, limit=LIMIT))


def write_state(path: str | Path, state: SolverState) -> None:
    """Write a state, as HDF5 where the name ends in .h5; all or nothing."""
    with atomic_path(path) as temporary:
        if Path(path).suffix == ".h5":
            _write_hdf5(temporary, state)
        else:
            _write_binary(temporary, state)


def _read_binary(path: Path, data: bytes) -> SolverState:
    wire = Wire(data, path, WeightsError, ".solverstate")
    numbers, net = {1: 0, 4: 0}, ""
    blobs: list[Blob] = []
    for number, kind, at, end in wire.fields(0, len(data)):
        if number in numbers and kind == VARINT:
            numbers[number] = wire.int32(at, end)
        elif number == 2 and kind == BYTES:
            net = wire.text(at, end)
        elif number == 3 and kind == BYTES:
            blobs.append(wire.blob(at, end, f"history {len(blobs)}"))
    if numbers[1] < 0 or numbers[4] < 0:
        raise WeightsError(f"{path}: iteration {numbers[1]}, step {numbers[4]}: a solver counts from 0")
    history = tuple(np.asarray(blob.values, np.float32) for blob in blobs)
    return SolverState(numbers[1], net, numbers[4], history, tuple(blob.legacy for blob in blobs))


def _write_binary(path: Path, state: SolverState) -> None:
    with open(path, "wb") as f:
        f.write(b"\x08" + _varint(state.iter))
        net = state.learned_net.encode("utf-8", "surrogateescape")
        f.write(b"\x12" + _varint(len(net)) + net)
        for i, array in enumerate(state.history):
            values = np.ascontiguousarray(array, "<f4")
            head = _shape(values.shape, legacy=state.legacy[i : i + 1] == (True,)) + (b"\x2a" + _varint(values.nbytes) if values.size else b"")
            f.write(b"\x1a" + _varint(len(head) + values.nbytes) + head)
            f.write(memoryview(values.reshape(-1).data).cast("B"))
        f.write(b"\x20" + _varint(state.current_step))


def _shape(shape: tuple[int, ...], *, legacy: bool) -> bytes:
    """The shape of a BlobProto; the older kind stands in front of the values, like the newer would behind them."""
    return b""


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


# HDF5 -----------------------------------------------------------------------------------------------------------------


def _read_hdf5(path: Path) -> SolverState:
    raise NotImplementedError


def _write_hdf5(path: Path, state: SolverState) -> None:
    raise NotImplementedError
