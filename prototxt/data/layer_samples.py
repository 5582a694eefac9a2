"""A data layer as a sequence of its records: what torch's DataLoader takes as it is, worker processes included.

    data = prototxt.data.samples("net.prototxt", "TRAIN", seed=1)
    DataLoader(data, batch_size=64, shuffle=True, num_workers=4)

Crops and mirrors of record i are drawn from (seed, epoch, i): they do not depend on the number of workers, nor on the order.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError, NetError
from ..net import Layer, Net, read_net
from ..rules import State
from . import hdf5
from .feeds import batch_size_of, source_of
from .layer_batches import with_place
from .paths import Paths

Array = np.ndarray[Any, Any]
OPEN = 4  # HDF5 files that are kept in memory


def samples(
    net: str | Path | Net,
    phase: str = "TEST",
    *,
    layer: str | None = None,
    stages: Sequence[str] = (),
    level: int = 0,
    seed: int = 0,
    root: str | Path | None = None,
    columns: bool | int = False,
) -> Samples:
    """The records of a net's data layer (the first, or the one named), each a dict {top: array} without the batch axis.

    `columns` reads an image list with several labels a line, `path 0 1 1 0`: True for as many as the first line has.
    """
    if not isinstance(net, Net):
        net = read_net(net, State(phase, level, tuple(stages)))
    found = [one for one in net.layers if one.type in ("Data", "HDF5Data", "ImageData") and layer in (None, one.name)]
    if not found:
        raise NetError(f"the net {net.name!r} has no {'layer ' + repr(layer) if layer else 'Data, HDF5Data or ImageData layer'} in phase {phase}")
    paths = Paths(found[0].folder, Path(root) if root is not None else None)
    return with_place(found[0], lambda: Samples(found[0], seed=seed, paths=paths, columns=columns))  # type: ignore[no-any-return]


class Samples:
    """`samples[i]` -> {top: float32 array}; `batch([i, ...])` the same, stacked. Set `epoch` before each epoch, for other crops and mirrors."""

    def __init__(self, layer: Layer, *, seed: int = 0, paths: Paths | None = None, columns: bool | int = False) -> None:
        if columns and layer.type != "ImageData":
            raise DataError(f"columns are those of an image list, and the layer is of type {layer.type}; its records have one label each")
        param = {"Data": "data_param", "HDF5Data": "hdf5_data_param", "ImageData": "image_data_param"}[layer.type]
        self.batch_size = batch_size_of(getattr(layer.spec, param))
        self.shuffled = layer.type != "Data" and bool(getattr(layer.spec, param).shuffle)
        self.tops, self.seed, self.epoch = layer.tops, seed, 0
        paths = paths or Paths(layer.folder)
        self._rows = _Hdf5Rows(layer, paths) if layer.type == "HDF5Data" else None
        self._source = source_of(layer, paths, columns) if self._rows is None else None

    def __len__(self) -> int:
        return len(self._rows if self._source is None else self._source)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(f"there are {len(self):,} records and no {index}")
        if self._source is None:
            return dict(zip(self.tops, self._rows[index], strict=True))  # type: ignore[index]
        image, label = self._source.sample(index, self._draw(index))
        return dict(zip(self.tops, (image, label if isinstance(label, np.ndarray) else np.float32(label)), strict=False))

    def batch(self, indices: Sequence[int]) -> dict[str, Array]:
        """Records as one array a top. As a `collate_fn` over a DataLoader of `range(len(samples))` it spares a copy."""
        if self._source is None:
            return {top: np.stack([self[i][top] for i in indices]) for top in self.tops}
        draws = np.stack([self._draw(i) for i in indices]) if self._source.transform.random else None  # type: ignore[misc]
        return dict(zip(self.tops, self._source.batch(indices, draws), strict=False))

    def _draw(self, index: int) -> Array | None:
        if self._source is None or not self._source.transform.random:
            return None
        return np.random.default_rng([self.seed, self.epoch, index]).random(3)


class _Hdf5Rows:
    """The rows of all files of an HDF5Data layer, in order; the files used last stay in memory."""

    def __init__(self, layer: Layer, paths: Paths) -> None:
        if layer.spec.has("transform_param"):
            raise DataError("HDF5Data does not transform its data; remove transform_param")
        listing = paths.find(layer.spec.hdf5_data_param.source)
        self.tops = layer.tops
        self.files = [paths.find(name, listing.parent) for name in hdf5.read_list(listing)]
        shapes = [hdf5.shapes(path, layer.tops) for path in self.files]
        for path, shape in zip(self.files, shapes, strict=True):
            if [s[1:] for s in shape] != [s[1:] for s in shapes[0]] or len({s[0] for s in shape}) != 1:
                raise DataError(f"{path}: its data sets are {list(shape)}; all must have as many rows, of the shape of the first file's")
        self._ends = np.cumsum([shape[0][0] for shape in shapes])
        self._loaded: OrderedDict[int, list[Array]] = OrderedDict()

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> list[Array]:
        file = int(np.searchsorted(self._ends, index, side="right"))
        if file not in self._loaded:
            self._loaded[file] = hdf5.load(self.files[file], self.tops)
            while len(self._loaded) > OPEN:
                self._loaded.popitem(last=False)
        self._loaded.move_to_end(file)
        row = index - (int(self._ends[file - 1]) if file else 0)
        return [array[row] for array in self._loaded[file]]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_loaded": OrderedDict()}
