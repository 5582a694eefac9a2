"""LRN, BatchNorm in BVLC's form and in those of forks, MVN, and Normalize of the SSD fork."""

from __future__ import annotations

from math import prod
from typing import Any

from prototxt import NetError, UnsupportedLayer
from prototxt.message import new
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
    if p.get("scale_bias", False) or p.has("scale_filler"):
        return _nvidia(layer, shapes)
    note = "filler is of Intel's MKL engine; the layer is read as BVLC's, with three blobs" if p.has("filler") else ""
    for name, usual in (("filler", None), ("use_weight_bias", True), ("bias_term", True), ("update_global_stats", True), ("icnet", False)):
        if p.get(name, usual) != usual and name != "filler":
            raise UnsupportedLayer(f"batch_norm_param.{name} is a fork's own and has no rule here")
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
    return Recipe("normalization.BatchNorm", args, shapes, blobs, macs=prod(shapes[0]), note=note)


def _nvidia(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """NVIDIA's BatchNorm with scale and bias inside: blobs mean, variance, correction, scale, bias; the statistics are averages."""
    p, channels = layer.spec.batch_norm_param, shapes[0][1]
    params = layer.spec.param
    if len(params) == 4 or any(spec.has("lr_mult") and spec.lr_mult != 0 for spec in params[:3]):
        raise UnsupportedLayer(
            "scale and bias inside, and learning rates that do not fit the blobs mean, variance, correction, scale, bias of NVIDIA's "
            "Caffe 0.16 and later; older ones had scale and bias first. Write lr_mult: 0 for the first three if the file has that order"
        )
    stored = p.use_global_stats if p.has("use_global_stats") and p.use_global_stats else layer.phase == "TEST" if layer.spec.has("phase") else None
    args: dict[str, Any] = {"channels": channels, "eps": max(p.eps, 1e-5), "momentum": p.moving_average_fraction, "correction": True}
    args |= {} if stored is None else {"stored": stored}
    shape = (channels,)
    blobs = (
        *(ParamBlob(name, size, learned=False) for name, size in (("mean", shape), ("variance", shape))),
        ParamBlob("factor", (1,), _constant(1), learned=False),
        ParamBlob("weight", shape, filler(p, "scale_filler") or _constant(1)),
        ParamBlob("bias", shape, filler(p, "bias_filler")),
    )
    return Recipe("normalization.ScaledBatchNorm", args, shapes, blobs, macs=2 * prod(shapes[0]))


_TWO = "SegNet's BN has 2 blobs and takes the batch's statistics (write bn_mode: LEARN) or none (bn_mode: INFERENCE)"
_FOUR = "PSPNet's and Residual Attention's has 4, two of them running averages (write slope_filler, momentum, eps or frozen)"


@layer("BN", "SyncBN")
def bn(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """[N, C, ...] -> same, scaled and shifted. Dialects by their fields: 4 blobs slope, bias, mean, variance; or 2 blobs scale, shift (SegNet)."""
    p = layer.spec.bn_param
    if len(shapes[0]) < 2:
        raise NetError(f"normalises blobs of at least 2 axes, not {list(shapes[0])}")
    segnet = p.has("bn_mode")
    pspnet = layer.type == "SyncBN" or any(p.has(n) for n in ("slope_filler", "bias_filler", "momentum", "eps", "frozen"))
    old = any(p.has(n) for n in ("var_eps", "decay", "moving_average"))
    if segnet + pspnet + old > 1:
        raise UnsupportedLayer(f"bn_param mixes fields of several dialects: {_TWO}; {_FOUR}")
    if p.get("icnet", False) or p.get("rebn", False):
        raise UnsupportedLayer("bn_param { icnet } and { rebn } are a fork's own and have no rule here")
    if segnet:
        return _segnet(layer, shapes)
    channels, note = shapes[0][1], ""
    first: Shape
    args: dict[str, Any] = {"channels": channels}
    if pspnet:
        args |= {"eps": p.eps} if p.has("eps") else {}
        args |= {"momentum": p.momentum} if p.has("momentum") else {}
        args |= {"stored": True, "frozen": True} if p.frozen else _phase(layer)
        names, first = ("slope_filler", "bias_filler"), (1, channels)
    elif old:
        if p.get("axis", 1) != 1:
            raise UnsupportedLayer("bn_param { axis: 2 } has no rule here")
        args |= {"eps": p.get("var_eps", 1e-10), "momentum": 1 - p.get("decay", 0.05)}
        note = "" if p.has("decay") else "decay, the weight of a batch in the averages, is not written: 0.05; another fork's is 0.95"
        args |= _phase(layer) if p.get("moving_average", True) else {"stored": False}
        names, first = ("scale_filler", "shift_filler"), (1, channels, 1, 1)
    elif len(layer.params) == 4:  # four blobs, whatever the dialect: only the two fillers have other names
        args |= _phase(layer)
        names, first = ("scale_filler", "shift_filler"), (1, channels)
    else:
        raise UnsupportedLayer(f"bn_param does not say which layer this is: {_TWO}; {_FOUR}")
    frozen = bool(args.get("frozen"))
    also = ((channels,), (1, channels), (1, channels, 1, 1))
    blobs = (
        ParamBlob("weight", first, filler(p, names[0]), learned=not frozen, also=also),
        ParamBlob("bias", first, filler(p, names[1]), learned=not frozen, also=also),
        ParamBlob("mean", first, learned=False, also=also),
        ParamBlob("variance", first, _constant(1) if frozen else None, learned=False, also=also),
    )
    return Recipe("normalization.ScaledBatchNorm", args, shapes, blobs, macs=2 * prod(shapes[0]), note=note)


def _phase(layer: Layer) -> dict[str, Any]:
    return {"stored": layer.phase == "TEST"} if layer.spec.has("phase") else {}


def _segnet(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    p, channels = layer.spec.bn_param, shapes[0][1]
    also = ((channels,), (1, channels), (1, channels, 1, 1))
    blobs = (
        ParamBlob("weight", (1, channels, 1, 1), filler(p, "scale_filler"), also=also),
        ParamBlob("bias", (1, channels, 1, 1), filler(p, "shift_filler"), also=also),
    )
    if p.bn_mode == "LEARN":
        return Recipe("normalization.BatchStatistics", {"channels": channels}, shapes, blobs, macs=2 * prod(shapes[0]))
    return Recipe("scale.Scale", {"axis": 1, "shape": (channels,), "bias": True}, shapes, blobs, macs=prod(shapes[0]))


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


@layer("Normalize", "NormalizedScale", "L2Norm")
def normalize(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """[N, C, H, W] -> same: scale * x / sqrt(sum x^2 + eps), over channels, or over channels and space."""
    p = layer.spec.norm_param
    if layer.type != "Normalize" and not layer.spec.has("norm_param"):
        raise UnsupportedLayer(f"{layer.type} has the meaning of Normalize only with norm_param, which says across what it normalises and its scale")
    if not 2 <= len(shapes[0]) <= 4:
        raise NetError(f"normalises blobs of 2 to 4 axes, not {list(shapes[0])}")
    blob = ParamBlob("weight", () if p.channel_shared else (shapes[0][1],), filler(p, "scale_filler") or _constant(1))
    args: dict[str, Any] = {"channels": None if p.channel_shared else shapes[0][1], "across_spatial": p.across_spatial, "eps": p.eps}
    return Recipe("normalization.Normalize", args, shapes, (blob,), macs=2 * prod(shapes[0]))


def _constant(value: float) -> Any:
    return new("FillerParameter", type="constant", value=float(value))
