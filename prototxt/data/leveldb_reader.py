"""LevelDB, read-only: the newest values of all keys, in the order of keys. No library, no lock file, nothing written.

A database is a folder. CURRENT names the manifest, a log of edits: which tables are live, and from which log on there are records
that no table has yet. A table is sorted blocks with an index; blocks may be compressed by snappy. An internal key is the key and
behind it 8 bytes, sequence << 8 | kind; the highest sequence of a key counts, and a deletion hides what is older.

Only places are kept in memory, values are read when asked for. Checksums are not looked at: damage is found by structure.
Format: leveldb/doc/{impl,log_format,table_format}.md.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Iterator
from heapq import merge
from pathlib import Path
from typing import NamedTuple, NoReturn

from ..errors import DataError
from ..files import read_file
from .leveldb_files import Cursor, Files, Log
from .snappy import uncompress

_MAGIC = (0xDB4775248B80FB57).to_bytes(8, "little")
_FOOTER, _TRAILER = 48, 5  # bytes at the end of a table, and of a block: how it is compressed, checksum
_COMPARATOR = b"leveldb.BytewiseComparator"


class Place(NamedTuple):
    """Where a value stands: in a block of a table (`block` is its size there), or in a record of a log (`block` is 0)."""

    file: int
    at: int  # of the block in the table, or the number of the record in the log
    block: int
    start: int
    length: int


Entry = tuple[bytes, int, int, Place]  # key, minus sequence, kind, place: sorts as LevelDB sorts


class LevelDb:
    """The values of a LevelDB by their position in the order of keys. `len` walks over all of it once: LevelDB keeps no count."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._files = Files(self.path)
        self._logs: dict[int, Log] = {}
        self._blocks: OrderedDict[tuple[int, int], bytes] = OrderedDict()
        self._places = array("Q")
        self._walk: Iterator[Entry] | None = self._newest(merge(*self._sources()))

    def __len__(self) -> int:
        self._reach(None)
        return len(self._places) // 5

    def __getitem__(self, index: int) -> bytes:
        if index < 0:
            index += len(self)
        if index < 0 or not self._reach(index):
            raise IndexError(f"{self.path} has {len(self._places) // 5:,} records; there is no {index}")
        place = Place(*self._places[5 * index : 5 * index + 5])
        if not place.block:
            return self._logs[place.file].read(place.at, place.start, place.length)
        return self._block(place.file, place.at, place.block)[place.start : place.start + place.length]

    def has(self, index: int) -> bool:
        """Whether there is a value `index`: walks no further than to it."""
        return index >= 0 and self._reach(index)

    def run(self, first: int, count: int) -> tuple[bytes, list[int], list[int]] | None:
        """Values side by side, as an LMDB has them; a LevelDB has not."""
        return None

    def close(self) -> None:
        """Close its files."""
        self._files.close()

    def __reduce__(self) -> tuple[type[LevelDb], tuple[Path]]:
        return LevelDb, (self.path,)

    def _reach(self, index: int | None) -> bool:
        """Walk on until the place of value `index` is known, or to the end; whether there is one."""
        while self._walk is not None and (index is None or len(self._places) <= 5 * index):
            entry = next(self._walk, None)
            if entry is None:
                self._walk = None
            else:
                self._places.extend(entry[3])
        return index is not None and 5 * index < len(self._places)

    def _newest(self, entries: Iterator[Entry]) -> Iterator[Entry]:
        """Of each key its newest entry, unless that is a deletion."""
        last: bytes | None = None
        for entry in entries:
            if last is not None and entry[0] < last:
                self._damaged("its tables are not in the order of keys")
            if entry[0] != last and entry[2]:
                yield entry
            last = entry[0]

    # What is live

    def _sources(self) -> list[Iterator[Entry]]:
        """Sorted runs of entries: each table of level 0, the tables of each level above, the records of the logs."""
        levels, first_log, previous_log = self._manifest()
        runs = [self._table(number) for _, number in levels.pop(0, [])]
        runs += [self._tables([number for _, number in sorted(level)]) for level in levels.values()]
        logs = [number for number in self._files.logs() if number >= first_log or number == previous_log]
        recent: list[Entry] = []
        for number in logs:
            self._logs[number] = Log(self._files, number)
            recent += self._logged(number)
        return [*runs, iter(sorted(recent))]

    def _manifest(self) -> tuple[dict[int, list[tuple[bytes, int]]], int, int]:
        """Live tables by level (smallest key, number), the first log that counts, and one before it that does too."""
        name = read_file(self.path / "CURRENT", limit=1 << 12).decode("utf-8", "replace")
        number = name.strip().removeprefix("MANIFEST-")
        if not number.isdigit() or len(number) > 18:
            self._damaged("CURRENT names no manifest; is it the folder of a LevelDB?")
        live: dict[tuple[int, int], bytes] = {}
        first_log = previous_log = 0
        manifest = Log(self._files, int(number), name="MANIFEST-{:06d}")
        for record in range(len(manifest)):
            edit = Cursor(manifest, record)
            while edit.left:
                tag = edit.varint()
                if tag == 1:
                    if (comparator := edit.string()) != _COMPARATOR:
                        self._damaged(f"its keys are sorted by {comparator[:60]!r}, which Caffe's are not")
                elif tag == 2:
                    first_log = edit.varint()
                elif tag in (3, 4):
                    edit.varint()
                elif tag == 5:
                    edit.varint(), edit.string()
                elif tag == 6:
                    live.pop((edit.varint(), edit.varint()), None)
                elif tag == 7:
                    level, table = edit.varint(), edit.varint()
                    edit.varint()
                    live[level, table] = edit.string()
                    edit.string()
                elif tag == 9:
                    previous_log = edit.varint()
                else:
                    self._damaged(f"the manifest has an edit of kind {tag}")
        levels: dict[int, list[tuple[bytes, int]]] = {}
        for (level, table), smallest in live.items():
            levels.setdefault(level, []).append((smallest, table))
        return levels, first_log, previous_log

    def _logged(self, number: int) -> Iterator[Entry]:
        """The entries of a log: each record is a batch of puts and deletes."""
        log = self._logs[number]
        for record in range(len(log)):
            batch = Cursor(log, record)
            sequence = int.from_bytes(batch.take(8), "little")
            for i in range(int.from_bytes(batch.take(4), "little")):
                kind = batch.take(1)[0]
                if kind > 1:
                    self._damaged(f"log {number}: an entry of kind {kind}")
                key = batch.string()
                length = batch.varint() if kind else 0
                yield key, -sequence - i, kind, Place(number, record, 0, batch.at, length)
                batch.skip(length)

    # Tables

    def _tables(self, numbers: list[int]) -> Iterator[Entry]:
        for number in numbers:
            yield from self._table(number)

    def _table(self, number: int) -> Iterator[Entry]:
        size = self._files.size(number)
        footer = self._files.read(number, max(0, size - _FOOTER), min(size, _FOOTER))
        if not footer.endswith(_MAGIC):
            self._damaged(f"table {number} does not end as one; it is damaged or cut off")
        handles = _Numbers(footer, f"{self.path}: table {number}")
        handles.next(), handles.next()  # the meta index: filters, which we need not
        index = self._block(number, handles.next(), handles.next())
        for _, at, length in self._entries(index, f"the index of table {number}"):
            handle = _Numbers(index[at : at + length], f"{self.path}: the index of table {number}")
            block_at, block = handle.next(), handle.next()
            if not block:
                self._damaged(f"table {number}: an empty block")
            for key, start, value in self._entries(self._block(number, block_at, block), f"table {number}"):
                if len(key) < 8:
                    self._damaged(f"table {number}: a key without a sequence")
                sequence = int.from_bytes(key[-8:], "little")
                yield key[:-8], -(sequence >> 8), sequence & 255, Place(number, block_at, block, start, value)

    def _block(self, number: int, at: int, size: int) -> bytes:
        """A block of a table, uncompressed; the last ones are kept."""
        kept = self._blocks.get((number, at))
        if kept is not None:
            return kept
        raw = self._files.read(number, at, size + _TRAILER)
        kind = raw[size]
        if kind > 1:
            self._damaged(f"table {number}: a block compressed by method {kind}; Caffe's are plain or snappy")
        block = uncompress(raw[:size]) if kind else raw[:size]
        self._blocks[number, at] = block
        while len(self._blocks) > 4:
            self._blocks.popitem(last=False)
        return block

    def _entries(self, block: bytes, what: str) -> Iterator[tuple[bytes, int, int]]:
        """(key, start of the value, its length) of each entry; a key is written as what differs from the one before."""
        numbers = _Numbers(block, f"{self.path}: {what}")
        stop = len(block) - 4
        stop -= 4 * int.from_bytes(block[-4:], "little")  # restart points, and how many there are
        if stop < 0:
            self._damaged(f"{what}: a block that is too short")
        key = b""
        while numbers.at < stop:
            shared, rest, length = numbers.next(), numbers.next(), numbers.next()
            at = numbers.at + rest
            if shared > len(key) or at + length > stop:
                self._damaged(f"{what}: an entry runs over the end of its block")
            key = key[:shared] + block[numbers.at : at]
            yield key, at, length
            numbers.at = at + length

    def _damaged(self, problem: str) -> NoReturn:
        raise DataError(f"{self.path}: {problem}")


class _Numbers:
    """Varints in bytes, one after the other."""

    def __init__(self, data: bytes, place: str) -> None:
        self.data, self.place, self.at = data, place, 0

    def next(self) -> int:
        value = shift = 0
        for byte in self.data[self.at : self.at + 10]:
            self.at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
        raise DataError(f"{self.place}: a number is cut off")
