"""Layers that only forks have and whose meaning is one in all of them: channel shuffle, hard activations, axes of size 1."""

from __future__ import annotations

from prototxt import NetError
from prototxt.net import Layer

from ..recipe import Recipe, Shape
from ..registry import axis_of, layer


@layer("ShuffleChannel")
def shuffle_channel(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """[N, C, ...] -> same: channels as `group` rows, read by columns (ShuffleNet; nn.ChannelShuffle)."""
    group = layer.spec.shuffle_channel_param.group
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
    p = layer.spec.hard_sigmoid_param
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
