"""The files of a LevelDB: reading them by position, and the logs, whose records are cut into pieces.

A log is blocks of 32 KiB; a piece is checksum (4 bytes), length (2), kind (1) and data, and never crosses a block. What a crash
left unfinished at the end of a log does not count, as in LevelDB.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections import OrderedDict
from pathlib import Path
from typing import NoReturn

from ..errors import DataError, FileProblem

_BLOCK, _HEAD = 1 << 15, 7
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
_OPEN = 64  # files at a time: a large database has tens of thousands


class Files:
    """The files of a database by number, a few of them open at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open: OrderedDict[str, tuple[int, int]] = OrderedDict()  # name -> descriptor, size
        self._names: dict[int, str] = {}

    def logs(self) -> list[int]:
        """The numbers of the logs, in order."""
        try:
            return sorted(int(p.stem) for p in self.folder.glob("*.log") if p.stem.isdecimal() and len(p.stem) < 19)
        except OSError as exc:
            raise FileProblem(f"{self.folder}: cannot be read: {exc.strerror}") from exc

    def size(self, number: int) -> int:
        """Bytes of a table."""
        return self._file(self.table(number))[1]

    def read(self, number: int, at: int, size: int) -> bytes:
        """Bytes of a table."""
        return self.read_file(self.table(number), at, size)

    def table(self, number: int) -> str:
        """The name of a table's file: older databases call it .sst."""
        if number not in self._names:
            name = f"{number:06d}.ldb"
            self._names[number] = name if (self.folder / name).exists() else f"{number:06d}.sst"
        return self._names[number]

    def read_file(self, name: str, at: int, size: int) -> bytes:
        """`size` bytes of the file `name` at `at`; DataError if it has not as many."""
        descriptor, total = self._file(name)
        data = os.pread(descriptor, size, at) if at + size <= total else b""
        if len(data) != size:
            raise DataError(f"{self.folder / name}: bytes {at:,} to {at + size:,} are behind its end ({total:,})")
        return data

    def file_size(self, name: str) -> int:
        """Bytes of the file `name`."""
        return self._file(name)[1]

    def _file(self, name: str) -> tuple[int, int]:
        found = self._open.get(name)
        if found is None:
            try:
                descriptor = os.open(self.folder / name, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
                found = self._open[name] = descriptor, os.fstat(descriptor).st_size
            except OSError as exc:
                raise FileProblem(f"{self.folder / name}: cannot be read: {exc.strerror}; the database is incomplete") from exc
            while len(self._open) > _OPEN:
                os.close(self._open.popitem(last=False)[1][0])
        return found

    def close(self) -> None:
        """Close all."""
        while self._open:
            os.close(self._open.popitem()[1][0])

    def __del__(self) -> None:
        self.close()


class Log:
    """The records of a log, read by parts: `log.read(record, start, length)`."""

    def __init__(self, files: Files, number: int, *, name: str = "{:06d}.log") -> None:
        self.files, self.name = files, name.format(number)
        self._starts: list[list[int]] = []  # of each piece in its record
        self._places: list[list[int]] = []  # of each piece in the file
        self.lengths: list[int] = []
        self._find_pieces()

    def __len__(self) -> int:
        return len(self.lengths)

    def _find_pieces(self) -> None:
        size, at = self.files.file_size(self.name), 0
        starts: list[int] = []
        places: list[int] = []
        total = 0
        while at + _HEAD <= size:
            room = _BLOCK - at % _BLOCK
            if room < _HEAD:
                at += room
                continue
            head = self.files.read_file(self.name, at, _HEAD)
            length, kind = int.from_bytes(head[4:6], "little"), head[6]
            if kind == 0 and length == 0:  # allocated, never written
                at += room
                continue
            if at + _HEAD + length > size:
                return
            if not _FULL <= kind <= _LAST or length > room - _HEAD or (kind in (_MIDDLE, _LAST)) != bool(places):
                raise DataError(f"{self.files.folder / self.name}: byte {at:,}: no piece of a record; the log is damaged")
            starts.append(total)
            places.append(at + _HEAD)
            total += length
            at += _HEAD + length
            if kind in (_FULL, _LAST):
                self._starts.append(starts)
                self._places.append(places)
                self.lengths.append(total)
                starts, places, total = [], [], 0

    def read(self, record: int, start: int, length: int) -> bytes:
        """`length` bytes of a record from `start`; DataError if it has not as many."""
        if start + length > self.lengths[record]:
            self.damaged(record)
        starts, places = self._starts[record], self._places[record]
        i = bisect_right(starts, start) - 1
        parts = []
        while length > 0:
            stop = starts[i + 1] if i + 1 < len(starts) else self.lengths[record]
            count = min(length, stop - start)
            parts.append(self.files.read_file(self.name, places[i] + start - starts[i], count))
            start, length, i = start + count, length - count, i + 1
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def damaged(self, record: int) -> NoReturn:
        """The error that names the record."""
        raise DataError(f"{self.files.folder / self.name}: record {record} ends too early; the log is damaged")


class Cursor:
    """A place in a record of a log that moves on as it is read."""

    def __init__(self, log: Log, record: int) -> None:
        self.log, self.record, self.at = log, record, 0

    @property
    def left(self) -> int:
        """Bytes behind the cursor."""
        return self.log.lengths[self.record] - self.at

    def take(self, count: int) -> bytes:
        """The next bytes."""
        data = self.log.read(self.record, self.at, count)
        self.at += count
        return data

    def skip(self, count: int) -> None:
        """Pass over bytes."""
        if count > self.left:
            self.log.damaged(self.record)
        self.at += count

    def varint(self) -> int:
        """The next number."""
        value = shift = 0
        for byte in self.log.read(self.record, self.at, min(10, self.left)):
            self.at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
        self.log.damaged(self.record)

    def string(self) -> bytes:
        """The next bytes, behind their length."""
        return self.take(self.varint())
