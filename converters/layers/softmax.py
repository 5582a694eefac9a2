"""Softmax and ArgMax."""

from __future__ import annotations

from math import prod

from prototxt import NetError
from prototxt.net import Layer

from ..recipe import Recipe, Shape
from ..registry import axis_of, layer


@layer("Softmax")
def softmax(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """exp(x) / sum exp(x) along `axis`, 1 by default on maps too."""
    return Recipe("nn.Softmax", {"dim": axis_of(layer.spec.softmax_param.axis, len(shapes[0]))}, shapes)


@layer("ArgMax")
def arg_max(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """Without axis [N, ...] -> [N, 1 or 2, k, 1...]: indices, and values with out_max_val. With axis k along it."""
    p, shape = layer.spec.argmax_param, shapes[0]
    if p.top_k < 1:
        raise NetError("top_k must be at least 1")
    args = {"top_k": p.top_k, "values": p.out_max_val}
    if p.has("axis"):
        axis = axis_of(p.axis, len(shape))
        size, top = shape[axis], (*shape[:axis], p.top_k, *shape[axis + 1 :])
        args["axis"] = axis
    elif not shape:
        raise NetError("without axis it takes a blob of at least 1 axis, not a single value")
    else:
        size = prod(shape[1:])
        top = (shape[0], 2 if p.out_max_val else 1, p.top_k, *(1,) * (len(shape) - 3))
    if p.top_k > size:
        raise NetError(f"top_k {p.top_k} of {size} values")
    return Recipe("metrics.ArgMax", args, (top,))
