"""Layers that only forks have and whose meaning is one in all of them: channel shuffle, hard activations, axes of size 1."""

from __future__ import annotations

from math import prod

from prototxt import NetError, UnsupportedLayer
from prototxt.net import Layer

from ..recipe import Recipe, Shape
from ..registry import axis_of, layer


@layer("ShuffleChannel", in_place="it would read channels that it has overwritten")
def shuffle_channel(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """[N, C, ...] -> same: channels as `group` rows, read by columns (ShuffleNet; nn.ChannelShuffle)."""
    group = layer.spec.shuffle_channel_param.group
    if len(shapes[0]) < 3:
        raise NetError(f"takes channels of maps, not {list(shapes[0])}")
    if group < 1 or shapes[0][1] % group:
        raise NetError(f"{shapes[0][1]} channels cannot be divided into {group} groups")
    return Recipe("nn.ChannelShuffle", {"groups": group}, shapes)


@layer("HardSwish")
def hard_swish(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """x * min(max(x + 3, 0), 6) / 6 (MobileNet v3)."""
    return Recipe("nn.Hardswish", {}, shapes)


@layer("HardSigmoid")
def hard_sigmoid(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """min(max(alpha x + beta, 0), 1)."""
    p = layer.spec.hardsigmoid_param if layer.spec.has("hardsigmoid_param") else layer.spec.hard_sigmoid_param
    return Recipe("forks.HardSigmoid", {"alpha": p.alpha, "beta": p.beta}, shapes)


@layer("Squeeze")
def squeeze(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """Takes away the named axes, which must be of size 1."""
    named = list(layer.spec.squeeze_param.axis)
    if not named:
        raise NetError("squeeze_param must name the axes; forks differ on what none means")
    axes = {axis_of(axis, len(shapes[0])) for axis in named}
    if any(shapes[0][axis] != 1 for axis in axes):
        raise NetError(f"axes {sorted(axes)} of {list(shapes[0])} are not all of size 1")
    top = tuple(d for i, d in enumerate(shapes[0]) if i not in axes)
    return Recipe("forks.Squeeze", {"axes": tuple(sorted(axes))}, (top,))


@layer("Unsqueeze")
def unsqueeze(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """A new axis of size 1 at `dim`."""
    p = layer.spec.part("unsqueeze_param")
    if p is None or not p.has("dim"):
        raise NetError("unsqueeze_param must name the place of the new axis, dim")
    axis = axis_of(p.dim, len(shapes[0]), what="dim", behind=True)
    return Recipe("forks.Unsqueeze", {"axis": axis}, ((*shapes[0][:axis], 1, *shapes[0][axis:]),))


@layer("Reverse", in_place="Caffe refuses that")
def reverse(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """The values along the named axes from the last to the first."""
    named = list(layer.spec.reverse_param.axis)
    if not named:
        raise NetError("reverse_param must name the axes; forks differ on what none means")
    axes = tuple(sorted({axis_of(axis, len(shapes[0])) for axis in named}))
    return Recipe("forks.Reverse", {"axes": axes}, shapes)


@layer("Mul", bottoms=(2, None), in_place="Caffe refuses that")
def mul(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """The product of blobs of one shape; what a fork's Mul broadcasts has no rule."""
    if any(shape != shapes[0] for shape in shapes):
        raise UnsupportedLayer(f"bottoms {[list(s) for s in shapes]}: only those of one shape have one meaning; Scale broadcasts")
    return Recipe("eltwise.Product", {}, (shapes[0],), macs=prod(shapes[0]) * (len(shapes) - 1))


@layer("ContinuationIndicator", bottoms=0)
def continuation_indicator(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """[time_step, batch_size]: 0 at the first step, then 1: the markers of one sequence for an LSTM (crnn.caffe)."""
    p = layer.spec.part("continuation_indicator_param")
    steps, batch = (0, 0) if p is None else (p.get("time_step", 0), p.get("batch_size", 0))
    if not all(isinstance(n, int) and n > 0 for n in (steps, batch)):
        raise NetError("continuation_indicator_param must name time_step and batch_size")
    return Recipe("forks.Continuation", {"steps": steps, "batch": batch}, ((steps, batch),))
