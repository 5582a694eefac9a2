"""Layers that change each value by itself. Derivatives at the kinks are Caffe's (CASES: Ties and edges)."""

from __future__ import annotations

from math import prod
from typing import Any

from prototxt import NetError
from prototxt.message import new
from prototxt.net import Layer

from ..recipe import ParamBlob, Recipe, Shape
from ..registry import filler, layer


@layer("ReLU")
def relu(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """max(x, 0), or negative_slope * x below 0; the derivative at 0 is the slope's."""
    slope = layer.spec.relu_param.negative_slope
    if slope < 0 and layer.bottoms == layer.tops:
        raise NetError("a negative negative_slope in place passes every gradient (layers/ReLU/in-place-slope-negative); give the top another name")
    return Recipe("nn.LeakyReLU", {"negative_slope": slope}, shapes) if slope else Recipe("nn.ReLU", {}, shapes)


@layer("ReLU6")
def relu6(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """min(max(x, 0), 6), or another threshold."""
    p = layer.spec.part("relu6_param")
    if p is not None and p.get("negative_slope", 0) != 0:
        raise NetError("relu6_param { negative_slope } has no rule here")
    limit = 6 if p is None else p.get("threshold", 6)
    if limit <= 0:
        raise NetError(f"threshold {limit:g}: above 0")
    return Recipe("nn.ReLU6", {}, shapes) if limit == 6 else Recipe("nn.Hardtanh", {"min_val": 0.0, "max_val": limit}, shapes)


@layer("PReLU")
def prelu(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """x above 0, else slope * x; a slope for each channel, or one of shape ()."""
    p = layer.spec.prelu_param
    if not 2 <= len(shapes[0]) <= 4:
        raise NetError(f"takes 2 to 4 axes, not {list(shapes[0])}")
    fill = filler(p, "filler") or new("FillerParameter", type="constant", value=0.25)
    if p.channel_shared:
        return Recipe("activation.SharedPReLU", {}, shapes, (ParamBlob("weight", (), fill),), macs=prod(shapes[0]))
    return Recipe("nn.PReLU", {"num_parameters": shapes[0][1]}, shapes, (ParamBlob("weight", (shapes[0][1],), fill),), macs=prod(shapes[0]))


@layer("Sigmoid")
def sigmoid(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """1 / (1 + exp(-x))."""
    return Recipe("nn.Sigmoid", {}, shapes)


@layer("TanH")
def tanh(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """tanh(x)."""
    return Recipe("nn.Tanh", {}, shapes)


@layer("ELU")
def elu(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """x above 0, else alpha * (exp(x) - 1)."""
    return Recipe("nn.ELU", {"alpha": layer.spec.elu_param.alpha}, shapes)


@layer("AbsVal", in_place="Caffe refuses that")
def abs_val(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """|x|; the derivative at 0 is 0."""
    return Recipe("activation.Abs", {}, shapes)


@layer("Power")
def power(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """(shift + scale x) ** power."""
    p = layer.spec.power_param
    return Recipe("activation.Power", {"power": p.power, "scale": p.scale, "shift": p.shift}, shapes, macs=prod(shapes[0]))


@layer("Exp")
def exp(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """base ** (shift + scale x); base -1 means e."""
    p = layer.spec.exp_param
    if p.base != -1 and p.base <= 0:
        raise NetError(f"base {p.base:g}: above 0, or -1 for e")
    return Recipe("activation.Exp", {"base": p.base, "scale": p.scale, "shift": p.shift}, shapes)


@layer("Log")
def log(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """log(shift + scale x) to a base; base -1 means e."""
    p = layer.spec.log_param
    if p.base != -1 and (p.base <= 0 or p.base == 1):
        raise NetError(f"base {p.base:g}: above 0 and not 1, or -1 for e")
    return Recipe("activation.Log", {"base": p.base, "scale": p.scale, "shift": p.shift}, shapes)


@layer("BNLL")
def bnll(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """log(1 + exp(x)), without overflow."""
    return Recipe("activation.BNLL", {}, shapes)


@layer("Threshold")
def threshold(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """1 where x > threshold, else 0; no gradient."""
    return Recipe("activation.Threshold", {"threshold": layer.spec.threshold_param.threshold}, shapes)


@layer("Clip")
def clip(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """max(min(x, max), min); the gradient passes on both bounds. With min > max it is min everywhere."""
    p = layer.spec.clip_param
    if not p.has("min") or not p.has("max"):
        raise NetError("clip_param must name min and max")
    return Recipe("activation.Clip", {"low": p.min, "high": p.max}, shapes)


@layer("Swish")
def swish(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """x * sigmoid(beta x)."""
    return Recipe("activation.Swish", {"beta": layer.spec.swish_param.beta}, shapes)


@layer("Dropout")
def dropout(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """Zeroes a value with probability dropout_ratio in training, and scales the others by 1 / (1 - ratio).

    With a fork's scale_train: false training does not scale, and inference does, by 1 - ratio (py-faster-rcnn).
    """
    ratio = layer.spec.dropout_param.dropout_ratio
    for name, usual in (("random_seed", None), ("sample_weights_test", False)):
        if layer.spec.dropout_param.get(name, usual) != usual and name != "random_seed":
            raise NetError(f"{name} is a fork's own and has no rule here")
    if not 0 <= ratio < 1:
        raise NetError(f"dropout_ratio {ratio:g}: from 0 to below 1")
    args: dict[str, Any] = {"p": ratio}
    if not layer.spec.dropout_param.get("scale_train", True):
        args |= {"training": layer.phase == "TRAIN"} if layer.spec.has("phase") else {}
        return Recipe("activation.UnscaledDropout", args, shapes)
    if layer.spec.has("phase"):
        args["training"] = layer.phase == "TRAIN"
        return Recipe("activation.PhaseDropout", args, shapes)
    return Recipe("nn.Dropout", args, shapes)
