"""Reduction: a sum, a sum of magnitudes or squares, or a mean over the last axes."""

from __future__ import annotations

from math import prod
from typing import Any

from prototxt import NetError
from prototxt.net import Layer

from ..recipe import Recipe, Shape
from ..registry import axis_of, layer

OPERATIONS = ("SUM", "ASUM", "SUMSQ", "MEAN")


@layer("Reduction")
def reduction(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """The axes from `axis` to the last become one number, times `coeff`; from axis 0 on the top is 0-d."""
    p = layer.spec.reduction_param
    if p.operation not in OPERATIONS:
        raise NetError(f"operation {p.operation} is a fork's; BVLC Caffe knows {', '.join(OPERATIONS)}")
    axis = axis_of(p.axis, len(shapes[0]))
    args: dict[str, Any] = {"operation": p.operation, "axis": axis}
    args |= {"coefficient": p.coeff} if p.coeff != 1 else {}
    return Recipe("reduction.Reduction", args, (shapes[0][:axis],), macs=prod(shapes[0]))
