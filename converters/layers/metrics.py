"""Accuracy."""

from __future__ import annotations

from math import prod
from typing import Any

from prototxt import NetError
from prototxt.net import Layer

from ..recipe import Recipe, Shape
from ..registry import axis_of, layer


@layer("Accuracy", bottoms=2, tops=(1, 2))
def accuracy(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """Scores [N, C, ...] and labels [N, ...] -> (); a second top [C] holds each class's own. A tie with the true class is a miss."""
    p = layer.spec.accuracy_param
    axis = axis_of(p.axis, len(shapes[0]))
    wanted = prod(shapes[0][:axis]) * prod(shapes[0][axis + 1 :])
    if prod(shapes[1]) != wanted:
        raise NetError(f"{prod(shapes[1])} labels {list(shapes[1])} for {wanted} predictions {list(shapes[0])} along axis {axis}")
    if p.top_k > prod(shapes[0][axis:]):
        raise NetError(f"top_k {p.top_k} of {shapes[0][axis]} classes")
    args: dict[str, Any] = {"axis": axis, "top_k": p.top_k}
    args |= {"ignore_label": p.ignore_label} if p.has("ignore_label") else {}
    if len(layer.tops) == 2:
        return Recipe("metrics.Accuracy", args | {"per_class": True}, ((), (shapes[0][axis],)))
    return Recipe("metrics.Accuracy", args, ((),))
