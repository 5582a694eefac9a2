"""LMDB, read-only: the values of a data.mdb in the order of their keys.

Caffe's databases are read by position from the file, not through a mapping: a damaged page, a loop in the tree or a file that
becomes shorter is an error of ours instead of a crash, memory stays flat over an epoch, no lock file is written, and the reader
can be handed to worker processes.

The file is a B+tree of pages: 0 and 1 are meta pages (the one of the later transaction counts), a branch page holds keys and page
numbers, a leaf page keys and values; a value that does not fit stands in overflow pages of its own. Format: lmdb.h, mdb.c 0.9.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator
from operator import add
from pathlib import Path
from struct import Struct, error, unpack_from
from typing import NamedTuple, NoReturn

import numpy as np

from ..errors import DataError, FileProblem
from ..files import check_file

MAGIC, VERSION = 0xBEEFC0DE, 1
_BRANCH, _LEAF, _META = 1, 2, 8  # page flags
_BIG = 1  # node flag: the value is in overflow pages
_DUPLICATES = 0x74  # database flags: the kinds of MDB_DUPSORT
_HEAD = 16  # bytes of a page header
_PAGE = Struct("<QHHHH")  # number, unused, flags, end of the pointers, start of the nodes
_FILE = Struct("<II16xI4xH")  # magic, version, page size; the free list's flags
_TREE = Struct("<HHQQQQQ")  # flags, depth, branch, leaf and overflow pages, entries, root
_NODE = Struct("<HHHH")  # low and high half of a length, flags, key's length
_NUMBER = Struct("<Q")
_NO_PAGE = 2**64 - 1
_LEAVES = 16  # leaf pages that are looked at together


class Meta(NamedTuple):
    """What the newer of the two meta pages says."""

    page_size: int
    transaction: int
    flags: int
    depth: int
    entries: int
    root: int


class Lmdb:
    """The values of an LMDB by their position in the order of keys: `len(db)`, `db[5]` -> bytes. `path` is its folder, or data.mdb."""

    def __init__(self, path: str | Path) -> None:
        path = Path(path)
        self.path = path / "data.mdb" if path.is_dir() else path
        check_file(self.path)
        self._open()
        self._meta = self._newer_meta()
        self._at, self._size = array("q"), array("q")  # of the values met so far
        self._walk: Iterator[None] | None = self._leaves()

    def _open(self) -> None:
        try:
            self._file = os.open(self.path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
            self._bytes = os.fstat(self._file).st_size
        except OSError as exc:
            raise FileProblem(f"{self.path}: cannot be read: {exc.strerror}") from exc

    def __len__(self) -> int:
        return self._meta.entries

    def __getitem__(self, index: int) -> bytes:
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self._at):
            self._reach(index)
        at, size = self._at[index], self._size[index]
        value = os.pread(self._file, size, at)
        if len(value) != size:
            self._damaged(f"record {index}: the file became shorter while it was read")
        return value

    def has(self, index: int) -> bool:
        """Whether there is a value `index`."""
        return 0 <= index < len(self)

    def run(self, first: int, count: int) -> tuple[bytes, list[int], list[int]] | None:
        """Values first, first + 1, ... by one read: bytes that hold them, where they start there, their sizes.

        Fewer than `count` up to a place where the next one stands elsewhere; None where that is the second already.
        """
        self._reach(first + count - 1)
        starts, sizes = self._at[first : first + count].tolist(), self._size[first : first + count].tolist()
        begin, end = min(starts), max(map(add, starts, sizes))
        if end - begin > 2 * sum(sizes) + (self._meta.page_size << 1):
            near = (self._meta.page_size << 1) + max(sizes)
            stop = next((n for n in range(1, count) if not 0 <= starts[n] - starts[n - 1] <= near), count)
            if stop < 2:
                return None
            starts, sizes = starts[:stop], sizes[:stop]
            begin, end = starts[0], starts[-1] + sizes[-1]
        return self._read(begin, end - begin), [start - begin for start in starts], sizes

    def close(self) -> None:
        """Close the file; the reader cannot be used any more."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __del__(self) -> None:
        if getattr(self, "_file", -1) >= 0:
            self.close()

    def __reduce__(self) -> tuple[type[Lmdb], tuple[Path]]:
        return Lmdb, (self.path,)

    # The tree

    def _reach(self, index: int) -> None:
        """Walk on until the place of value `index` is known."""
        if not 0 <= index < len(self):
            raise IndexError(f"{self.path} has {len(self):,} records; there is no {index}")
        while len(self._at) <= index and self._walk is not None:
            if next(self._walk, self) is self:
                self._walk = None
        if len(self._at) <= index:
            self._damaged(f"it says that it has {len(self):,} records, but the tree holds {len(self._at):,}")

    def _newer_meta(self) -> Meta:
        first = self._meta_at(0)
        second = self._meta_at(first.page_size)
        newer = max(first, second, key=lambda meta: meta.transaction)
        if newer.flags & _DUPLICATES:
            self._damaged("it has several values a key; Caffe's databases have one")
        if newer.entries > self._bytes // 10:
            self._damaged(f"{newer.entries:,} records cannot stand in {self._bytes:,} bytes")
        return newer

    def _meta_at(self, at: int) -> Meta:
        page = self._read(at, 152)
        flags = _PAGE.unpack_from(page)[2]
        magic, version, page_size, _ = _FILE.unpack_from(page, _HEAD)
        if magic != MAGIC or not flags & _META:
            self._damaged("no LMDB: " + ("a big-endian one" if magic == 0xDEC0EFBE else "it does not begin as one"))
        if version != VERSION:
            self._damaged(f"LMDB data version {version}; Caffe and this reader know version {VERSION}")
        if page_size not in (1 << n for n in range(8, 17)):
            self._damaged(f"pages of {page_size:,} bytes do not exist")
        main_flags, depth, _, _, _, entries, root = _TREE.unpack_from(page, _HEAD + 76)
        (transaction,) = _NUMBER.unpack_from(page, _HEAD + 128)
        return Meta(page_size, transaction, main_flags, depth, entries, root)

    def _leaves(self) -> Iterator[None]:
        """Note the places of all values in the order of keys, some leaves at a time."""
        pages = self._bytes // self._meta.page_size  # a tree has no more than the file, so that a loop ends
        stack = [] if self._meta.root == _NO_PAGE else [(self._meta.root, self._meta.depth)]
        while stack:
            number, height = stack.pop()
            if height == 1:
                self._leaf_pages([number])
                yield
                continue
            children = self._children(number)
            pages -= len(children)
            if pages < 0 or not 1 < height < 64:
                self._damaged("its tree runs in a circle")
            if height > 2:
                stack.extend((child, height - 1) for child in reversed(children))
                continue
            for i in range(0, len(children), _LEAVES):
                self._leaf_pages(children[i : i + _LEAVES])
                yield

    def _children(self, number: int) -> list[int]:
        """The page numbers in a branch page."""
        size = self._meta.page_size
        page = self._read(number * size, size)
        _, _, flags, lower, _ = _PAGE.unpack_from(page)
        if not flags & _BRANCH or not _HEAD < lower <= size:
            self._damaged(f"page {number:,} is no branch of its tree")
        try:
            nodes = [_NODE.unpack_from(page, at) for at in unpack_from(f"<{(lower - _HEAD) // 2}H", page, _HEAD)]
        except error:
            self._damaged(f"page {number:,}: a node that runs over its end")
        return [low | high << 16 | top << 32 for low, high, top, _ in nodes]

    def _leaf_pages(self, numbers: list[int]) -> None:
        """Note the places of the values of leaf pages."""
        size = self._meta.page_size
        data = b"".join(self._read(number * size, size) for number in numbers)
        words = np.frombuffer(data, "<u2").reshape(len(numbers), size // 2)
        flags, lower = words[:, 5], words[:, 6].astype(np.int64)
        if not (flags & _LEAF).all() or lower.min() < _HEAD or lower.max() > size:
            self._damaged(f"page {numbers[0]:,} or one of the {len(numbers)} leaves from there is none")
        counts = (lower - _HEAD) // 2
        pointers = words[:, _HEAD // 2 : _HEAD // 2 + counts.max()][np.arange(counts.max()) < counts[:, None]].astype(np.int64)
        page = np.repeat(np.arange(len(numbers)), counts)
        if (pointers & 1).any() or (pointers > size - _NODE.size).any():
            self._damaged(f"page {numbers[0]:,} or one of the {len(numbers)} leaves from there: a node that runs over its end")
        low, high, kind, key = (words.reshape(-1)[(page * size + pointers) // 2 + n].astype(np.int64) for n in range(4))
        value, length = pointers + _NODE.size + key, low | high << 16
        big = kind == _BIG
        if (kind > _BIG).any():
            self._damaged("it holds named databases or several values a key; Caffe's have neither")
        if (value + np.where(big, 8, length) > size).any():
            self._damaged(f"page {numbers[0]:,} or one of the {len(numbers)} leaves from there: a node that runs over its end")
        place = page * size + value
        overflow = np.frombuffer(data, np.uint8)[place[big, None] + np.arange(8)].view("<u8")[:, 0]
        if (overflow > self._bytes // size).any():
            self._damaged("a value behind the end of the file; it is cut off")
        start = np.array(numbers, np.int64)[page] * size + value
        start[big] = overflow.astype(np.int64) * size + _HEAD
        if (start + length > self._bytes).any():
            self._damaged(f"a value that ends behind byte {self._bytes:,}; the file is cut off")
        self._at.frombytes(start.tobytes())
        self._size.frombytes(length.tobytes())

    def _read(self, at: int, size: int) -> bytes:
        page = os.pread(self._file, size, at) if at + size <= self._bytes else b""
        if len(page) != size:
            self._damaged(f"bytes {at:,} to {at + size:,} are behind its end ({self._bytes:,})")
        return page

    def _damaged(self, problem: str) -> NoReturn:
        raise DataError(f"{self.path}: {problem}")
