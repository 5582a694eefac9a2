"""Data layers at work: each gives the tops of one forward pass after the other, as Caffe's does.

A feed is made from a layer; what Caffe checks when it sets the layer up is checked then. `state` and `restore` are what a resumed run
needs: positions and the states of random generators, as plain numbers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError, NetError
from ..net import Layer
from . import dummy, fillers, hdf5
from .databases import Records, open_database
from .lists import LabelList, Pictures
from .order import Order, shuffled
from .paths import Paths
from .source import Source
from .transform import transform_of
from .windows import Window, Windows, read_windows

Array = np.ndarray[Any, Any]
Tops = dict[str, Array]


class Feed(ABC):
    """A data layer. `records` are the numbers of the records in its last batch, where it has some.

    `share` is (rank, of how many): processes that train one net take turns in its records, as Caffe's do; together they read what one
    process with the sum of their batches would. A batch is first planned, then made: plans follow one another, and any process can make one.
    """

    tops = (1, 2)  # how many it may have
    share = (0, 1)
    planned = False  # whether a plan is less than the batch itself

    def __init__(self, layer: Layer, seed: Sequence[int]) -> None:
        low, high = self.tops
        if not low <= len(layer.tops) <= high:
            raise NetError(f"has {len(layer.tops)} tops; a {layer.type} layer has {low if low == high else f'{low} to {high}'}")
        self.layer = layer
        self.generator = np.random.default_rng(list(seed))
        self.records: Sequence[int] = ()

    @abstractmethod
    def next(self) -> Tops:
        """The tops of the next forward pass."""

    def plan(self) -> Any:
        """What `make` needs for the next pass; the feed has moved on after it."""
        return self.next()

    def make(self, plan: Any) -> Tops:
        """The tops of a planned pass; changes nothing."""
        return plan  # type: ignore[no-any-return]

    def state(self) -> dict[str, Any]:
        """Where it stands, as plain numbers and strings."""
        return {"generator": self.generator.bit_generator.state}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from where `state` stood."""
        self.generator.bit_generator.state = dict(state["generator"])


def batch_size_of(param: Any) -> int:
    """The batch_size of a layer's parameters, which must be above 0."""
    if param.batch_size < 1:
        raise DataError("batch_size must be above 0")
    return int(param.batch_size)


class SourceFeed(Feed):
    """Data and ImageData: records of a source, in order or shuffled."""

    planned = True

    def __init__(self, layer: Layer, seed: Sequence[int], source: Source, order: Order, batch_size: int) -> None:
        super().__init__(layer, [*seed, 1])
        self.source, self.order, self.batch_size = source, order, batch_size

    def next(self) -> Tops:
        """Images [N, C, h, w], and labels [N] if there is a second top."""
        return self.make(self.plan())

    def plan(self) -> tuple[Sequence[int], Array | None]:
        """Which records, and where their crops and mirrors fall."""
        rank, ranks = self.share
        self.records = self.order.take(self.batch_size * ranks)[rank::ranks]
        draws = self.generator.random((self.batch_size * ranks, 3))[rank::ranks] if self.source.transform.random else None
        return self.records, draws

    def make(self, plan: tuple[Sequence[int], Array | None]) -> Tops:
        """Read and transform the records."""
        return dict(zip(self.layer.tops, self.source.batch(*plan), strict=False))

    def state(self) -> dict[str, Any]:
        """Position and round too."""
        return {**super().state(), "position": self.order.position, "round": self.order.round}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Position and round too."""
        super().restore(state)
        self.order.position, self.order.round = int(state["position"]), int(state["round"])


def source_of(layer: Layer, paths: Paths, columns: bool | int = False) -> Source:
    """The records of a Data or ImageData layer, by index. `columns` (True: as many as the first line has) reads several labels a line of a list."""
    if layer.type == "Data":
        data = layer.spec.data_param
        _no_forks(data, "data_param")
        return Records(open_database(paths.find(data.source), data.backend), transform_of(layer, paths))
    p = layer.spec.image_data_param
    _no_forks(p, "image_data_param")
    if bool(p.new_height) != bool(p.new_width):
        raise DataError("image_data_param has one of new_height and new_width; write both or none")
    size = (p.new_height, p.new_width) if p.new_height else None
    transform, listing = transform_of(layer, paths), paths.find(p.source)
    labels = LabelList(listing, None if columns is True else columns) if columns else None
    return Pictures(listing, transform, root_folder=p.root_folder, color=p.is_color, size=size, paths=paths, labels=labels)


def _data(layer: Layer, seed: Sequence[int], paths: Paths) -> Feed:
    source = source_of(layer, paths)
    return SourceFeed(layer, seed, source, Order(source), batch_size_of(layer.spec.data_param))


def _image_data(layer: Layer, seed: Sequence[int], paths: Paths) -> Feed:
    p = layer.spec.image_data_param
    source = source_of(layer, paths)
    start = int(np.random.default_rng([*seed, 3]).integers(p.rand_skip)) if p.rand_skip else 0
    if start >= len(source):
        raise DataError(f"rand_skip {p.rand_skip} passes over more lines than the list has ({len(source)})")
    return SourceFeed(layer, seed, source, Order(source, shuffle=p.shuffle, seed=[*seed, 2], start=start), batch_size_of(p))


class Hdf5Feed(Feed):
    """HDF5Data: rows of one file after the other; the next file is opened when the last row of one was given."""

    tops = (1, 2**31)

    def __init__(self, layer: Layer, seed: Sequence[int], paths: Paths) -> None:
        super().__init__(layer, seed)
        p = layer.spec.hdf5_data_param
        if layer.spec.has("transform_param"):
            raise DataError("HDF5Data does not transform its data; remove transform_param")
        self.batch_size, self.shuffle, self.seed = batch_size_of(p), bool(p.shuffle), list(seed)
        self.list = paths.find(p.source)
        self.paths, self.files = paths, hdf5.read_list(self.list)
        self.round = self.file = self.row = 0
        self._load()
        self.shapes = [array.shape[1:] for array in self.arrays]  # the first file's, for all

    def _load(self) -> None:
        """Open the file whose turn it is."""
        order = shuffled(len(self.files), [*self.seed, 2, self.round]) if self.shuffle else range(len(self.files))
        self.path: Path = self.paths.find(self.files[order[self.file]], self.list.parent)
        self.arrays = hdf5.load(self.path, self.layer.tops)
        self.rows = hdf5.check_rows(self.arrays, self.layer.tops, self.path)
        self._shuffle_rows()

    def _shuffle_rows(self) -> None:
        self.permutation = shuffled(self.rows, [*self.seed, 3, self.round, self.file]) if self.shuffle else None

    def next(self) -> Tops:
        """[N, ...] for each top."""
        rank, ranks = self.share
        wanted = self.batch_size * ranks
        out = [np.empty((wanted, *shape), np.float32) for shape in self.shapes]
        records, at = list[int](), 0
        while at < wanted:
            count = min(wanted - at, self.rows - self.row)
            span = slice(self.row, self.row + count)
            rows = range(span.start, span.stop) if self.permutation is None else self.permutation[span].tolist()
            for top, array in zip(out, self.arrays, strict=True):
                top[at : at + count] = self._rows(array, rows, top.shape[1:])
            records += list(rows)
            self.row, at = self.row + count, at + count
            if self.row == self.rows:
                self._advance()
        self.records = records[rank::ranks]
        return dict(zip(self.layer.tops, (np.ascontiguousarray(array[rank::ranks]) for array in out), strict=True))

    def _rows(self, array: Array, rows: Sequence[int], shape: tuple[int, ...]) -> Array:
        """Rows of a file. One of another shape than the first file's is misread, as Caffe does: row r begins r rows of the first file on."""
        if array.shape[1:] == shape:
            return array[rows.start : rows.stop] if isinstance(rows, range) else array[list(rows)]
        size = int(np.prod(shape))
        flat = array.reshape(-1)
        if (max(rows) + 1) * size > flat.size:
            raise DataError(f"{self.path}: rows of {list(array.shape[1:])}, in the first file they are {list(shape)}; all files must have the same")
        return np.stack([flat[row * size : (row + 1) * size].reshape(shape) for row in rows])

    def _advance(self) -> None:
        self.row = 0
        if len(self.files) > 1:
            self.file += 1
            if self.file == len(self.files):
                self.file, self.round = 0, self.round + 1
            self._load()
        else:
            self.round += 1
            self._shuffle_rows()

    def state(self) -> dict[str, Any]:
        """Round, file and row."""
        return {**super().state(), "round": self.round, "file": self.file, "row": self.row}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Round, file and row."""
        super().restore(state)
        self.round, self.file, self.row = int(state["round"]), int(state["file"]), int(state["row"])
        self._load()


class WindowFeed(Feed):
    """WindowData: windows drawn at random, of the background first, then of the foreground."""

    tops = (2, 2)

    def __init__(self, layer: Layer, seed: Sequence[int], paths: Paths) -> None:
        super().__init__(layer, seed)
        p = layer.spec.window_data_param
        file = read_windows(paths.find(p.source), p.fg_threshold, p.bg_threshold)
        square = p.crop_mode == "square"
        transform = transform_of(layer, paths)
        self.windows = Windows(file, transform, root_folder=p.root_folder, scale=p.scale, pad=p.context_pad, square=square, paths=paths)
        self.batch_size = batch_size_of(p)
        if not 0 <= p.fg_fraction <= 1:
            raise DataError(f"fg_fraction {p.fg_fraction:g} is no share of a batch: from 0 to 1")
        self.foreground = int(np.float32(self.batch_size) * np.float32(p.fg_fraction))

    def next(self) -> Tops:
        """Images [N, 3, crop, crop] and classes [N]."""
        crop, file = self.windows.transform.crop, self.windows.file
        images, labels = np.zeros((self.batch_size, 3, crop, crop), np.float32), np.empty(self.batch_size, np.float32)
        for i in range(self.batch_size):
            kind = file.background if i < self.batch_size - self.foreground else file.foreground
            window = Window(*kind[int(self.generator.integers(len(kind)))].tolist())
            mirror = self.windows.transform.mirror and bool(self.generator.integers(2))
            self.windows.warp(window, images[i], mirror=mirror)
            labels[i] = window.label
        return {self.layer.tops[0]: images, self.layer.tops[1]: labels}


class MemoryFeed(Feed):
    """MemoryData: arrays that the program hands over, one by the name of each top; transform_param is not applied, as in Caffe."""

    tops = (2, 2)

    def __init__(self, layer: Layer, seed: Sequence[int], paths: Paths, arrays: Mapping[str, Any]) -> None:
        super().__init__(layer, seed)
        p = layer.spec.memory_data_param
        self.batch_size = batch_size_of(p)
        wanted = ((p.channels, p.height, p.width), (1, 1, 1))
        if min(wanted[0]) < 1:
            raise DataError("memory_data_param must give channels, height and width above 0")
        missing = [top for top in layer.tops if top not in arrays]
        if missing:
            raise DataError(f"MemoryData reads no file; hand its arrays over: arrays={{{', '.join(f'{top!r}: ...' for top in missing)}}}")
        self.arrays = [_rows_of(arrays[top], shape, top) for top, shape in zip(layer.tops, wanted, strict=True)]
        counts = [len(array) for array in self.arrays]
        if counts[0] != counts[1] or not counts[0] or counts[0] % self.batch_size:
            raise DataError(f"{counts[0]} data and {counts[1]} labels: as many of each, and a multiple of the batch size {self.batch_size}")
        self.position = 0

    def next(self) -> Tops:
        """Images [N, C, H, W] and labels [N, 1, 1, 1]."""
        rank, ranks = self.share
        count, total = self.batch_size * ranks, len(self.arrays[0])
        if total % count == 0:  # a view, no copy
            span = slice(self.position + rank, self.position + count, ranks)
            self.records = range(span.start, span.stop, span.step)
        else:
            self.records = [(self.position + i) % total for i in range(rank, count, ranks)]
        self.position = (self.position + count) % total
        index = span if total % count == 0 else self.records
        return {top: array[index] for top, array in zip(self.layer.tops, self.arrays, strict=True)}

    def state(self) -> dict[str, Any]:
        """The position."""
        return {**super().state(), "position": self.position}

    def restore(self, state: Mapping[str, Any]) -> None:
        """The position."""
        super().restore(state)
        self.position = int(state["position"])


def _rows_of(values: Any, shape: tuple[int, ...], top: str) -> Array:
    array = np.asarray(values, np.float32)
    if array.shape[1:] != shape and (array.ndim < 1 or array.size != len(array) * int(np.prod(shape)) or array.ndim not in (1, 4)):
        raise DataError(f"the array for {top!r} is {list(array.shape)}; it must be N x {' x '.join(map(str, shape))}")
    return array.reshape(-1, *shape)


class DummyFeed(Feed):
    """DummyData: a constant top is filled once, so what is written to it in place stays; the others are filled anew in each pass."""

    tops = (1, 2**31)

    def __init__(self, layer: Layer, seed: Sequence[int], paths: Paths) -> None:
        super().__init__(layer, seed)
        self.shapes, self.fillers = dummy.plan(layer)
        made = zip(layer.tops, self.shapes, self.fillers, strict=True)
        self.constants = {top: fillers.fill(shape, f, self.generator) for top, shape, f in made if f.type == "constant"}

    def next(self) -> Tops:
        """As many arrays as tops."""
        made = zip(self.layer.tops, self.shapes, self.fillers, strict=True)
        return {top: self.constants[top].copy() if top in self.constants else fillers.fill(shape, f, self.generator) for top, shape, f in made}


def _no_forks(param: Any, name: str) -> None:
    """DataError where a fork's field would change what is read."""
    harmless = {"prefetch", "threads", "parser_threads", "cache", "precache"}
    foreign = [field.name for field, _ in param.written() if field.fork and field.name not in harmless] + list(param.unknown)
    if foreign:
        raise DataError(f"{name}.{foreign[0]} is a fork's; BVLC Caffe, which is followed here, has no such field")


FEEDS: dict[str, Any] = {
    "Data": _data,
    "DummyData": DummyFeed,
    "HDF5Data": Hdf5Feed,
    "ImageData": _image_data,
    "MemoryData": MemoryFeed,
    "WindowData": WindowFeed,
}
