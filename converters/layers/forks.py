"""Layers that only forks have and whose meaning is one in all of them: channel shuffle, interpolation, pooling of regions."""

from __future__ import annotations

from typing import Any

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


@layer("Interp", bottoms=(1, 2))
def interp(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """[N, C, H, W] -> [N, C, H', W']: bilinear with corners on corners (DeepLab, PSPNet), to a size, by factors, or to the second bottom's."""
    p = layer.spec.interp_param
    if len(shapes[0]) != 4 or p.pad_beg > 0 or p.pad_end > 0:
        raise NetError(f"takes 4 axes, and padding that cuts (0 or below): {list(shapes[0])}, pad {p.pad_beg} and {p.pad_end}")
    if p.full_zoom_factor != 1:
        raise NetError("full_zoom_factor is a fork's own and has no rule here")
    size = [d + p.pad_beg + p.pad_end for d in shapes[0][2:]]
    args: dict[str, Any] = {"begin": -p.pad_beg, "end": -p.pad_end}
    if len(shapes) == 2:
        made = shapes[1][2:4]
    elif p.height and p.width:
        made = (p.height, p.width)
        args["size"] = made
    elif p.zoom_factor >= 1 and p.shrink_factor >= 1:
        args |= {"zoom": p.zoom_factor, "shrink": p.shrink_factor}
        shrunk = [(d - 1) // p.shrink_factor + 1 for d in size]
        made = tuple(d + (d - 1) * (p.zoom_factor - 1) for d in shrunk)
    else:
        raise NetError("give height and width, factors of at least 1, or a second bottom of the size")
    if min(*size, *made) < 1:
        raise NetError(f"{list(shapes[0][2:])} cut to {size} cannot become {list(made)}")
    return Recipe("forks.Interp", args, ((*shapes[0][:2], *made),))


_REGIONS = "its bins depend on the values of the regions"


@layer("ROIPooling", bottoms=2, onnx=_REGIONS)
def roi_pooling(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """Features [N, C, H, W] and regions [R, 5] (image, x1, y1, x2, y2) -> [R, C, pooled_h, pooled_w] (Fast R-CNN)."""
    p = layer.spec.roi_pooling_param
    pooled = tuple(p.pooled_size) * (2 if len(p.pooled_size) == 1 else 1) if p.pooled_size else (p.pooled_h, p.pooled_w)
    if len(pooled) != 2 or min(pooled) < 1:
        raise NetError("pooled_h and pooled_w must be above 0")
    regions = _regions(shapes)
    return Recipe("forks.RoiPool", {"size": pooled, "scale": p.spatial_scale}, ((regions, shapes[0][1], *pooled),))


@layer("PSROIPooling", bottoms=2, onnx=_REGIONS)
def position_sensitive_roi_pooling(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """Score maps [N, output_dim * group^2, H, W] and regions [R, 5] -> [R, output_dim, group, group] (R-FCN)."""
    p = layer.spec.psroi_pooling_param
    group, out = p.group_size, p.output_dim
    if group < 1 or out < 1 or shapes[0][1] != out * group**2:
        raise NetError(f"{shapes[0][1]} channels for output_dim {out} and group_size {group}: there must be {out * group**2}")
    regions = _regions(shapes)
    return Recipe("forks.PositionSensitiveRoiPool", {"group": group, "scale": p.spatial_scale}, ((regions, out, group, group),))


def _regions(shapes: tuple[Shape, ...]) -> int:
    """How many regions the second bottom holds, five numbers each."""
    if len(shapes[0]) != 4 or len(shapes[1]) < 2 or any(d != 1 for d in shapes[1][2:]) or shapes[1][1] != 5:
        raise NetError(f"takes features of 4 axes and regions [R, 5], not {list(shapes[0])} and {list(shapes[1])}")
    return shapes[1][0]
