"""Scale, Bias and Axpy: a factor or a summand broadcast over some axes, learned or from a second bottom."""

from __future__ import annotations

from math import prod
from typing import Any

from prototxt import NetError
from prototxt.message import new
from prototxt.net import Layer

from ..recipe import ParamBlob, Recipe, Shape
from ..registry import axis_of, filler, layer


@layer("Scale", bottoms=(1, 2))
def scale(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """x * scale (+ bias). The scale covers `num_axes` axes from `axis`: -1 all, 0 one number."""
    p = layer.spec.scale_param
    axis, shape = _covered(p, shapes)
    args: dict[str, Any] = {"axis": axis}
    blobs = []
    if len(shapes) == 1:
        blobs.append(ParamBlob("weight", shape, filler(p, "filler") or new("FillerParameter", type="constant", value=1.0)))
        args["shape"] = shape
    if p.bias_term:
        blobs.append(ParamBlob("bias", shape, filler(p, "bias_filler")))
    if len(shapes) == 2:
        args |= {"bias": shape} if p.bias_term else {}
        return Recipe("scale.ScaleBy", args, (shapes[0],), tuple(blobs), macs=prod(shapes[0]))
    return Recipe("scale.Scale", args | ({"bias": True} if p.bias_term else {}), shapes, tuple(blobs), macs=prod(shapes[0]))


@layer("Bias", bottoms=(1, 2))
def bias(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """x + bias, broadcast as Scale's factor is."""
    p = layer.spec.bias_param
    axis, shape = _covered(p, shapes)
    if len(shapes) == 2:
        return Recipe("scale.BiasBy", {"axis": axis}, (shapes[0],))
    return Recipe("scale.Bias", {"shape": shape, "axis": axis}, shapes, (ParamBlob("bias", shape, filler(p, "filler")),))


@layer("Axpy", bottoms=3)
def axpy(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """a x + y with a [N, C, 1, 1] or [N, C], x and y [N, C, H, W]: the fused form in squeeze-and-excitation nets."""
    a, x, y = shapes
    if len(x) < 2 or a[:2] != x[:2] or prod(a) != prod(x[:2]) or x != y:
        raise NetError(f"a {list(a)} must have one value for each channel of x {list(x)}, and y {list(y)} the shape of x")
    return Recipe("scale.Axpy", {}, (x,), macs=prod(x))


def _covered(p: Any, shapes: tuple[Shape, ...]) -> tuple[int, Shape]:
    """The first axis and the shape of what is broadcast."""
    if len(shapes) == 2:
        inner = shapes[1]
        axis = 0 if not inner else axis_of(p.axis, len(shapes[0]))
    else:
        axis = axis_of(p.axis, len(shapes[0]))
        if p.num_axes < -1:
            raise NetError(f"num_axes {p.num_axes}: at least -1, which means all")
        inner = shapes[0][axis:] if p.num_axes == -1 else shapes[0][axis : axis + p.num_axes]
        if len(inner) < p.num_axes:
            raise NetError(f"num_axes {p.num_axes} from axis {axis} reach beyond {list(shapes[0])}")
    if shapes[0][axis : axis + len(inner)] != inner:
        raise NetError(f"the second bottom {list(inner)} does not match {list(shapes[0])} from axis {axis}")
    return axis, inner
