"""Convolution and Deconvolution, 1-D to 3-D, grouped and dilated; several bottoms share one set of weights.

Caffe rounds the output size down. Weights: [out, in / group, k...]; of a Deconvolution [in, out / group, k...], as torch has them.
"""

from __future__ import annotations

from math import prod
from typing import Any

from prototxt import NetError
from prototxt.net import Layer

from ..recipe import ParamBlob, Recipe, Shape
from ..registry import axis_of, filler, layer


@layer("Convolution", "DepthwiseConvolution", "ConvolutionDepthwise", bottoms=(1, None), tops=(1, None), equal_counts=True,
       in_place="a convolution cannot overwrite what it reads")  # fmt: skip
def convolution(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """[N, C, spatial...] -> [N, num_output, floor((in + 2 pad - extent) / stride) + 1 ...]."""
    return _recipe(layer, shapes, transposed=False)


@layer("Deconvolution", bottoms=(1, None), tops=(1, None), equal_counts=True, in_place="a deconvolution cannot overwrite what it reads")
def deconvolution(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """[N, C, spatial...] -> [N, num_output, stride (in - 1) + extent - 2 pad ...]."""
    return _recipe(layer, shapes, transposed=True)


def _recipe(layer: Layer, shapes: tuple[Shape, ...], *, transposed: bool) -> Recipe:
    p = layer.spec.convolution_param
    shape = shapes[0]
    axis = axis_of(p.axis, len(shape))
    spatial = len(shape) - axis - 1
    if not 1 <= spatial <= 3:
        raise NetError(f"convolves {spatial} axes of {list(shape)} behind axis {axis}; torch convolves 1 to 3")
    if any(other != shape for other in shapes):
        raise NetError(f"its bottoms share one set of weights, so their shapes must be equal: {', '.join(str(list(s)) for s in shapes)}")
    kernel = _sizes(p, "kernel_size", "kernel", spatial, None)
    stride = _sizes(p, "stride", "stride", spatial, 1)
    pad = _sizes(p, "pad", "pad", spatial, 0)
    dilation = _sizes(p, "dilation", None, spatial, 1)
    for name, sizes, least in (("kernel_size", kernel, 1), ("stride", stride, 1), ("pad", pad, 0), ("dilation", dilation, 1)):
        if min(sizes) < least:
            raise NetError(f"{name} {list(sizes)}: each must be at least {least}")
    channels, out = shape[axis], p.num_output
    group = channels if layer.type != "Convolution" and not transposed and not p.has("group") else p.group
    if out < 1:
        raise NetError("num_output is missing or 0")
    if group < 1 or channels % group or out % group:
        raise NetError(f"{channels} channels and num_output {out} cannot be divided into {group} groups")
    size = tuple(map(_transposed_size if transposed else _size, shape[axis + 1 :], kernel, stride, pad, dilation))
    if min(size) < 1:
        raise NetError(f"a kernel of {list(kernel)} does not fit into {list(shape[axis + 1 :])} with pad {list(pad)}")
    top = (*shape[:axis], out, *size)
    first, second = (channels, out // group) if transposed else (out, channels // group)
    blobs = [ParamBlob("weight", (first, second, *kernel), filler(p, "weight_filler"))]
    if p.bias_term:
        blobs.append(ParamBlob("bias", (out,), filler(p, "bias_filler")))
    args: dict[str, Any] = {"in_channels": channels, "out_channels": out, "kernel_size": kernel}
    args |= {name: v for name, v, usual in (("stride", stride, 1), ("padding", pad, 0), ("dilation", dilation, 1)) if set(v) != {usual}}
    args |= {"groups": group} if group != 1 else {}
    args |= {"bias": False} if not p.bias_term else {}
    name = f"Conv{'Transpose' if transposed else ''}{spatial}d"
    module = f"nn.{name}" if len(shapes) == 1 and axis <= 1 else f"convolution.{name}Each"
    if axis > 1:
        args["axis"] = axis
    macs = prod(shape[:axis]) * first * second * prod(kernel) * prod(shape[axis + 1 :] if transposed else size) * len(shapes)
    return Recipe(module, args, (top,) * len(shapes), tuple(blobs), macs)


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


def _size(size: int, kernel: int, stride: int, pad: int, dilation: int) -> int:
    return (size + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1


def _transposed_size(size: int, kernel: int, stride: int, pad: int, dilation: int) -> int:
    return stride * (size - 1) + dilation * (kernel - 1) + 1 - 2 * pad
