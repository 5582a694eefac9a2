"""The shapes of a data layer's tops, looked up in its source where that is at hand."""

from __future__ import annotations

from pathlib import Path

from ..net import Layer
from . import hdf5
from .databases import Records, open_database
from .lists import Pictures
from .paths import Paths
from .transform import Transform

Shape = tuple[int, ...]


def record_shape(layer: Layer, *, root: Path | None = None) -> dict[str, Shape] | None:
    """{top: shape} of a Data, ImageData or HDF5Data layer by its first record; None if the source is not there, or a fork's field changes it.

    The source is tried from the working directory, then from the layer's own folder. DataError or FileProblem if it cannot be read.
    """
    reader = {"Data": _data, "ImageData": _image_data, "HDF5Data": _hdf5_data}.get(layer.type)
    return reader(layer, Paths(layer.folder, root)) if reader else None


def _at_hand(source: str, paths: Paths) -> Path | None:
    path = paths.find(source) if source else None
    return path if path is not None and path.exists() else None


def _transform(layer: Layer) -> Transform | None:
    """What of a transform_param tells in shapes; None where a fork's field is written."""
    t = layer.spec.transform_param
    if t.unknown or any(field.fork for field, _ in t.written()):
        return None
    return Transform(crop=t.crop_size, force_color=t.force_color, force_gray=t.force_gray)


def _data(layer: Layer, paths: Paths) -> dict[str, Shape] | None:
    p = layer.spec.data_param
    path, transform = _at_hand(p.source, paths), _transform(layer)
    if path is None or transform is None:
        return None
    return _images(layer, p.batch_size, Records(open_database(path, p.backend), transform).size())


def _image_data(layer: Layer, paths: Paths) -> dict[str, Shape] | None:
    p = layer.spec.image_data_param
    path, transform = _at_hand(p.source, paths), _transform(layer)
    if path is None or transform is None:
        return None
    size = (p.new_height, p.new_width) if p.new_height and p.new_width else None
    pictures = Pictures(path, transform, root_folder=p.root_folder, color=p.is_color, size=size, paths=paths)
    return _images(layer, p.batch_size, pictures.size())


def _hdf5_data(layer: Layer, paths: Paths) -> dict[str, Shape] | None:
    p = layer.spec.hdf5_data_param
    path = _at_hand(p.source, paths)
    if path is None:
        return None
    first = paths.find(hdf5.read_list(path)[0], path.parent)
    return {top: (p.batch_size, *shape[1:]) for top, shape in zip(layer.tops, hdf5.shapes(first, layer.tops), strict=True)}


def _images(layer: Layer, batch_size: int, size: Shape) -> dict[str, Shape]:
    return dict(zip(layer.tops, ((batch_size, *size), (batch_size,)), strict=False))
