"""Losses. What each divides by is Caffe's (CASES: Losses)."""

from __future__ import annotations

from math import prod
from typing import Any

from prototxt import DecantError, NetError, WeightsError
from prototxt.files import find_file, read_file
from prototxt.net import Layer
from prototxt.wire import Wire

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
    if prod(shapes[0]) != prod(shapes[1]) or not shapes[0] or shapes[0][:1] != shapes[1][:1]:
        raise NetError(f"logits {list(shapes[0])} and targets {list(shapes[1])} must have one batch size and the same count")
    args = {"normalization": _normalization(layer.spec.loss_param, "BATCH_SIZE"), **_ignored(layer)}
    if len(layer.tops) == 2:
        return Recipe("losses.SigmoidCrossEntropyLoss", args | {"probabilities": True}, ((), shapes[0]), macs=prod(shapes[0]))
    return Recipe("losses.SigmoidCrossEntropyLoss", args, ((),), macs=prod(shapes[0]))


@layer("EuclideanLoss", bottoms=2, automatic=True)
def euclidean_loss(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """sum (a - b)^2 / (2 N) -> (); shapes may differ behind axis 0 if the counts agree."""
    a, b = shapes
    _check_batch(layer, shapes)
    if prod(a[1:]) != prod(b[1:]):
        raise NetError(f"{list(a)} and {list(b)} must have one batch size and one count behind it")
    return Recipe("losses.EuclideanLoss", {}, ((),), macs=prod(a))


@layer("HingeLoss", bottoms=2, automatic=True)
def hinge_loss(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """Scores [N, ...] and labels [N] -> (): each class against all others; every axis behind the first is classes."""
    _check_batch(layer, shapes)
    norm = layer.spec.hinge_loss_param.norm
    return Recipe("losses.HingeLoss", {"squared": True} if norm == "L2" else {}, ((),), macs=prod(shapes[0]))


@layer("MultinomialLogisticLoss", bottoms=2, automatic=True)
def multinomial_logistic_loss(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """Probabilities [N, ...] and labels [N] or [N, 1, 1, 1] -> (): the mean of -log p[label]."""
    _check_batch(layer, shapes)
    if prod(shapes[1][1:]) != 1:
        raise NetError(f"labels {list(shapes[1])} must hold one value a sample")
    return Recipe("losses.MultinomialLogisticLoss", {}, ((),), macs=prod(shapes[0]))


@layer("ContrastiveLoss", bottoms=3, automatic=True)
def contrastive_loss(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """Two features [N, C] or [N, C, 1, 1] and whether they are similar [N] -> (); a dissimilar pair costs (margin - distance)^2."""
    p = layer.spec.contrastive_loss_param
    _check_batch(layer, shapes)
    a, b, similar = shapes
    if a[1:2] != b[1:2] or prod(a[2:]) != 1 or prod(b[2:]) != 1:
        raise NetError(f"features {list(a)} and {list(b)} must be [N, C] or [N, C, 1, 1] of one size")
    if not similar or similar[0] < a[0] or prod(similar[1:]) != 1:
        raise NetError(f"{list(similar)} must hold one value for each of the {a[0]} pairs")
    args: dict[str, Any] = {"margin": p.margin}
    return Recipe("losses.ContrastiveLoss", args | ({"legacy": True} if p.legacy_version else {}), ((),), macs=prod(a))


@layer("InfogainLoss", bottoms=(2, 3), tops=(1, 2), automatic=True)
def infogain_loss(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """Logits [N, C, ...], labels [N, ...] and a matrix of C x C, from a file or the third bottom -> (); a second top holds the probabilities."""
    axis = axis_of(layer.spec.infogain_loss_param.axis, len(shapes[0]))
    _check_labels(shapes, axis)
    classes = shapes[0][axis]
    args: dict[str, Any] = {"axis": axis, "normalization": _normalization(layer.spec.loss_param, "VALID"), **_ignored(layer)}
    constants: dict[str, Any] = {}
    if len(shapes) == 2:
        args |= {"classes": classes}
        constants["matrix"] = _matrix(layer, classes)
    elif prod(shapes[2]) != classes**2:
        raise NetError(f"the matrix {list(shapes[2])} must have {classes} x {classes} values, one row a class")
    args |= {"probabilities": True} if len(layer.tops) == 2 else {}
    tops = ((), shapes[0])[: len(layer.tops)]
    return Recipe("losses.InfogainLoss", args, tops, macs=prod(shapes[0]) * classes, constants=constants)


def _matrix(layer: Layer, classes: int) -> Any:
    """The infogain matrix of a .binaryproto."""
    p = layer.spec.infogain_loss_param
    if not p.has("source"):
        raise NetError("needs a matrix: name its .binaryproto by infogain_loss_param { source }, or give it as third bottom")
    path = find_file(p.source, layer.folder)
    try:
        data = read_file(path)
        blob = Wire(data, path, WeightsError, "infogain matrix (a BlobProto)").blob(0, len(data), "the matrix")
    except DecantError as exc:
        raise NetError(f"its matrix cannot be read: {exc}") from exc
    if blob.array.size != classes**2:
        raise NetError(f"the matrix in {path} is {list(blob.shape)}; it must have {classes} x {classes} values, one row a class")
    return blob.array.astype("float32").reshape(classes, classes)


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
    if prod(shapes[1]) != wanted or shapes[0][:1] != shapes[1][:1]:
        raise NetError(f"{prod(shapes[1])} labels {list(shapes[1])} for {wanted} predictions {list(shapes[0])} along axis {axis}")


def _check_batch(layer: Layer, shapes: tuple[Shape, ...]) -> None:
    """The first two bottoms have a batch axis of one size, and no more axes than Caffe reads here."""
    a, b = shapes[:2]
    if not a or not b or a[0] != b[0]:
        raise NetError(f"{layer.bottoms[0]!r} {list(a)} and {layer.bottoms[1]!r} {list(b)} must have the same first axis")
    if max(map(len, shapes)) > 4:
        raise NetError(f"takes blobs of at most 4 axes, not {[list(s) for s in shapes]}; flatten them before")
