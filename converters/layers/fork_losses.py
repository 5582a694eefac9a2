"""Losses that only forks have. Where one name has several meanings, the fields must tell which."""

from __future__ import annotations

from math import prod
from typing import Any

from prototxt import NetError, UnsupportedLayer
from prototxt.message import new
from prototxt.net import Layer

from ..recipe import ParamBlob, Recipe, Shape
from ..registry import axis_of, filler, layer


@layer("L1Loss", bottoms=2, automatic=True)
def l1_loss(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """sum |a - b| / N -> (), or with loss_param { normalization: FULL } by the number of values."""
    a, b = shapes
    if not a or not b or a[0] != b[0] or prod(a) != prod(b):
        raise NetError(f"{list(a)} and {list(b)} must have one batch size and one count")
    p = layer.spec.loss_param
    mode = str(p.normalization) if p.has("normalization") else ""
    if mode not in ("", "BATCH_SIZE", "FULL"):
        raise UnsupportedLayer(f"normalization {mode}: forks divide by the batch size (BATCH_SIZE) or by the number of values (FULL)")
    args = {"normalization": mode} if mode == "FULL" else {}
    note = (
        ""
        if mode
        else "divides by the batch size, as most forks; for those that divide by the number of values write loss_param { normalization: FULL }"
    )
    return Recipe("fork_losses.L1Loss", args, ((),), macs=prod(a), note=note)


@layer("SmoothL1LossOHEM", bottoms=(2, 3), tops=(1, 2), automatic=True)
def smooth_l1_loss_ohem(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """[N, C, ...] twice, and by choice weights -> (), and by choice the loss of each place [N, 1, H, W] (R-FCN)."""
    if any(prod(shape) != prod(shapes[0]) for shape in shapes) or not 2 <= len(shapes[0]) <= 4:
        raise NetError(f"bottoms {[list(s) for s in shapes]} must have 2 to 4 axes and the same count")
    args = _divisor(layer) | ({"each": True} if len(layer.tops) == 2 else {})
    return Recipe("fork_losses.SmoothL1LossEach", args, ((), _places(shapes[0]))[: len(layer.tops)], macs=prod(shapes[0]))


@layer("SoftmaxWithLossOHEM", bottoms=2, tops=(1, 3), automatic=True)
def softmax_with_loss_ohem(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """Logits and labels -> (), the probabilities, and the loss of each label (R-FCN)."""
    axis = axis_of(layer.spec.softmax_param.axis, len(shapes[0]))
    if prod(shapes[1]) * shapes[0][axis] != prod(shapes[0]) or len(shapes[0]) > 4 or len(shapes[1]) > 4:
        raise NetError(f"{prod(shapes[1])} labels {list(shapes[1])} do not go with {list(shapes[0])} along axis {axis}")
    args = {"axis": axis, **_divisor(layer), **_ignored(layer)} | ({"outputs": len(layer.tops)} if len(layer.tops) > 1 else {})
    tops = ((), *map(_four, shapes))[: len(layer.tops)]  # R-FCN's labels have 4 axes, and its nets add the loss of each to that of its box
    return Recipe("fork_losses.SoftmaxWithLossEach", args, tops, macs=prod(shapes[0]))


@layer("CenterLoss", bottoms=2, automatic=True, differs="the gradient of a centre is caffe-face's own, and no derivative")
def center_loss(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """Features [N, K] and labels [N] -> (): half the squared distance to the centre of the label's class, by N (Wen et al. 2016)."""
    p = layer.spec.center_loss_param
    axis = axis_of(p.axis, len(shapes[0]))
    samples, size = prod(shapes[0][:axis]), prod(shapes[0][axis:])
    if p.num_output < 1 or prod(shapes[1]) != samples:
        raise NetError(f"needs num_output, the number of classes, and a label for each of the {samples} samples, not {list(shapes[1])}")
    centres = ParamBlob("centres", (p.num_output, size), filler(p, "center_filler") or new("FillerParameter", type="constant"))
    return Recipe("fork_losses.CenterLoss", {"classes": p.num_output, "size": size}, ((),), (centres,), macs=prod(shapes[0]))


@layer("FocalLoss", "SoftmaxFocalLoss", bottoms=2, tops=(1, 2), automatic=True)
def focal_loss(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """Logits [N, C, ...] and labels [N, ...] -> (): -alpha (1 - p)^gamma log p of the label's softmax p (Lin et al. 2017).

    Forks differ in the defaults of alpha (1, 0.25, 0.75), and some take the sigmoid: both numbers must be written, and labels be classes.
    """
    p = layer.spec.part("focal_loss_param")
    spelled = [] if p is None else [name for name in ("gamma", "gama") if p.has(name)]
    if p is None or not spelled or not p.has("alpha"):
        raise UnsupportedLayer(
            "forks' FocalLoss have other defaults: alpha 1 (CaffeMex), 0.25 or 0.75, and gamma 2; write focal_loss_param { alpha: gamma: }"
        )
    kind = str(p.get("type") or "ORIGIN")
    if kind not in ("ORIGIN", "0"):
        raise UnsupportedLayer(f"focal_loss_param {{ type: {kind} }} has no rule here; ORIGIN has")
    p.has("beta")  # of the form LINEAR alone
    axis = axis_of(layer.spec.softmax_param.axis, len(shapes[0]))
    if prod(shapes[1]) * shapes[0][axis] != prod(shapes[0]) or shapes[0][axis] < 2:
        raise UnsupportedLayer(
            f"labels {list(shapes[1])} for {list(shapes[0])}: one class for each place, over a softmax along axis {axis}, is one reading; one 0 or 1 "
            "for each value, over a sigmoid, is another fork's, which has no rule here"
        )
    alpha, gamma = float(p.get("alpha", 0.0)), float(p.get(spelled[0], 0.0))
    if alpha <= 0 or gamma < 0:
        raise NetError(f"alpha {alpha:g} and gamma {gamma:g}: above 0, and at least 0")
    args = {"axis": axis, "alpha": alpha, "gamma": gamma, **_divisor(layer), **_ignored(layer)}
    args |= {"outputs": 2} if len(layer.tops) == 2 else {}
    return Recipe("fork_losses.FocalLoss", args, ((), shapes[0])[: len(layer.tops)], macs=prod(shapes[0]))


@layer("TripletLoss", bottoms=(1, None), automatic=True)
def triplet_loss(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """Anchors, positives, negatives [N, ...] -> (): max(0, margin + |a - p|^2 - |a - n|^2), summed (Schroff et al. 2015).

    With weights [N] as fourth bottom by 2 N, as all forks have it; with three bottoms by what loss_param must say.
    """
    p = layer.spec.part("triplet_loss_param")
    if p is None or list(p.unknown) != ["margin"] or len(shapes) not in (3, 4):
        raise UnsupportedLayer(
            "forks share the name but not the formula; a rule has the one of 4 bottoms (anchor, positive, negative, weight) or 3, with "
            "triplet_loss_param { margin: } alone. 1 or 2 bottoms (features, labels) draw triplets by rules of each fork's own, and with losstype, "
            "num_triplets or num_negatives divide by distances. @layer in a plug-in gives the rule that is meant: docs/adding-a-layer.md"
        )
    mode = str(layer.spec.loss_param.normalization) if layer.spec.loss_param.has("normalization") else ""
    if len(shapes) == 3 and mode not in ("NONE", "BATCH_SIZE"):
        raise UnsupportedLayer(
            "with 3 bottoms it is the sum over triplets in one fork, its N-th part in another, and half of that in a third: write "
            "loss_param { normalization: NONE } or BATCH_SIZE, and for the third BATCH_SIZE and loss_weight: 0.5"
        )
    if not shapes[0] or len({*shapes[:3]}) != 1 or (len(shapes) == 4 and prod(shapes[3]) != shapes[0][0]):
        raise NetError(f"{[list(s) for s in shapes]}: three blobs of one shape, and by choice a weight for each of its first axis")
    args = {"margin": float(p.get("margin", 1.0))} | ({"normalization": mode} if len(shapes) == 3 else {})
    return Recipe("fork_losses.TripletLoss", args, ((),), macs=2 * prod(shapes[0]))


def _divisor(layer: Layer) -> dict[str, Any]:
    """`normalization` as SoftmaxWithLoss reads it, or R-FCN's PRE_FIXED number."""
    p = layer.spec.loss_param
    mode = p.normalization if p.has("normalization") or not p.has("normalize") else "VALID" if p.normalize else "BATCH_SIZE"
    return {"normalization": p.pre_fixed_normalizer if mode == "PRE_FIXED" else str(mode)}


def _ignored(layer: Layer) -> dict[str, Any]:
    p = layer.spec.loss_param
    return {"ignore_label": p.ignore_label} if p.has("ignore_label") else {}


def _four(shape: Shape) -> Shape:
    return (*shape, 1, 1, 1, 1)[:4]


def _places(shape: Shape) -> Shape:
    return (shape[0], 1, *_four(shape)[2:])
