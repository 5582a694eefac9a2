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

from .errors import FileProblem, WeightsError
from .files import atomic_path, check_file, read_file
from .h5 import floats, member, opened
from .weights import HDF5_MAGIC
from .wire import BYTES, VARINT, Blob, Wire, varint

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
    try:
        with open(path, "rb") as f:
            hdf5 = f.read(len(HDF5_MAGIC)) == HDF5_MAGIC
    except OSError as exc:
        raise FileProblem(f"{path}: cannot be read: {exc.strerror or exc}") from exc
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
    numbers, net = {1: -1, 4: 0}, ""
    blobs: list[Blob] = []
    for number, kind, at, end in wire.fields(0, len(data)):
        if number in numbers and kind == VARINT:
            numbers[number] = wire.int32(at, end)
        elif number == 2 and kind == BYTES:
            net = wire.text(at, end)
        elif number == 3 and kind == BYTES:
            blobs.append(wire.blob(at, end, f"history {len(blobs)}"))
    if numbers[1] == -1:
        raise WeightsError(f"{path}: tells no iteration, so not a state that Caffe wrote")
    history = tuple(np.asarray(blob.values, np.float32) for blob in blobs)
    return _checked(path, SolverState(numbers[1], net, numbers[4], history, tuple(blob.legacy for blob in blobs)))


def _checked(path: Path, state: SolverState) -> SolverState:
    if state.iter < 0 or state.current_step < 0:
        raise WeightsError(f"{path}: iteration {state.iter}, step {state.current_step}: a solver counts from 0")
    return state


def _write_binary(path: Path, state: SolverState) -> None:
    net = state.learned_net.encode("utf-8", "surrogateescape")
    with open(path, "wb") as f:
        f.write(b"\x08" + varint(state.iter) + b"\x12" + varint(len(net)) + net)
        for i, array in enumerate(state.history):
            values = np.ascontiguousarray(array, "<f4")
            older = state.legacy[i : i + 1] == (True,)
            head = _legacy_shape(values.shape) if older else b""
            head += b"\x2a" + varint(values.nbytes) if values.size else b""
            tail = b"" if older or not values.shape else _shape(values.shape)
            f.write(b"\x1a" + varint(len(head) + values.nbytes + len(tail)) + head)
            f.write(memoryview(values.reshape(-1).data).cast("B"))
            f.write(tail)
        if state.current_step or not any(state.legacy):  # Caffe knew no steps when it wrote the older shapes
            f.write(b"\x20" + varint(state.current_step))


def _shape(shape: tuple[int, ...]) -> bytes:
    dims = b"".join(map(varint, shape))
    inner = b"\x0a" + varint(len(dims)) + dims
    return b"\x3a" + varint(len(inner)) + inner


def _legacy_shape(shape: tuple[int, ...]) -> bytes:
    return b"".join(bytes([number << 3]) + varint(size) for number, size in enumerate(shape, 1))


# HDF5 -----------------------------------------------------------------------------------------------------------------


def _read_hdf5(path: Path) -> SolverState:
    import h5py

    with opened(path, WeightsError) as f:
        numbers = {}
        for name in ("iter", "current_step"):
            dataset = member(f, name, path, WeightsError)
            if not isinstance(dataset, h5py.Dataset) or dataset.size != 1 or dataset.dtype.kind not in "iu":
                raise WeightsError(f"{path}: lacks the number {name!r}, so not a state that Caffe wrote")
            numbers[name] = int(dataset[()].reshape(-1)[0])
        history = member(f, "history", path, WeightsError)
        if not isinstance(history, h5py.Group):
            raise WeightsError(f"{path}: lacks the group 'history', so not a state that Caffe wrote")
        blobs = [member(history, str(i), path, WeightsError) for i in range(len(history))]
        missing = next((i for i, blob in enumerate(blobs) if not isinstance(blob, h5py.Dataset)), None)
        if missing is not None:
            raise WeightsError(f"{path}: history/{missing} is missing; there are {len(blobs)}: {', '.join(sorted(history)[:8])}")
        arrays = tuple(floats(blob, path, WeightsError) for blob in blobs)
        return _checked(path, SolverState(numbers["iter"], _string(f, path), numbers["current_step"], arrays))


def _string(f: Any, path: Path) -> str:
    """learned_net, which need not be there."""
    import h5py

    dataset = member(f, "learned_net", path, WeightsError)
    if dataset is None:
        return ""
    if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind not in "SO" or dataset.size != 1 or dataset.dtype.itemsize > 1 << 16:
        raise WeightsError(f"{path}: learned_net is no name of a file")
    value = np.asarray(dataset[()]).reshape(-1)[0]
    return value.decode("utf-8", "surrogateescape").rstrip("\0") if isinstance(value, bytes) else str(value)


def _write_hdf5(path: Path, state: SolverState) -> None:
    import h5py

    with h5py.File(path, "w") as f:
        f.create_dataset("iter", data=np.array([state.iter], np.int32))
        name = state.learned_net.encode("utf-8", "surrogateescape") + b"\0"
        kind = h5py.h5t.C_S1.copy()  # C's string, which numpy has no type for
        kind.set_size(len(name))
        space = h5py.h5s.create(h5py.h5s.SCALAR)
        h5py.h5d.create(f.id, b"learned_net", kind, space).write(space, space, np.array(name, f"S{len(name)}"), kind)
        f.create_dataset("current_step", data=np.array([state.current_step], np.int32))
        history = f.create_group("history")
        for i, array in enumerate(state.history):
            history.create_dataset(str(i), data=np.asarray(array, np.float32))
