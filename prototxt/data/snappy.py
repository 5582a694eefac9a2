"""Snappy, the raw format that LevelDB's blocks are compressed by: uncompress only.

Elements are literals and copies of what was written before. If cramjam is installed it does the work, some fifty times faster.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NoReturn

from ..errors import DataError

RATIO = 64  # an element of two bytes copies at most 64 (60 in practice): nothing can unfold to more


def uncompress(data: bytes) -> bytes:
    """The bytes that `data` stand for. DataError where they are damaged; no more is allocated than 64 times the input."""
    length, at = _length(data)
    if length > RATIO * len(data):
        _damaged(f"{length:,} bytes cannot come out of {len(data):,}")
    fast = _cramjam()
    if fast is not None:
        try:
            out = bytes(fast.decompress_raw(data))
        except Exception as exc:
            raise DataError(f"a damaged snappy block: {exc}") from exc
    else:
        out = _elements(data, at, length)
    if len(out) != length:
        _damaged(f"{len(out):,} bytes instead of {length:,}")
    return out


@cache
def _cramjam() -> Any:
    try:
        from cramjam import snappy
    except ImportError:
        return None
    return snappy


def _length(data: bytes) -> tuple[int, int]:
    value = shift = 0
    for at, byte in enumerate(data[:5]):
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at + 1
        shift += 7
    _damaged("its length is cut off")


def _elements(data: bytes, at: int, length: int) -> bytes:
    out = bytearray()
    end = len(data)
    while at < end:
        tag = data[at]
        kind = tag & 3
        at += 1
        if kind == 0:
            size = (tag >> 2) + 1
            if size > 60:
                extra = size - 60
                size = int.from_bytes(data[at : at + extra], "little") + 1
                at += extra
            if at + size > end:
                _damaged("a literal runs over its end")
            out += data[at : at + size]
            at += size
            continue
        if kind == 1:
            size, offset = (tag >> 2 & 7) + 4, (tag >> 5 << 8) | (data[at] if at < end else 0)
            at += 1
        else:
            width = 2 if kind == 2 else 4
            size, offset = (tag >> 2) + 1, int.from_bytes(data[at : at + width], "little")
            at += width
        start = len(out) - offset
        if offset == 0 or start < 0 or at > end:
            _damaged("a copy of what was not written")
        if offset >= size:
            out += out[start : start + size]
        else:  # the copy runs into itself: a pattern that repeats
            piece = bytes(out[start:])
            out += (piece * (size // offset + 1))[:size]
        if len(out) > length:
            _damaged("more comes out than it says")
    return bytes(out)


def _damaged(problem: str) -> NoReturn:
    raise DataError(f"a damaged snappy block: {problem}")
