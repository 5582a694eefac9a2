"""Datum: one record of a database, channels x height x width of bytes or floats, or an encoded picture, and a label.

Only tags and lengths are walked; pixels stay where they are. Records of one size begin and end alike, so that a
`DatumReader` compares instead of walking again. Bytes win over floats, a label that is not written is 0 (conformance:
data/lmdb_bytes_and_floats, lmdb_label_unset).
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np

from ..errors import DataError
from ..wire import BYTES, MAX_COUNT, VARINT, Values, Wire, varint

Array = np.ndarray[Any, Any]
_TAILS = 4096  # endings that are remembered: one for each label


class Datum(NamedTuple):
    """`data` is the span of the bytes in the record (start, stop), `floats` are the values where it has no bytes."""

    channels: int
    height: int
    width: int
    data: tuple[int, int]
    label: int
    encoded: bool
    floats: Array | None = None

    def pixels(self, record: bytes) -> Array:
        """The values, [C, H, W], a read-only view of the record: uint8, or float32. DataError where there are too few."""
        shape = (self.channels, self.height, self.width)
        count = self.channels * self.height * self.width
        start, stop = self.data
        have = stop - start if stop > start else 0 if self.floats is None else self.floats.size
        if min(shape) < 1 or count > MAX_COUNT:
            raise DataError(f"{self.channels} x {self.height} x {self.width} is no size of a picture")
        if have < count:
            raise DataError(f"{have:,} values for {self.channels} x {self.height} x {self.width}; Caffe would read on behind the record")
        if stop > start:
            return np.frombuffer(record, np.uint8, count, start).reshape(shape)
        return self.floats[:count].reshape(shape)  # type: ignore[index]


class DatumReader:
    """Reads records, one after the other; remembers how the last ones of bytes began and ended.

    What stands before the bytes and behind them says all, since nothing in the bytes is looked at.
    """

    def __init__(self) -> None:
        self._head = b""
        self.like: Datum | None = None  # the size and the span of the bytes of all that are remembered
        self._tails: dict[bytes, Datum] = {}
        self._labels: dict[bytes, int] = {}  # by the tails of raw records of that size and span

    def read(self, record: bytes) -> Datum:
        """The record's Datum. DataError if its bytes are none."""
        if self.like is not None and record.startswith(self._head):
            stop = self.like.data[1]
            known = self._tails.get(record[stop : stop + 17]) if len(record) >= stop else None
            if known is not None:
                return known
        datum = parse(record)
        self._remember(record, datum)
        return datum

    def read_run(self, data: bytes, starts: list[int], sizes: list[int]) -> list[int]:
        """Labels of the records in `data` that are raw bytes and laid out like the last one read, up to the first that is not."""
        labels: list[int] = []
        if self.like is None:
            return labels
        head, tails, like = self._head, self._tails, self.like
        begin, stop = like.data
        known_labels = [self._labels.get(data[start + stop : start + size]) for start, size in zip(starts, sizes, strict=True)]
        if None not in known_labels and min(sizes) >= stop and all(map(data.startswith, repeat(head), starts)):
            return known_labels  # type: ignore[return-value]
        for start, size in zip(starts, sizes, strict=True):
            if size < stop or data[start : start + begin] != head:
                break
            known = tails.get(data[start + stop : start + size])
            if known is None:
                known = self._new_tail(data[start + stop : start + size]) or self.read(data[start : start + size])
                if self.like is not like:
                    break
            if known.encoded or known.data != like.data:
                break
            labels.append(known.label)
        return labels

    def _new_tail(self, tail: bytes) -> Datum | None:
        """The Datum with another ending, if that is a label of one or two bytes and no more than Caffe's `encoded: false` behind it."""
        if self.like is None or len(tail) < 2 or tail[0] != 5 << 3:
            return None
        label, rest = (tail[1], tail[2:]) if tail[1] < 128 else (tail[1] & 127 | tail[2] << 7, tail[3:]) if len(tail) > 2 else (-1, tail)
        if rest not in (b"", b"\x38\0") or not 0 <= label < 1 << 14 or len(self._tails) >= _TAILS:
            return None
        datum = self._tails[tail] = self.like._replace(label=label, encoded=False)
        self._labels[tail] = label
        return datum

    def _remember(self, record: bytes, datum: Datum) -> None:
        start, stop = datum.data
        if stop <= start or start > 64 or len(record) - stop > 16:
            return
        like, head = self.like, record[:start]
        if like is None or head != self._head or datum[:4] != like[:4] or len(self._tails) >= _TAILS:
            self.like, self._head, self._tails, self._labels = datum, head, {}, {}
        self._tails[record[stop:]] = datum
        if not datum.encoded:
            self._labels[record[stop:]] = datum.label


def parse(record: bytes) -> Datum:
    """Walk one record. As in protobuf, the last of several counts, and unknown fields are passed over."""
    wire = Wire(record, "a record", DataError, "Datum")
    floats = Values(wire, 4, "float_data")
    numbers = {1: 0, 2: 0, 3: 0, 5: 0, 7: 0}
    data = (0, 0)
    for number, kind, at, end in wire.fields(0, len(record)):
        if number == 4 and kind == BYTES:
            data = (at, end)
        elif number == 6:
            floats.add(kind, at, end)
        elif kind == VARINT and number in numbers:
            numbers[number] = wire.int32(at, end) if number != 7 else wire.varint(at, end)[0]
    bytes_win = data[1] > data[0] or not floats.count
    values = None if bytes_win else np.asarray(floats.joined())  # of bytes, so never a Run
    return Datum(numbers[1], numbers[2], numbers[3], data, numbers[5], bool(numbers[7]), values)


def encode(array: Array, label: int = 0) -> bytes:
    """A record as Caffe's tools write it: [C, H, W] of uint8 as bytes, of floats as float_data."""
    if array.ndim != 3:
        raise DataError(f"a record is channels x height x width, not an array of {array.ndim} axes")
    if array.dtype == np.uint8:
        return datum(array.shape, array.tobytes(), label)
    values = np.ascontiguousarray(array, "<f4").reshape(-1)
    tagged = np.empty((values.size, 5), np.uint8)  # one tag a value: proto2 does not pack
    tagged[:, 0], tagged[:, 1:] = 6 << 3 | 5, values.view(np.uint8).reshape(-1, 4)
    return _numbers(zip((1, 2, 3, 5), (*array.shape, label), strict=True)) + tagged.tobytes()


def datum(shape: tuple[int, ...], data: bytes, label: int = 0, *, encoded: bool = False) -> bytes:
    """A record of bytes: `shape` is channels, height, width; `encoded` says that they are a picture file (shape is then left out)."""
    sizes = () if encoded else zip((1, 2, 3), shape, strict=True)
    length = varint(len(data))
    return _numbers(sizes) + b"\x22" + length + data + _numbers([(5, label), (7, int(encoded))])


def _numbers(fields: Iterable[tuple[int, int]]) -> bytes:
    return b"".join(varint(number << 3) + varint(value & (1 << 64) - 1) for number, value in fields)
