"""Eltwise: SUM with coefficients, PROD, MAX of blobs of one shape."""

from __future__ import annotations

from math import prod

from prototxt import NetError
from prototxt.net import Layer

from ..recipe import Recipe, Shape
from ..registry import layer


@layer("Eltwise", bottoms=(2, None), in_place="Eltwise in place clears its top, which is its first bottom (layers/Eltwise/in-place-sum)")
def eltwise(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """Blobs of one shape -> one of the same shape; MAX gives a tie of the first two to the second."""
    p = layer.spec.eltwise_param
    for name, shape in zip(layer.bottoms, shapes, strict=True):
        if shape != shapes[0]:
            raise NetError(f"bottoms {layer.bottoms[0]!r} {list(shapes[0])} and {name!r} {list(shape)} must have one shape")
    if p.coeff and p.operation == "PROD":
        raise NetError("coeff are for SUM, not for PROD")
    if p.coeff and len(p.coeff) != len(shapes):
        raise NetError(f"{len(p.coeff)} coeff for {len(shapes)} bottoms: one for each, or none")
    macs = prod(shapes[0]) * (len(shapes) - 1)
    if p.operation == "SUM":
        return Recipe("eltwise.Sum", {"coefficients": tuple(p.coeff)} if p.coeff else {}, (shapes[0],), macs=macs)
    if p.operation == "PROD":
        return Recipe("eltwise.Product", {}, (shapes[0],), macs=macs)
    if p.operation == "MAX":
        return Recipe("eltwise.Maximum", {}, (shapes[0],), note="coeff mean nothing to MAX" if p.coeff else "")
    raise NetError(f"operation {p.operation} is a fork's; BVLC Caffe knows PROD, SUM and MAX")
