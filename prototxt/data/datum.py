"""Datum: one record of a database, channels x height x width of bytes or floats, or an encoded picture, and a label.

Only tags and lengths are walked; pixels stay where they are. Records of one size begin with the same bytes, so that a
`DatumReader` compares these instead of walking again. Bytes win over floats, a label not written is 0 (conformance:
data/lmdb_bytes_and_floats, lmdb_label_unset).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..errors import DataError

Array = np.ndarray[Any, Any]
MAX_COUNT = 2**31 - 1  # values of a blob of Caffe's
_VARINT, _FIXED64, _BYTES, _GROUP, _END, _FIXED32 = range(6)
_TAILS = 4096  # endings that are remembered: one for each label


class Datum(NamedTuple):
    """`data` is the span of the bytes in the record (start, stop), empty if it has floats instead."""

    channels: int
    height: int
    width: int
    data: tuple[int, int]
    label: int
    encoded: bool
    floats: Array | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        return self.channels, self.height, self.width

    @property
    def count(self) -> int:
        """How many values the shape has."""
        return self.channels * self.height * self.width


class DatumReader:
    """Reads records, one after the other; remembers how the last one began."""

    def __init__(self) -> None:
        self._head, self._like = b"", Datum(0, 0, 0, (0, 0), 0, False)
        self._tails: dict[bytes, tuple[int, bool]] = {}

    def read(self, record: bytes) -> Datum:
        """The record's Datum. DataError if its bytes are no Datum."""
        like = self._like
        start, stop = like.data
        if stop and len(record) >= stop and record.startswith(self._head):
            tail = record[stop:]
            known = self._tails.get(tail)
            if known is not None:
                return Datum(like.channels, like.height, like.width, like.data, known[0], known[1])
        datum = parse(record)
        start, stop = datum.data
        if stop and datum.floats is None:
            self._remember(record[:start], record[stop:], datum)
        return datum

    def _remember(self, head: bytes, tail: bytes, datum: Datum) -> None:
        """Keep a beginning and an ending, if each stands for itself: size in the one, label in the other."""
        if len(tail) > 16 or len(head) > 64:
            return
        try:
            first, last = _fields(head + b"\0", len(head) - 1), _fields(tail, 0)
        except DataError:
            return
        del first, last
        if head != self._head:
            self._head, self._like = head, datum
            self._tails.clear()
        if len(self._tails) < _TAILS:
            self._tails[tail] = (datum.label, datum.encoded)


def parse(record: bytes) -> Datum:
    raise NotImplementedError
