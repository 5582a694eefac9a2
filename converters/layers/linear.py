"""InnerProduct and Embed: weights times everything behind an axis, and rows of a table."""

from __future__ import annotations

from math import prod
from typing import Any

from prototxt import NetError
from prototxt.net import Layer

from ..recipe import ParamBlob, Recipe, Shape
from ..registry import axis_of, filler, layer


@layer("InnerProduct", in_place="an inner product cannot overwrite what it reads")
def inner_product(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """[N, ...] -> [N, num_output]; `axis` and everything behind it is flattened. With `transpose` the weight is [in, out]."""
    p = layer.spec.inner_product_param
    axis = axis_of(p.axis, len(shapes[0]))
    fan_in, out = prod(shapes[0][axis:]), p.num_output
    if out < 1:
        raise NetError("num_output is missing or 0")
    weight = (fan_in, out) if p.transpose else (out, fan_in)
    blobs = [ParamBlob("weight", weight, filler(p, "weight_filler"))]
    if p.bias_term:
        blobs.append(ParamBlob("bias", (out,), filler(p, "bias_filler")))
    args: dict[str, Any] = {"in_features": fan_in, "out_features": out}
    args |= {"bias": False} if not p.bias_term else {}
    plain = not p.transpose and axis == len(shapes[0]) - 1
    if not plain:
        args |= {"axis": axis} if axis != 1 else {}
        args |= {"transpose": True} if p.transpose else {}
    top = (*shapes[0][:axis], out)
    return Recipe("nn.Linear" if plain else "linear.InnerProduct", args, (top,), tuple(blobs), prod(top) * fan_in)


@layer("Embed")
def embed(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """[...] indices as floats -> [..., num_output]; unlike nn.Embedding there may be a bias."""
    p = layer.spec.embed_param
    if p.num_output < 1 or p.input_dim < 1:
        raise NetError("num_output and input_dim must be above 0")
    blobs = [ParamBlob("weight", (p.input_dim, p.num_output), filler(p, "weight_filler"))]
    if p.bias_term:
        blobs.append(ParamBlob("bias", (p.num_output,), filler(p, "bias_filler")))
    args = {"rows": p.input_dim, "columns": p.num_output, "bias": p.bias_term}
    return Recipe("linear.Embed", args, ((*shapes[0], p.num_output),), tuple(blobs))
