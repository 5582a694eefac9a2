"""LRN, BatchNorm, MVN, and Normalize of the SSD fork."""

from __future__ import annotations

from math import prod
from typing import Any

from prototxt import NetError
from prototxt.net import Layer

from ..recipe import ParamBlob, Recipe, Shape
from ..registry import filler, layer


@layer("LRN", in_place="LRN across channels in place multiplies by what it has overwritten (layers/LRN/*-in-place)")
def lrn(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """[N, C, H, W] -> same; across channels, or within each channel over a square."""
    p = layer.spec.lrn_param
    if len(shapes[0]) != 4:
        raise NetError(f"normalises a blob of 4 axes, not {list(shapes[0])}")
    if p.local_size % 2 == 0:
        raise NetError(f"local_size {p.local_size}: the window must have a middle, so an odd size")
    args: dict[str, Any] = {"size": p.local_size, "alpha": p.alpha, "beta": p.beta}
    if p.norm_region == "WITHIN_CHANNEL":  # k is not used there (`within-ignores-k`)
        return Recipe("normalization.LRNWithin", args, shapes, macs=prod(shapes[0]) * p.local_size**2)
    return Recipe("normalization.LRN", args | {"k": p.k}, shapes, macs=prod(shapes[0]) * p.local_size)


@layer("BatchNorm")
def batch_norm(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """[N, C, ...] -> same. Three blobs, which are running sums: mean = blob 0 / blob 2, variance = blob 1 / blob 2."""
    p = layer.spec.batch_norm_param
    if len(shapes[0]) < 2:
        raise NetError(f"normalises blobs of at least 2 axes, not {list(shapes[0])}")
    for i, spec in enumerate(layer.spec.param):
        if (spec.has("lr_mult") and spec.lr_mult != 0) or (not spec.has("lr_mult") and len(layer.spec.param) < 3):
            raise NetError(f"param {i}: BatchNorm's blobs are statistics and not learned; write lr_mult: 0")
    channels = shapes[0][1]
    args: dict[str, Any] = {"channels": channels}
    args |= {"eps": p.eps} if p.has("eps") else {}
    args |= {"fraction": p.moving_average_fraction} if p.has("moving_average_fraction") else {}
    if p.has("use_global_stats"):
        args["use_global_stats"] = p.use_global_stats
    elif layer.spec.has("phase"):
        args["use_global_stats"] = layer.phase == "TEST"
    blobs = tuple(ParamBlob(n, s, learned=False) for n, s in (("mean", (channels,)), ("variance", (channels,)), ("factor", (1,))))
    return Recipe("normalization.BatchNorm", args, shapes, blobs, macs=prod(shapes[0]))


@layer("MVN")
def mvn(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """[N, C, H, W] -> same, always of 4 axes: (x - mean) / (std + eps), eps beside the root."""
    p = layer.spec.mvn_param
    if len(shapes[0]) > 4:
        raise NetError(f"takes at most 4 axes, not {list(shapes[0])}")
    if p.normalize_variance and layer.tops == layer.bottoms:
        raise NetError("in place it divides by what it has overwritten (layers/MVN/in-place); give this top another name")
    top = (*shapes[0], *(1,) * (4 - len(shapes[0])))
    args = {"across_channels": p.across_channels, "normalize_variance": p.normalize_variance, "eps": p.eps}
    return Recipe("normalization.MVN", args, (top,), macs=2 * prod(top))


@layer("Normalize", "NormalizedScale")
def normalize(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """[N, C, H, W] -> same: scale * x / sqrt(sum x^2 + eps), over channels, or over channels and space."""
    p = layer.spec.norm_param
    if not 2 <= len(shapes[0]) <= 4:
        raise NetError(f"normalises blobs of 2 to 4 axes, not {list(shapes[0])}")
    blob = ParamBlob("weight", () if p.channel_shared else (shapes[0][1],), filler(p, "scale_filler") or _ones())
    args: dict[str, Any] = {"channels": None if p.channel_shared else shapes[0][1], "across_spatial": p.across_spatial, "eps": p.eps}
    return Recipe("normalization.Normalize", args, shapes, (blob,), macs=2 * prod(shapes[0]))


def _ones() -> Any:
    from prototxt.message import new

    return new("FillerParameter", type="constant", value=1.0)
