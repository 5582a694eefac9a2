"""Layers that bring values in: Input and the data layers, which become inputs of the module; DummyData and Parameter, which make them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from prototxt import NetError
from prototxt.data.fillers import check as check_filler
from prototxt.message import new
from prototxt.net import Layer

from ..recipe import ParamBlob, Recipe, Shape
from ..registry import Inputs, layer


@layer("Input", bottoms=0, tops=(1, None))
def input_(layer: Layer, shapes: tuple[Shape, ...]) -> Inputs:
    """One shape for all tops, or one for each."""
    written = [tuple(shape.dim) for shape in layer.spec.input_param.shape]
    if len(written) not in (1, len(layer.tops)):
        raise NetError(f"{len(written)} shapes for {len(layer.tops)} tops: one for all, or one for each")
    if any(d < 0 for shape in written for d in shape):
        raise NetError(f"a shape with a negative axis: {[list(s) for s in written]}")
    return Inputs(tuple(written * len(layer.tops) if len(written) == 1 else written))


@layer("Data", "AnnotatedData", bottoms=0, tops=(1, 2))
def data(layer: Layer, shapes: tuple[Shape, ...]) -> Inputs:
    """A database of Datum: images [batch, C, crop, crop] and labels [batch]."""
    return _images(layer, layer.spec.data_param)


@layer("ImageData", bottoms=0, tops=(1, 2))
def image_data(layer: Layer, shapes: tuple[Shape, ...]) -> Inputs:
    """A list of image files: [batch, 3, H, W] and labels [batch]."""
    p = layer.spec.image_data_param
    size = (p.new_height, p.new_width) if p.new_height and p.new_width else None
    return _images(layer, p, size=size, channels=3 if p.is_color else 1)


@layer("WindowData", bottoms=0, tops=2)
def window_data(layer: Layer, shapes: tuple[Shape, ...]) -> Inputs:
    """Windows of images, warped to crop_size: [batch, 3, crop, crop] and labels [batch]."""
    p = layer.spec.window_data_param
    return _images(layer, p, channels=3, crop=p.crop_size)


@layer("MemoryData", bottoms=0, tops=2)
def memory_data(layer: Layer, shapes: tuple[Shape, ...]) -> Inputs:
    """Arrays handed over by the program: [batch, C, H, W] and labels [batch]."""
    p = layer.spec.memory_data_param
    shape = (p.batch_size, p.channels, p.height, p.width)
    if min(shape) < 1:
        raise NetError(f"batch_size, channels, height and width must be above 0, not {list(shape)}")
    return Inputs((shape, (p.batch_size,)))


@layer("HDF5Data", bottoms=0, tops=(1, None))
def hdf5_data(layer: Layer, shapes: tuple[Shape, ...]) -> Inputs:
    """Data sets of HDF5 files, one for each top, of any shape."""
    if layer.spec.has("transform_param"):
        raise NetError("HDF5Data does not transform its data; remove transform_param")
    found = _at_hand(layer)
    return Inputs(tuple(found.get(top) for top in layer.tops))


def _at_hand(layer: Layer) -> dict[str, Shape]:
    """The shapes of the tops as the layer's source has them, if it is there."""
    from prototxt.data import record_shape

    return record_shape(replace(layer, spec=layer.spec.untracked)) or {}  # type: ignore[attr-defined]


def _images(layer: Layer, p: Any, *, size: tuple[int, int] | None = None, channels: int | None = None, crop: int = 0) -> Inputs:
    """Shapes as far as the net says them; the records themselves would say more, but they are seldom at hand."""
    t = layer.spec.transform_param.message
    crop = t.crop_size or crop or getattr(p, "crop_size", 0)
    p.message  # noqa: B018  the rest concerns the reader of the data, not the net
    for fork in ("annotated_data_param",):
        if layer.spec.has(fork):
            getattr(layer.spec, fork).message  # noqa: B018
    labels: tuple[Shape | None, ...] = ((p.batch_size,),) if layer.type != "AnnotatedData" else (None,)
    labels = labels[: len(layer.tops) - 1]
    found = _at_hand(layer)
    if found:
        return Inputs(tuple(found[top] for top in layer.tops))
    if not crop and size is None:
        return Inputs((None, *labels))
    height, width = (crop, crop) if crop else size or (0, 0)
    assumed = channels is None and not t.force_gray and len(t.mean_value) != 3
    count = channels or (1 if t.force_gray else 3)
    note = f"the records are not at hand; 3 channels are assumed for {layer.tops[0]!r}" if assumed else ""
    return Inputs(((p.batch_size, count, height, width), *labels), note)


@layer("CPMData", "DenseImageData", "ImageSegData", "MultiLabelImageData", "SegData", "VideoData", bottoms=0, tops=(1, None),
       differs="becomes inputs of given shapes; the file that a fork reads is not read")  # fmt: skip
def data_of_forks(layer: Layer, shapes: tuple[Shape, ...]) -> Inputs:
    """Whatever a fork reads: its shapes must be given."""
    layer.spec.message  # noqa: B018  all of it concerns the reader of the data, not the net
    return Inputs((None,) * len(layer.tops))


@layer("HDF5Output", bottoms=2, tops=0, differs="writes no file; its bottoms are among what net.blobs gives")
def hdf5_output(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """Two blobs of one batch size, which Caffe writes to a file."""
    p = layer.spec.hdf5_output_param
    if not p.file_name:
        raise NetError("hdf5_output_param must name its file_name")
    if not all(shapes) or shapes[0][0] != shapes[1][0]:
        raise NetError(f"{list(shapes[0])} and {list(shapes[1])} must have one batch size")
    return Recipe("shape.Silence", {}, ())


@layer("DummyData", bottoms=0, tops=(1, None))
def dummy_data(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """Tops filled by fillers: a constant one once, a random one anew in each pass."""
    p = layer.spec.dummy_data_param
    tops, fillers = len(layer.tops), [f.message for f in p.data_filler]
    if len(fillers) not in (0, 1, tops):
        raise NetError(f"{len(fillers)} data_filler for {tops} tops: none, one for all, or one for each")
    legacy = [list(getattr(p, name)) for name in ("num", "channels", "height", "width")]
    if p.shape and any(legacy):
        raise NetError("has shape and the older num, channels, height, width; write one of the two")
    listed = [tuple(s.dim) for s in p.shape] or list(zip(*[d * tops if len(d) == 1 else d for d in legacy], strict=False))
    if len(listed) not in (1, tops) or any(len(d) not in (1, tops) for d in legacy if d):
        raise NetError(f"{len(listed)} shapes for {tops} tops: one for all, or one for each")
    made = tuple(listed * tops if len(listed) == 1 else listed)
    each = fillers * tops if len(fillers) == 1 else fillers or [new("FillerParameter")] * tops
    for message, shape in zip(each, made, strict=True):
        check_filler(message, shape)
    settings = tuple(_settings(message) for message in each)
    return Recipe("data.DummyData", {"shapes": made, "fillers": settings}, made)


_FILLER_FIELDS = {"constant": ("value",), "uniform": ("min", "max"), "gaussian": ("mean", "std", "sparse")} | dict.fromkeys(
    ("xavier", "msra"), ("variance_norm",)
)


def _settings(message: Any) -> tuple[tuple[str, Any], ...]:
    """A filler as literals, with the fields that its type reads: (("type", "gaussian"), ("std", 0.1))."""
    names = _FILLER_FIELDS.get(message.type, ())
    return (("type", message.type), *((field.name, value) for field, value in message.written() if field.name in names))


@layer("Parameter", bottoms=0)
def parameter(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """The parameter blob itself is the top."""
    shape = tuple(layer.spec.parameter_param.shape.dim)
    return Recipe("data.Parameter", {"shape": shape}, (shape,), (ParamBlob("weight", shape),))
