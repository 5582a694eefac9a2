"""Losses. What each divides by is Caffe's (CASES: Losses)."""

from __future__ import annotations

from math import prod
from typing import Any

from prototxt import NetError
from prototxt.net import Layer

from ..recipe import Recipe, Shape
from ..registry import axis_of, layer


@layer("SoftmaxWithLoss", bottoms=2, tops=(1, 2), automatic=True)
def softmax_with_loss(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """Logits [N, C, ...] and labels [N, ...] -> (); a second top holds the probabilities."""
    axis = axis_of(layer.spec.softmax_param.axis, len(shapes[0]))
    _check_labels(shapes, axis)
    args = {"axis": axis, "normalization": _normalization(layer.spec.loss_param, "VALID"), **_ignored(layer)}
    if len(layer.tops) == 2:
        return Recipe("losses.SoftmaxWithLoss", args | {"probabilities": True}, ((), shapes[0]), macs=prod(shapes[0]))
    return Recipe("losses.SoftmaxWithLoss", args, ((),), macs=prod(shapes[0]))


@layer("SigmoidCrossEntropyLoss", bottoms=2, tops=(1, 2), automatic=True)
def sigmoid_cross_entropy_loss(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """Logits and targets of one count -> (); divides by the batch size unless told otherwise."""
    if prod(shapes[0]) != prod(shapes[1]):
        raise NetError(f"logits {list(shapes[0])} and targets {list(shapes[1])} must have the same count")
    args = {"normalization": _normalization(layer.spec.loss_param, "BATCH_SIZE"), **_ignored(layer)}
    if len(layer.tops) == 2:
        return Recipe("losses.SigmoidCrossEntropyLoss", args | {"probabilities": True}, ((), shapes[0]), macs=prod(shapes[0]))
    return Recipe("losses.SigmoidCrossEntropyLoss", args, ((),), macs=prod(shapes[0]))


@layer("EuclideanLoss", bottoms=2, automatic=True)
def euclidean_loss(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """sum (a - b)^2 / (2 N) -> (); shapes may differ behind axis 0 if the counts agree."""
    a, b = shapes
    if not a or not b or a[0] != b[0] or prod(a[1:]) != prod(b[1:]):
        raise NetError(f"{list(a)} and {list(b)} must have one batch size and one count behind it")
    return Recipe("losses.EuclideanLoss", {}, ((),), macs=prod(a))


def _normalization(p: Any, default: str) -> str:
    """`normalization`, else the older `normalize` (true: VALID, false: BATCH_SIZE), else the layer's own."""
    if p.has("normalization") or not p.has("normalize"):
        return str(p.normalization) if p.has("normalization") else default
    return "VALID" if p.normalize else "BATCH_SIZE"


def _ignored(layer: Layer) -> dict[str, Any]:
    p = layer.spec.loss_param
    return {"ignore_label": p.ignore_label} if p.has("ignore_label") else {}


def _check_labels(shapes: tuple[Shape, ...], axis: int) -> None:
    wanted = prod(shapes[0][:axis]) * prod(shapes[0][axis + 1 :])
    if prod(shapes[1]) != wanted:
        raise NetError(f"{prod(shapes[1])} labels {list(shapes[1])} for {wanted} predictions {list(shapes[0])} along axis {axis}")
