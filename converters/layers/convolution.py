"""Convolution and Deconvolution, 1-D to 3-D, grouped and dilated; several bottoms share one set of weights. Im2col of any dimension.

Caffe rounds the output size down. Weights: [out, in / group, k...]; of a Deconvolution [in, out / group, k...], as torch has them.
"""

from __future__ import annotations

from math import prod
from typing import Any

from prototxt import NetError, UnsupportedLayer
from prototxt.net import Layer

from ..recipe import ParamBlob, Recipe, Shape
from ..registry import axis_of, filler, layer


@layer("Convolution", "DepthwiseConvolution", "ConvolutionDepthwise", "HoleConvolution", bottoms=(1, None), tops=(1, None), equal_counts=True,
       in_place="a convolution cannot overwrite what it reads")  # fmt: skip
def convolution(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """[N, C, spatial...] -> [N, num_output, floor((in + 2 pad - extent) / stride) + 1 ...]."""
    return _recipe(layer, shapes, transposed=False)


@layer("Deconvolution", bottoms=(1, None), tops=(1, None), equal_counts=True, in_place="a deconvolution cannot overwrite what it reads")
def deconvolution(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """[N, C, spatial...] -> [N, num_output, stride (in - 1) + extent - 2 pad ...]."""
    return _recipe(layer, shapes, transposed=True)


@layer("Im2col", in_place="the patches have another shape")
def im2col(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """[N, C, spatial...] -> [N, C k..., out...]: the patch under each place of a kernel, channel by channel."""
    p, shape = layer.spec.convolution_param, shapes[0]
    axis = axis_of(p.axis, len(shape))
    spatial = len(shape) - axis - 1
    if spatial < 1:
        raise NetError(f"{list(shape)} has no axes behind the channels, axis {axis}")
    kernel, stride, pad, dilation = _window(p, spatial)
    size = tuple(map(_size, shape[axis + 1 :], kernel, stride, pad, dilation))
    _check_fit(size, kernel, pad, shape[axis + 1 :])
    args = {"axis": axis, "kernel_size": kernel, "stride": stride, "padding": pad, "dilation": dilation}
    return Recipe("convolution.Im2col", args, ((*shape[:axis], shape[axis] * prod(kernel), *size),))


def _recipe(layer: Layer, shapes: tuple[Shape, ...], *, transposed: bool) -> Recipe:
    p = layer.spec.convolution_param
    shape = shapes[0]
    axis = axis_of(p.axis, len(shape))
    spatial = len(shape) - axis - 1
    if not 1 <= spatial <= 3:
        raise NetError(f"convolves {spatial} axes of {list(shape)} behind axis {axis}; torch convolves 1 to 3")
    if any(other != shape for other in shapes):
        raise NetError(f"its bottoms share one set of weights, so their shapes must be equal: {', '.join(str(list(s)) for s in shapes)}")
    kernel, stride, pad, dilation = _window(p, spatial)
    channels, out, group = shape[axis], p.num_output, p.group
    if layer.type == "ConvolutionDepthwise":
        out = group = _depthwise(p, channels)
    elif layer.type == "DepthwiseConvolution" and not p.has("group"):
        group = channels
    if out < 1:
        raise NetError("num_output is missing or 0")
    if group < 1 or channels % group or out % group:
        raise NetError(f"{channels} channels and num_output {out} cannot be divided into {group} groups")
    size = tuple(map(_transposed_size if transposed else _size, shape[axis + 1 :], kernel, stride, pad, dilation))
    _check_fit(size, kernel, pad, shape[axis + 1 :])
    top = (*shape[:axis], out, *size)
    first, second = (channels, out // group) if transposed else (out, channels // group)
    blobs = [ParamBlob("weight", (first, second, *kernel), filler(p, "weight_filler"))]
    if p.bias_term:
        blobs.append(ParamBlob("bias", (out,), filler(p, "bias_filler")))
    args: dict[str, Any] = {"in_channels": channels, "out_channels": out, "kernel_size": _one(kernel)}
    args |= {name: _one(v) for name, v, usual in (("stride", stride, 1), ("padding", pad, 0), ("dilation", dilation, 1)) if set(v) != {usual}}
    args |= {"groups": group} if group != 1 else {}
    args |= {"bias": False} if not p.bias_term else {}
    name = f"Conv{'Transpose' if transposed else ''}{spatial}d"
    short = not transposed and any(_extent(k, d) > i + 2 * q for i, k, q, d in zip(shape[axis + 1 :], kernel, pad, dilation, strict=True))
    module = f"nn.{name}" if len(shapes) == 1 and axis <= 1 and not short else f"convolution.{name}Each"
    args |= {"axis": axis} if axis > 1 else {}
    args |= {"short": True} if short else {}
    macs = prod(shape[:axis]) * first * second * prod(kernel) * prod(shape[axis + 1 :] if transposed else size) * len(shapes)
    return Recipe(module, args, (top,) * len(shapes), tuple(blobs), macs)


def _depthwise(p: Any, channels: int) -> int:
    """One filter for each channel, whatever num_output and group say; another fork reads these."""
    for name in ("num_output", "group"):
        if p.has(name) and getattr(p, name) != channels:
            raise UnsupportedLayer(
                f"{name} {getattr(p, name)} of {channels} channels: one fork's ConvolutionDepthwise makes one filter for each channel whatever it "
                "says, another's does what it says; write Convolution for the second"
            )
    return channels


def _window(p: Any, spatial: int) -> tuple[tuple[int, ...], ...]:
    """Kernel size, stride, pad and dilation, each for every spatial axis."""
    kernel = _sizes(p, "kernel_size", "kernel", spatial, None)
    stride = _sizes(p, "stride", "stride", spatial, 1)
    pad = _sizes(p, "pad", "pad", spatial, 0)
    dilation = _sizes(p, "dilation", None, spatial, 1)
    if p.has("hole") or p.has("hole_h") or p.has("hole_w"):  # DeepLab's older name
        if p.dilation:
            raise NetError("has dilation and the older hole; write one of the two")
        dilation = (p.hole,) * spatial if p.has("hole") else (p.get("hole_h", 1), p.get("hole_w", 1))
    for name, sizes, least in (("kernel_size", kernel, 1), ("stride", stride, 1), ("pad", pad, 0), ("dilation", dilation, 1)):
        if min(sizes) < least:
            raise NetError(f"{name} {list(sizes)}: each must be at least {least}")
    return kernel, stride, pad, dilation


def _check_fit(size: tuple[int, ...], kernel: tuple[int, ...], pad: tuple[int, ...], image: tuple[int, ...]) -> None:
    if min(size) < 1:
        raise NetError(f"a kernel of {list(kernel)} does not fit into {list(image)} with pad {list(pad)}")


def _sizes(p: Any, name: str, pair: str | None, spatial: int, default: int | None) -> tuple[int, ...]:
    """One number for all axes, one for each, or `_h` and `_w`."""
    if pair and (p.has(f"{pair}_h") or p.has(f"{pair}_w")):
        if spatial != 2:
            raise NetError(f"{pair}_h and {pair}_w are for 2 spatial axes, here are {spatial}")
        if p.has(name):
            raise NetError(f"has {name} and {pair}_h or {pair}_w; write one of the two")
        return (getattr(p, f"{pair}_h"), getattr(p, f"{pair}_w"))
    listed = tuple(getattr(p, name))
    if not listed and default is None:
        raise NetError("kernel_size is missing")
    if len(listed) not in (0, 1, spatial):
        raise NetError(f"{len(listed)} values of {name} for {spatial} spatial axes: one, or one for each")
    return (default or 0,) * spatial if not listed else listed * spatial if len(listed) == 1 else listed


def _extent(kernel: int, dilation: int) -> int:
    return dilation * (kernel - 1) + 1


def _one(sizes: tuple[int, ...]) -> int | tuple[int, ...]:
    """One number where all axes have the same, as a person would write it."""
    return sizes[0] if len(set(sizes)) == 1 else sizes


def _size(size: int, kernel: int, stride: int, pad: int, dilation: int) -> int:
    """Cut towards zero: of an image that lacks less than a stride, C's division makes one window, and Caffe fills it with zeros."""
    span = size + 2 * pad - _extent(kernel, dilation)
    return (span // stride if span >= 0 else -(-span // stride)) + 1


def _transposed_size(size: int, kernel: int, stride: int, pad: int, dilation: int) -> int:
    return stride * (size - 1) + _extent(kernel, dilation) - 2 * pad
