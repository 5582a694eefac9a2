"""The layers of the SSD fork's detector (CASES-SSD), exact.

Priors P are counted by the third bottom of DetectionOutput and MultiBoxLoss, [1, 2, P * 4]; a box is xmin, ymin, xmax, ymax.
"""

from __future__ import annotations

from math import inf, prod, sqrt
from typing import Any

from prototxt import NetError
from prototxt.files import find_file, read_file
from prototxt.net import Layer

from ..recipe import Recipe, Shape
from ..registry import float32, layer

FLT_MAX = 3.4028234663852886e38


@layer("PriorBox", bottoms=2, in_place="the boxes have another shape")
def prior_box(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """A map [N, C, H, W] and an image -> [1, 2, H * W * boxes * 4]: boxes in row 0, variances in row 1."""
    p = layer.spec.prior_box_param
    for name, shape in zip(layer.bottoms, shapes, strict=True):
        if len(shape) != 4:
            raise NetError(f"takes a map and an image of 4 axes; {name!r} is {list(shape)}")
    sizes = _sizes(p, _ratios(p))
    variance = tuple(p.variance) or (0.1,)
    if len(variance) not in (1, 4) or min(variance) <= 0:
        raise NetError(f"variance {list(variance)}: one or four, each above 0")
    args: dict[str, Any] = {"sizes": sizes, "variance": variance}
    image, step = _pair(p, "img", "img_size", "img_h", "img_w"), _pair(p, "step", "step", "step_h", "step_w")
    args |= {"image": image} if image else {}
    args |= {"step": step} if step else {}
    args |= {"offset": p.offset} if p.offset != 0.5 else {}
    args |= {"clip": True} if p.clip else {}
    count = prod(shapes[0][2:]) * len(sizes) * 4
    if count < 1:
        raise NetError(f"a map of {list(shapes[0])} has no cells")
    return Recipe("detection.PriorBox", args, ((1, 2, count),))


def _ratios(p: Any) -> list[float]:
    """1, then each ratio that is not there yet (to 1e-6), with its flip, which is added without looking."""
    ratios = [1.0]
    for ratio in map(float32, p.aspect_ratio):
        if not 0 < ratio < inf or 1 / ratio > FLT_MAX:
            raise NetError(f"aspect_ratio {ratio:g} gives no box: it must be above 0, and finite")
        if all(abs(ratio - other) >= 1e-6 for other in ratios):
            ratios += [ratio, float32(1 / ratio)] if p.flip else [ratio]
    return ratios


def _sizes(p: Any, ratios: list[float]) -> tuple[tuple[float, float], ...]:
    """Width and height of a cell's boxes. Sizes are cut to whole pixels, after their check (CASES-SSD 18)."""
    least, most = list(p.min_size), list(p.max_size)
    if not least or not all(0 < size < inf for size in (*least, *most)):
        raise NetError("min_size is missing, or a size is not above 0 and finite")
    if most and len(most) != len(least):
        raise NetError(f"{len(most)} max_size for {len(least)} min_size: none, or one for each")
    if any(high <= low for low, high in zip(least, most, strict=False)):
        raise NetError(f"max_size {most} must be above min_size {least}")
    sizes = []
    for i, size in enumerate(map(int, least)):
        sizes.append((float(size), float(size)))
        if most:
            between = sqrt(size * int(most[i]))
            sizes.append((between, between))
        sizes += [(size * sqrt(ratio), size / sqrt(ratio)) for ratio in ratios if abs(ratio - 1) >= 1e-6]
    return tuple(sizes)


def _pair(p: Any, what: str, both: str, high: str, wide: str) -> tuple[Any, Any] | None:
    """`both`, or the pair of `high` and `wide`, each above 0; None if the file has none of them."""
    if p.has(high) or p.has(wide):
        if p.has(both):
            raise NetError(f"has {both} and {high} or {wide}; write one or the other")
        found = (getattr(p, high), getattr(p, wide))
    elif p.has(both):
        found = (getattr(p, both),) * 2
    else:
        return None
    if min(found) <= 0:
        raise NetError(f"{what} {list(found)}: height and width must both be there and above 0")
    return found


@layer(
    "DetectionOutput",
    bottoms=3,
    in_place="the detections have another shape",
    differs="save_output_param and visualize, which make Caffe write files and open windows, do nothing; the top is the same",
)
def detection_output(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """Locations, confidences and priors -> [1, 1, K, 7], K by the values (here 1): image, label, score, box."""
    p = layer.spec.detection_output_param
    classes = _classes(p)
    _check_boxes(shapes, classes, share_location=p.share_location)
    for output in ("save_output_param", "visualize", "visualize_threshold", "save_file"):  # what is shown or written beside the top
        if p.has(output):
            getattr(p, output)
    if p.has("save_output_param"):
        p.save_output_param.message  # noqa: B018
    if p.background_label_id == -1 and p.share_location:
        raise NetError("background_label_id: -1 with share_location: true; Caffe takes the shared boxes for background and aborts")
    args: dict[str, Any] = {"classes": classes, "background": p.background_label_id}
    args |= {} if p.share_location else {"share_location": False}
    args |= {"code": p.code_type}
    args |= {"variance_in_target": True} if p.variance_encoded_in_target else {}
    args |= {"confidence": p.confidence_threshold} if p.has("confidence_threshold") else {}
    args |= _suppression(p.nms_param)
    args |= {"keep_top_k": p.keep_top_k} if p.keep_top_k > -1 else {}
    onnx = "" if p.share_location and p.nms_param.eta == 1 else "ONNX's NonMaxSuppression has no eta, and one box for all classes"
    return Recipe("detection.DetectionOutput", args, ((1, 1, 1, 7),), onnx=onnx)


def _classes(p: Any) -> int:
    if not p.has("num_classes") or p.num_classes < 1:
        raise NetError("num_classes is missing or 0")
    return int(p.num_classes)


def _suppression(p: Any) -> dict[str, Any]:
    if p.nms_threshold < 0:
        raise NetError(f"nms_threshold {p.nms_threshold:g} is negative")
    if not 0 < p.eta <= 1:
        raise NetError(f"eta {p.eta:g}: above 0 and at most 1")
    args: dict[str, Any] = {"overlap": p.nms_threshold}
    args |= {"eta": p.eta} if p.eta != 1 else {}
    return args | ({"top_k": p.top_k} if p.has("top_k") and p.top_k > -1 else {})


def _check_boxes(shapes: tuple[Shape, ...], classes: int, *, share_location: bool) -> None:
    """Locations [N, P * 4] (or [N, P * C * 4]) and confidences [N, P * C] for the P priors of [1, 2, P * 4]."""
    loc, confidence, prior = shapes[:3]
    if min(len(loc), len(confidence)) < 2 or len(prior) < 3 or prior[:2] != (1, 2) or prior[2] % 4:
        raise NetError(f"takes locations [N, P * 4], confidences [N, P * classes] and priors [1, 2, P * 4], not {[list(s) for s in shapes[:3]]}")
    if loc[0] != confidence[0]:
        raise NetError(f"locations of {loc[0]} images and confidences of {confidence[0]}")
    priors, boxes = prior[2] // 4, 1 if share_location else classes
    for what, shape, wanted in (("locations", loc, priors * boxes * 4), ("confidences", confidence, priors * classes)):
        if shape[1] != wanted or prod(shape[2:]) != 1:
            raise NetError(f"{what} {list(shape)} have {shape[1]} channels; {priors} priors and {classes} classes ask for {wanted}")


@layer("SmoothL1Loss", bottoms=(2, 4), automatic=True)
def smooth_l1_loss(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """Blobs of one count, and by choice weights inside and outside -> (); by the batch size (SSD; py-faster-rcnn has sigma and the weights)."""
    if not shapes[0] or any(prod(shape) != prod(shapes[0]) for shape in shapes):
        raise NetError(f"bottoms {[list(s) for s in shapes]} must have a batch axis and the same count")
    p = layer.spec.smooth_l1_loss_param
    if p.has("abssum") and not p.abssum:
        raise NetError("abssum: false is a fork's own form, which has no rule here")
    args = {"sigma": p.sigma} if p.has("sigma") else {}
    return Recipe("detection.SmoothL1Loss", args, ((),), macs=prod(shapes[0]))


_EVALUATES = "it counts hits of detections, which depends on their values"


@layer("DetectionEvaluate", bottoms=2, onnx=_EVALUATES)
def detection_evaluate(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """Detections [1, 1, K, 7] and truth [1, 1, M, 8] -> [1, 1, classes + K, 5]: a row a class, then a row a detection."""
    p = layer.spec.detection_evaluate_param
    for what, shape, columns in (("detections", shapes[0], 7), ("truth", shapes[1], 8)):
        if len(shape) != 4 or shape[:2] != (1, 1) or shape[3] != columns:
            raise NetError(f"{what} of shape {list(shape)}: it takes [1, 1, rows, {columns}]")
    if p.has("resize_param"):
        raise NetError("resize_param has no rule here; give boxes of the images as they are")
    if p.overlap_threshold <= 0:
        raise NetError(f"overlap_threshold {p.overlap_threshold:g} must be above 0")
    classes = _classes(p)
    args: dict[str, Any] = {"classes": classes, "background": p.background_label_id, "threshold": p.overlap_threshold}
    args |= {} if p.evaluate_difficult_gt else {"difficult": False}
    sizes = _sizes_of(p.name_size_file, layer) if p.has("name_size_file") else ()
    args |= {"sizes": sizes} if sizes else {}
    rows = classes - (p.background_label_id < classes) + shapes[0][2]
    return Recipe("detection.DetectionEvaluate", args, ((1, 1, rows, 5),))


def _sizes_of(name: str, layer: Layer) -> tuple[tuple[int, int], ...]:
    """(height, width) of each line `name height width`."""
    path = find_file(name, layer.folder)
    lines = [line.split() for line in read_file(path).decode("utf-8", "replace").splitlines() if line.strip()]
    try:
        return tuple((int(line[-2]), int(line[-1])) for line in lines)
    except (ValueError, IndexError) as exc:
        raise NetError(f"{path}: each line must be a name, a height and a width") from exc


@layer("MultiBoxLoss", bottoms=4, automatic=True, onnx="matching and mining depend on the values; it is for training")
def multi_box_loss(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """Locations, confidences, priors and truth [1, 1, M, 8] -> ()."""
    p = layer.spec.multibox_loss_param
    classes = _classes(p)
    _check_boxes(shapes[:3], classes, share_location=p.share_location)
    mining = p.mining_type
    if p.has("do_neg_mining") and p.do_neg_mining != (mining != "NONE"):
        raise NetError(f"do_neg_mining: {str(p.do_neg_mining).lower()} contradicts mining_type: {mining}; remove do_neg_mining")
    if mining != "NONE" and not p.share_location:
        raise NetError("mining needs share_location: true")
    if mining == "HARD_EXAMPLE" and p.sample_size < 1:
        raise NetError(f"sample_size {p.sample_size} must be above 0")
    if p.map_object_to_agnostic and classes != 2:
        raise NetError(f"map_object_to_agnostic knows background and object: num_classes must be 2, not {classes}")
    down = list(layer.spec.propagate_down) or [True, True]
    nms = p.nms_param
    suppression = (nms.nms_threshold, nms.top_k if nms.has("top_k") else 0, p.use_prior_for_nms)
    loss = layer.spec.loss_param
    normalization = loss.normalization if loss.has("normalization") or not loss.has("normalize") else "VALID" if loss.normalize else "BATCH_SIZE"
    args: dict[str, Any] = {
        "classes": classes,
        "share_location": p.share_location,
        "background": p.background_label_id,
        "code": p.code_type,
        "in_target": p.encode_variance_in_target,
        "match": p.match_type,
        "overlap_threshold": p.overlap_threshold,
        "match_priors": p.use_prior_for_matching,
        "difficult": p.use_difficult_gt,
        "ignore_crossing": p.ignore_cross_boundary_bbox,
        "inside": p.bp_inside,
        "agnostic": p.map_object_to_agnostic,
        "mining": mining,
        "negative_ratio": p.neg_pos_ratio,
        "negative_overlap": p.neg_overlap,
        "sample_size": p.sample_size,
        "suppression": suppression if p.has("nms_param") and nms.nms_threshold > 0 else None,
        "location_loss": p.loc_loss_type,
        "confidence_loss": p.conf_loss_type,
        "location_weight": p.loc_weight,
        "normalization": normalization,
        "counts": (down[0], down[1]),
    }
    return Recipe("detection.MultiBoxLoss", args, ((),))
