"""PriorBox and DetectionOutput of the SSD fork. Semantics and surprises: CASES-SSD."""

from __future__ import annotations

from math import prod, sqrt
from typing import Any

from prototxt import NetError
from prototxt.net import Layer

from ..recipe import Recipe, Shape
from ..registry import layer


@layer("PriorBox", bottoms=2)
def prior_box(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """A feature map [N, C, H, W] and the image -> [1, 2, H * W * boxes * 4]: boxes in row 0, variances in row 1."""
    p = layer.spec.prior_box_param
    sizes = _box_sizes(p)
    variance = tuple(p.variance) or (0.1,)
    if len(variance) not in (1, 4) or min(variance) <= 0:
        raise NetError(f"variance {list(variance)}: none, one or four, each above 0")
    args: dict[str, Any] = {"sizes": sizes, "variance": variance * 4 if len(variance) == 1 else variance}
    args |= {"image": _pair(p, "img")} if _pair(p, "img") else {}
    args |= {"step": _pair(p, "step")} if _pair(p, "step") else {}
    args |= {"offset": p.offset, "clip": p.clip}
    height, width = shapes[0][2:4]
    return Recipe("detection.PriorBox", args, ((1, 2, height * width * len(sizes) * 4),))


def _box_sizes(p: Any) -> tuple[tuple[float, float], ...]:
    """(width, height) in pixels of the boxes of a cell, in Caffe's order: for each min size its square, the square of
    sqrt(min max), then the ratios. Sizes are cut to whole pixels (CASES-SSD 18)."""
    smallest, largest = list(p.min_size), list(p.max_size)
    if not smallest or min(smallest) <= 0:
        raise NetError("min_size is missing or not above 0")
    if largest and len(largest) != len(smallest):
        raise NetError(f"{len(largest)} max_size for {len(smallest)} min_size: none, or as many")
    if any(high <= low for low, high in zip(smallest, largest, strict=False)):
        raise NetError(f"max_size {largest} must be above min_size {smallest}")
    sizes: list[tuple[float, float]] = []
    for i, low in enumerate(smallest):
        side = int(low)
        sizes.append((side, side))
        if largest:
            sizes.append((sqrt(side * int(largest[i])),) * 2)
        sizes += [(side * sqrt(ratio), side / sqrt(ratio)) for ratio in _ratios(p) if abs(ratio - 1) >= 1e-6]
    return tuple(sizes)


def _ratios(p: Any) -> list[float]:
    """1, then each ratio that is not there yet, and its flip without looking (CASES-SSD 19)."""
    ratios = [1.0]
    for ratio in p.aspect_ratio:
        if any(abs(ratio - known) < 1e-6 for known in ratios):
            continue
        ratios += [ratio, 1 / ratio] if p.flip else [ratio]
    return ratios


def _pair(p: Any, name: str) -> tuple[float, float] | None:
    """(height, width) from `name_h` and `name_w`, or from `img_size` or `step`; None if the file has neither."""
    both = "img_size" if name == "img" else name
    high, wide = f"{name}_h", f"{name}_w"
    if p.has(both) and (p.has(high) or p.has(wide)):
        raise NetError(f"has {both} and {high} or {wide}; write {both} or the other two")
    if p.has(high) != p.has(wide):
        raise NetError(f"has only one of {high} and {wide}")
    if not p.has(both) and not p.has(high):
        return None
    pair = (getattr(p, both),) * 2 if p.has(both) else (getattr(p, high), getattr(p, wide))
    if min(pair) <= 0:
        raise NetError(f"{both} {list(pair)} must be above 0")
    return pair


@layer("DetectionOutput", bottoms=3)
def detection_output(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """Locations [N, P * 4 (* classes)], confidences [N, P * classes], priors [1, 2, P * 4] -> [1, 1, detections, 7].

    A row is image, class, score, xmin, ymin, xmax, ymax. How many there are depends on the values.
    """
    p = layer.spec.detection_output_param
    if layer.spec.has("transform_param") or p.has("save_output_param"):
        p.save_output_param.message  # noqa: B018  where Caffe would write files beside its output
    if not p.has("num_classes") or p.num_classes < 1:
        raise NetError("num_classes is missing")
    nms = p.nms_param
    if nms.nms_threshold < 0 or not 0 < nms.eta <= 1:
        raise NetError(f"nms_threshold {nms.nms_threshold:g} must not be negative, and eta {nms.eta:g} be above 0 and at most 1")
    priors = shapes[2][2] // 4
    boxes = priors * (1 if p.share_location else p.num_classes)
    if prod(shapes[0][1:]) != boxes * 4 or prod(shapes[1][1:]) != priors * p.num_classes:
        raise NetError(f"{priors} priors and {p.num_classes} classes do not go with locations {list(shapes[0])} and confidences {list(shapes[1])}")
    if p.background_label_id == -1 and p.share_location:
        raise NetError("background_label_id -1 with share_location aborts in Caffe: the shared boxes carry the label -1")
    args: dict[str, Any] = {
        "classes": p.num_classes,
        "share_location": p.share_location,
        "background": p.background_label_id,
        "code_type": p.code_type,
        "variance_in_target": p.variance_encoded_in_target,
        "nms_threshold": nms.nms_threshold,
        "eta": nms.eta,
        "top_k": nms.top_k if nms.has("top_k") else -1,
        "keep_top_k": p.keep_top_k,
        "confidence_threshold": p.confidence_threshold if p.has("confidence_threshold") else float("-inf"),
    }
    onnx = "" if nms.eta == 1 and p.share_location else "its NonMaxSuppression has no eta, and one box for all classes"
    return Recipe("detection.DetectionOutput", args, ((1, 1, 1, 7),), onnx=onnx)
