"""Regions: Proposal and its Python twin, their pooling, and what Faster R-CNN and R-FCN train them with."""

from __future__ import annotations

import re
from math import prod
from typing import Any

from prototxt import NetError, UnsupportedLayer
from prototxt.net import Layer

from ..recipe import Recipe, Shape
from ..registry import Inputs, layer, python_layer


@layer("ROIPooling", bottoms=2)
def roi_pooling(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """Features [N, C, H, W] and regions [R, 5] (image, x1, y1, x2, y2) -> [R, C, pooled_h, pooled_w] (Fast R-CNN)."""
    p = layer.spec.roi_pooling_param
    pooled = tuple(p.pooled_size) * (2 if len(p.pooled_size) == 1 else 1) if p.pooled_size else (p.pooled_h, p.pooled_w)
    if len(pooled) != 2 or min(pooled) < 1:
        raise NetError("pooled_h and pooled_w must be above 0")
    regions = _regions(shapes)
    return Recipe("regions.RoiPool", {"size": pooled, "scale": p.spatial_scale}, ((regions, shapes[0][1], *pooled),), library="torchvision")


@layer("PSROIPooling", bottoms=2)
def position_sensitive_roi_pooling(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """Score maps [N, output_dim * group^2, H, W] and regions [R, 5] -> [R, output_dim, group, group] (R-FCN)."""
    p = layer.spec.psroi_pooling_param
    group, out, regions = p.group_size, p.output_dim, _regions(shapes)
    if not p.has("spatial_scale"):
        raise NetError("spatial_scale is missing")
    if group < 1 or out < 1 or shapes[0][1] != out * group**2:
        raise NetError(f"{shapes[0][1]} channels for output_dim {out} and group_size {group}: there must be {out * group**2}")
    return Recipe("regions.PositionSensitiveRoiPool", {"group": group, "scale": p.spatial_scale}, ((regions, out, group, group),))


def _regions(shapes: tuple[Shape, ...]) -> int:
    """How many regions the second bottom holds, five numbers each."""
    if len(shapes[0]) != 4 or len(shapes[1]) < 2 or prod(shapes[1][1:]) != 5:
        raise NetError(f"takes features of 4 axes and regions [R, 5], not {list(shapes[0])} and {list(shapes[1])}")
    return shapes[1][0]


@layer("Proposal", bottoms=3, tops=(1, 2), in_place="the regions have another shape")
def native_proposal(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """As ProposalLayer, but with ratio and scale of its own, and scores [R] (mini-caffe, OpenVINO); too small a box has score 0 and stays.

    OpenVINO's im_info is [1, 4]: height, width, and a scale of each.
    """
    p = layer.spec.proposal_param
    counted = [name for name in ("anchor_scale", "anchor_ratio", "anchor_base_size", "max_rois", "rpn_min_size", "rpn_nms_thresh") if p.has(name)]
    if counted or not p.ratio or not p.scale:
        raise UnsupportedLayer(
            "proposal_param without ratio and scale is Synopsys's, which counts anchor_scale and anchor_ratio and suppresses in another way; "
            "write ratio and scale, if those of mini-caffe and OpenVINO are meant"
        )
    _check_proposal(shapes, len(p.ratio) * len(p.scale))
    args: dict[str, Any] = {"stride": p.feat_stride, "scales": tuple(p.scale), "before": p.pre_nms_topn, "after": p.post_nms_topn}
    args |= {"scores": len(layer.tops) == 2, "overlap": p.nms_thresh, "least": p.min_size, "ratios": tuple(p.ratio), "base": p.base_size}
    args |= {"keep_small": True} | ({"wide": 3} if prod(shapes[2]) == 4 else {})
    return Recipe("regions.Proposal", args, ((p.post_nms_topn, 5), (p.post_nms_topn,))[: len(layer.tops)])


@python_layer("ProposalLayer")
def proposal(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """Scores [1, 2 A, H, W], box deltas [1, 4 A, H, W] and im_info [1, 3] -> regions [R, 5], and by choice scores [R, 1] (py-faster-rcnn).

    The limits are those of its config at TEST: 6000 before suppression, 300 after, 0.7, 16 pixels; at TRAIN 12000 and 2000.
    """
    if not 1 <= len(layer.tops) <= 2:
        raise NetError("gives regions and by choice their scores")
    settings = _settings(layer, feat_stride=True, scales=False)
    scales = tuple(settings.get("scales", (8, 16, 32)))
    _check_proposal(shapes, 3 * len(scales))
    before, after = (12000, 2000) if layer.phase == "TRAIN" else (6000, 300)
    args = {"stride": settings["feat_stride"], "scales": scales, "before": before, "after": after, "scores": len(layer.tops) == 2}
    return Recipe("regions.Proposal", args, ((1, 5), (1, 1))[: len(layer.tops)])


def _check_proposal(shapes: tuple[Shape, ...], anchors: int) -> None:
    if len(shapes) != 3 or any(len(shape) != 4 for shape in shapes[:2]) or shapes[0][0] != 1 or prod(shapes[2]) < 3:
        raise NetError(f"takes scores [1, 2 A, H, W], deltas [1, 4 A, H, W] and im_info [1, 3] of one image, not {[list(s) for s in shapes]}")
    if shapes[0][1] != 2 * anchors or shapes[1][1] != 4 * anchors:
        raise NetError(f"{anchors} anchors do not go with scores {list(shapes[0])} and deltas {list(shapes[1])}")


# Training -------------------------------------------------------------------------------------------------------------

_CONFIG = "the limits are those of py-faster-rcnn's config.py; an experiment's .yml may say otherwise"
_TRAINS = "it draws examples by their values; it is for training"


@python_layer("RoIDataLayer")
def roi_data(layer: Layer, shapes: tuple[Shape, ...]) -> Inputs:
    """Images and boxes of py-faster-rcnn, as its setup shapes them: data, im_info, gt_boxes; or data, rois, labels, targets and weights."""
    classes = _settings(layer, num_classes=True)["num_classes"]
    known: dict[str, Shape] = {"im_info": (1, 3), "gt_boxes": (1, 5), "rois": (1, 5), "labels": (1,)}
    known |= dict.fromkeys(("bbox_targets", "bbox_inside_weights", "bbox_outside_weights", "bbox_loss_weights"), (1, 4 * classes))
    known["data"] = (1, 3, 600, 1000)
    note = "shapes are those of one image of 600 x 1000 and one box; give others by --shape"
    return Inputs(tuple(known.get(top) for top in layer.tops), note)


@python_layer("AnchorTargetLayer")
def anchor_target(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """Scores [1, 2 A, H, W], boxes [G, 5], im_info and the image -> labels [1, 1, A H, W], targets and two weights [1, 4 A, H, W]."""
    settings = _settings(layer, feat_stride=True, scales=False)
    scales = tuple(settings.get("scales", (8, 16, 32)))
    anchors = 3 * len(scales)
    if len(shapes) != 4 or len(shapes[0]) != 4 or shapes[0][:2] != (1, 2 * anchors) or shapes[1][-1] != 5:
        raise NetError(f"takes scores [1, {2 * anchors}, H, W], boxes [G, 5], im_info and the image, not {[list(s) for s in shapes]}")
    h, w = shapes[0][2:]
    deltas = (1, 4 * anchors, h, w)
    args = {"stride": settings["feat_stride"], "scales": scales}
    return Recipe("regions.AnchorTargets", args, ((1, 1, anchors * h, w), deltas, deltas, deltas), reads=(0, 1, 2), onnx=_TRAINS, note=_CONFIG)


@python_layer("ProposalTargetLayer")
def proposal_target(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """Regions [R, 5] and boxes [G, 5] -> 128 drawn regions, their labels, and targets and two weights [128, 4 classes] (here 1)."""
    classes = _settings(layer, num_classes=True)["num_classes"]
    if len(shapes) != 2 or shapes[0][1:] != (5,) or shapes[1][-1] != 5:
        raise NetError(f"takes regions [R, 5] and boxes [G, 5], not {[list(s) for s in shapes]}")
    wide = (1, 4 * classes)
    return Recipe("regions.ProposalTargets", {"classes": classes}, ((1, 5), (1, 1), wide, wide, wide), onnx=_TRAINS, note=_CONFIG)


def _settings(layer: Layer, **needed: bool) -> dict[str, Any]:
    """Numbers and lists of numbers of a param_str, which is YAML of a few words: {name: whether it must be there}; NetError for anything else."""
    text = layer.spec.python_param.param_str.replace("\\'", "'")
    rest, found = text, {}
    for name in needed:
        match = re.search(rf"['\"]?{name}['\"]?\s*:\s*(?:(\d+)|(?:!!python/tuple\s*)?[\[(]([\d\s,]+)[\])])", rest)
        if match:
            numbers = [int(n) for n in re.findall(r"\d+", match[1] or match[2])]
            found[name] = numbers if match[1] is None else numbers[0]
            rest = rest.replace(match[0], "")
    if any(must and name not in found for name, must in needed.items()) or re.sub(r"[{},\s]", "", rest):
        raise NetError(f"param_str {text!r}: known are {' and '.join(needed)}")
    return found


@layer("BoxAnnotatorOHEM", bottoms=4, tops=2, onnx=_TRAINS)
def box_annotator(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """Regions [R, 5, ...], loss, labels [R, ...] and box weights [R, K, ...] -> labels and weights of each image's roi_per_img hardest regions."""
    p = layer.spec.box_annotator_ohem_param
    regions, loss, labels, weights = shapes
    places = prod(loss)
    equal = prod(labels) == places and prod(regions) == 5 * places and weights[:1] == regions[:1] and _four(weights, 1) == _four(regions, 1)
    if not p.roi_per_img or len(regions) < 2 or len(weights) < 2 or regions[1] != 5 or not equal:
        raise NetError(f"needs roi_per_img, and regions [R, 5], losses, labels and weights of as many regions, not {[list(s) for s in shapes]}")
    tops = (_four(labels, 1), _four(weights, weights[1]))
    return Recipe("regions.HardestRegions", {"count": p.roi_per_img, "ignored": p.ignore_label}, tops)


def _four(shape: Shape, channels: int) -> Shape:
    return (shape[0], channels, *(*shape[2:], 1, 1)[:2])
