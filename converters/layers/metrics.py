"""Accuracy, and SegAccuracy of the segmentation forks."""

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
    if p.top_k > shapes[0][axis]:
        raise NetError(f"top_k {p.top_k} of {shapes[0][axis]} classes")
    args: dict[str, Any] = {"axis": axis, "top_k": p.top_k}
    args |= {"ignore_label": p.ignore_label} if p.has("ignore_label") else {}
    if len(layer.tops) == 2:
        return Recipe("metrics.Accuracy", args | {"per_class": True}, ((), (shapes[0][axis],)))
    return Recipe("metrics.Accuracy", args, ((),))


@layer("SegAccuracy", bottoms=2, tops=(1, None))
def seg_accuracy(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """Scores [N, C, H, W] and labels [N, 1, H, W] -> [1, 1, 1, 3]: accuracy, mean recall, mean Jaccard index; a further top for each output_label."""
    p = layer.spec.seg_accuracy_param
    if not p.get("reset", True) or p.has("metric"):
        raise NetError("seg_accuracy_param { reset: false } and { metric } have no rule here")
    x, label = shapes
    if len(x) != 4 or x[1] < 2 or label != (x[0], 1, *x[2:]):
        raise NetError(f"takes scores [N, C, H, W] of 2 classes or more and labels [N, 1, H, W], not {list(x)} and {list(label)}")
    listed = p.get("output_label", [])
    outputs = tuple(listed) if isinstance(listed, list) else (listed,)
    if len(layer.tops) != len(outputs) + 1 or any(not 0 <= k < x[1] for k in outputs):
        raise NetError(f"{len(layer.tops)} tops and {len(outputs)} output_label: one top more, and each label below {x[1]}")
    args: dict[str, Any] = {"ignored": tuple(p.ignore_label)} | ({"outputs": outputs} if outputs else {})
    return Recipe("metrics.SegAccuracy", args, ((1, 1, 1, 3),) * len(layer.tops))
