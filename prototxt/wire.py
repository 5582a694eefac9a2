"""Protobuf's wire format, walked without copying: tags and lengths are read, values stay where they are until they are asked for.

What a damaged or hostile file could do is bounded here: lengths are checked against what is left before anything is made of them,
groups nest no deeper than 100, a shape has no more than 32 axes, and values take no more room than in the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any, NoReturn

import numpy as np

from .errors import FormatError
from .files import FileBytes

Array = np.ndarray[Any, Any]
Span = tuple[int, int]  # offset and length in the file
VARINT, FIXED64, BYTES, GROUP, END, FIXED32 = range(6)
MAX_AXES, MAX_COUNT = 32, 2**31 - 1  # Caffe's limits of a blob
_RAW_TYPES = {0: "<f8", 1: "<f4", 2: "<f2"}


@dataclass(frozen=True, slots=True)
class Run:
    """Values that stand side by side in a file, `stride` bytes from one to the next; read anew each time."""

    file: FileBytes
    at: int
    count: int
    dtype: str
    stride: int

    def read(self) -> Array:
        """The values, flat. The file's error if it became shorter."""
        width = int(self.dtype[-1])
        out: Array = np.empty(max(0, (self.count - 1) * self.stride + width), np.uint8)
        self.file.read_into(out.data, self.at)
        return np.ndarray((self.count,), self.dtype, out.data, 0, (self.stride,))

    def view(self) -> Array:
        """The values, flat and read-only, where they stand: no copy is made."""
        return np.ndarray((self.count,), self.dtype, self.file.mapped() if self.count else b"", self.at if self.count else 0, (self.stride,))


@dataclass(frozen=True, slots=True)
class Blob:
    """One blob of a file. `legacy` shapes are 4-D num x channels x height x width; `held` are its values, flat, or where to read them."""

    shape: tuple[int, ...]
    legacy: bool
    held: Array | Run

    @property
    def array(self) -> Array:
        """The values, flat: float32, float64 or float16; read now, if they are in a file."""
        return self.held.read() if isinstance(self.held, Run) else self.held

    @property
    def values(self) -> Array:
        """The values in their shape."""
        return self.array.reshape(self.shape)

    @property
    def view(self) -> Array:
        """The values in their shape without a copy, read-only, seen through the mapped file; it must not be cut while the view is in use."""
        return (self.held.view() if isinstance(self.held, Run) else self.held).reshape(self.shape)

    def read_into(self, target: Array) -> None:
        """Copy the values into an array of their count: read straight into its memory where it is float32 as they are."""
        run = self.held
        if not target.size:
            return
        if isinstance(run, Run) and run.dtype == "<f4" and run.stride == 4 and target.dtype == np.float32 and target.flags.c_contiguous:
            run.file.read_into(memoryview(target.reshape(-1).data).cast("B"), run.at)
        else:
            target[...] = self.array.reshape(target.shape)


class Wire:
    """Bytes, or those of a file, that hold a message. `place` and `kind` are for the errors, which are of the class `error`."""

    def __init__(self, data: bytes | FileBytes, place: object, error: type[FormatError], kind: str) -> None:
        self.data, self.place, self.error, self.kind = data, place, error, kind

    def fields(self, at: int, stop: int) -> Iterator[tuple[int, int, int, int]]:
        """(field number, wire type, start of the value, end of the value) of each field of a message."""
        data = self.data
        while at < stop:
            tag = at
            key = data[at]
            at += 1
            if key > 127:
                key, at = self.varint(tag, stop)
            number, wire = key >> 3, key & 7
            if number == 0:
                self.damaged(tag, "no field has the number 0")
            if wire == BYTES:
                length, at = self.varint(at, stop)
                end = at + length
                if end > stop:
                    self.damaged(tag, f"a field of {length:,} bytes, but {stop - at:,} are left")
            elif wire == VARINT:
                end = self.varint(at, stop)[1]
            elif wire in (FIXED32, FIXED64):
                end = at + (4 if wire == FIXED32 else 8)
                if end > stop:
                    self.damaged(tag, "a number is cut off")
            elif wire == GROUP:
                end = self._group(at, stop, number)
            else:
                self.damaged(tag, f"wire type {wire} does not exist")
            yield number, wire, at, end
            at = end

    def _group(self, at: int, stop: int, number: int) -> int:
        """The end of an unknown group: old protobuf's brackets, which may nest."""
        open_ = [number]
        while open_:
            key, at = self.varint(at, stop)
            inner, wire = key >> 3, key & 7
            if wire == GROUP:
                open_.append(inner)
            elif wire == END:
                if open_.pop() != inner:
                    self.damaged(at, "a group is closed that is not open")
            elif wire == BYTES:
                length, at = self.varint(at, stop)
                at += length
            elif wire == VARINT:
                at = self.varint(at, stop)[1]
            elif wire in (FIXED32, FIXED64):
                at += 4 if wire == FIXED32 else 8
            else:
                self.damaged(at, f"wire type {wire} does not exist")
            if at > stop or len(open_) > 100:
                self.damaged(min(at, stop), "a group does not end")
        return at

    def varint(self, at: int, stop: int) -> tuple[int, int]:
        """The number at `at`, unsigned, and where it ends."""
        value = shift = 0
        while at < stop and shift < 70:
            byte = self.data[at]
            at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value, at
            shift += 7
        self.damaged(at, "a number is cut off" if at >= stop else "a number of more than 10 bytes")

    def int32(self, at: int, stop: int) -> int:
        """The signed number at `at`."""
        return signed(self.varint(at, stop)[0], 32)

    def array(self, at: int, count: int, dtype: str, stride: int) -> Array | Run:
        """Values that stand side by side: a view of the bytes, or where to read them in the file."""
        if isinstance(self.data, FileBytes):
            return Run(self.data, at, count, dtype, stride)
        return np.ndarray((count,), dtype, self.data, at, (stride,))

    def text(self, at: int, end: int) -> str:
        """The string between `at` and `end`; bytes that are not UTF-8 survive."""
        return self.data[at:end].decode("utf-8", "surrogateescape")

    def damaged(self, at: int, problem: str) -> NoReturn:
        """The error that names the byte."""
        raise self.error(f"{self.place}: byte {at:,} of {len(self.data):,}: {problem}; the file is no {self.kind}, or it is truncated or damaged")

    def blob(self, start: int, stop: int, what: str) -> Blob:
        """The BlobProto between `start` and `stop`; `what` names it in errors."""
        legacy: dict[int, int] = {}
        dims: list[int] = []
        floats, doubles = Values(self, 4, what), Values(self, 8, what)
        raw: Span | None = None
        raw_type = 1
        for number, wire, at, end in self.fields(start, stop):
            if number == 5:
                floats.add(wire, at, end)
            elif number == 8:
                doubles.add(wire, at, end)
            elif number == 7 and wire == BYTES:
                self._dims(at, end, dims)
            elif 1 <= number <= 4 and wire == VARINT:
                legacy[number] = self.int32(at, end)
            elif number == 10 and wire == VARINT:
                raw_type = self.varint(at, end)[0]
            elif number == 12 and wire == BYTES:
                raw = (at, end - at)
        shape = tuple(legacy.get(i, 0) for i in (1, 2, 3, 4)) if legacy else tuple(dims)
        if len(shape) > MAX_AXES or any(d < 0 for d in shape) or prod(shape) > MAX_COUNT:
            raise self.error(f"{self.place}: {what}: {list(shape)} is no shape of a blob")
        found = doubles if doubles.count else floats  # double_data wins, as in Caffe
        held = self._raw(*raw, raw_type, what) if raw is not None and not found.count else found.joined()
        count = held.count if isinstance(held, Run) else held.size
        if prod(shape) != count:
            raise self.error(f"{self.place}: {what}: a blob of shape {list(shape)} holds {count:,} values, not {prod(shape):,}")
        return Blob(shape, bool(legacy), held)

    def _raw(self, at: int, length: int, raw_type: int, what: str) -> Array | Run:
        """NVIDIA's raw_data: doubles, floats or halves as bytes."""
        if raw_type not in _RAW_TYPES:
            raise self.error(f"{self.place}: {what}: raw_data of type {raw_type}; only double, float and half are known")
        dtype = _RAW_TYPES[raw_type]
        width = int(dtype[-1])
        if length % width:
            raise self.error(f"{self.place}: {what}: {length} bytes of raw_data, not a multiple of {width}")
        return self.array(at, length // width, dtype, width)

    def _dims(self, start: int, stop: int, dims: list[int]) -> None:
        for number, wire, at, end in self.fields(start, stop):
            while number == 1 and wire in (VARINT, BYTES) and at < end:
                value, at = self.varint(at, end)
                dims.append(signed(value, 64))
                if len(dims) > MAX_AXES:
                    self.damaged(at, f"a shape of more than {MAX_AXES} axes")


class Values:
    """A repeated float or double, gathered from packed fields and from runs of single ones, in any mixture."""

    def __init__(self, wire: Wire, width: int, what: str) -> None:
        self.wire, self.width, self.what = wire, width, what
        self.count = 0
        self._parts: list[tuple[int, int, int]] = []  # offset, count, stride
        self._pieces: list[Array] = []  # many small parts, joined

    def add(self, wire: int, at: int, end: int) -> None:
        """One field of that number: packed values, or a single one."""
        width = self.width
        if wire == BYTES:
            if (end - at) % width:
                raise self.wire.error(f"{self.wire.place}: {self.what}: {end - at} bytes of values, not a multiple of {width}")
            self._put(at, (end - at) // width, width)
        elif wire == (FIXED32 if width == 4 else FIXED64):
            last = self._parts[-1] if self._parts else (0, 0, 0)
            if last[2] == width + 1 and last[0] + last[1] * (width + 1) == at:
                self._parts[-1] = (last[0], last[1] + 1, width + 1)
                self.count += 1
            else:
                self._put(at, 1, width + 1)

    def _put(self, at: int, count: int, stride: int) -> None:
        self._parts.append((at, count, stride))
        self.count += count
        if len(self._parts) >= 4096:
            self._pieces.append(np.concatenate([_now(part) for part in self._views()]))
            self._parts.clear()

    def _views(self) -> list[Array | Run]:
        dtype = "<f4" if self.width == 4 else "<f8"
        return [self.wire.array(at, count, dtype, stride) for at, count, stride in self._parts]

    def joined(self) -> Array | Run:
        """All values, flat; not copied, nor read from their file, where they are one run."""
        views = [*self._pieces, *self._views()]
        if len(views) == 1:
            return views[0]
        return np.concatenate([_now(part) for part in views]) if views else np.empty(0, "<f4" if self.width == 4 else "<f8")


def _now(part: Array | Run) -> Array:
    return part.read() if isinstance(part, Run) else part


def signed(value: int, bits: int) -> int:
    """A number of the wire in two's complement."""
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def varint(value: int) -> bytes:
    """A number that is not negative as the wire has it: seven bits a byte, the lowest first."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)
