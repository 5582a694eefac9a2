"""Detections of the YOLO forks' nets, decoded from maps: version 2 (regions with a softmax) and version 3 (sigmoids, masks of anchors)."""

from __future__ import annotations

from typing import Any

from prototxt import NetError
from prototxt.net import Layer

from ..recipe import Recipe, Shape
from ..registry import layer

_VALUES = "how many boxes remain depends on the values"


@layer("YoloDetectionOutput", bottoms=(1, 2), in_place="the boxes have another shape", onnx=_VALUES)
def yolo_detection_output(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """One or two maps [1, boxes (5 + classes), S, S] -> [1, 1, K, 7]: image, label from 1, score, box in parts of the image (YOLOv2)."""
    p = _settings(layer, "yolo_detection_output_param", boxes=5)
    if p["coords"] != 4:
        raise NetError(f"coords {p['coords']}: a box has 4")
    anchors = _anchors(p)
    if len(anchors) < p["boxes"]:
        raise NetError(f"{len(anchors)} pairs of biases for {p['boxes']} boxes a cell")
    _check(shapes, p)
    args = {"classes": p["classes"], "anchors": anchors[: p["boxes"]], "confidence": p["confidence"], "overlap": p["overlap"]}
    return Recipe("yolo.RegionDetections", args, ((1, 1, 1, 7),))


@layer("Yolov3DetectionOutput", bottoms=(1, None), in_place="the boxes have another shape", onnx=_VALUES)
def yolov3_detection_output(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """Maps [1, boxes (5 + classes), S, S] -> [1, 1, K, 7]; map i has the anchors of its part of `mask`, in pixels of S * anchors_scale[i]."""
    p = _settings(layer, "yolov3_detection_output_param", boxes=3)
    anchors, mask, scales = _anchors(p), p["mask"], p["scales"]
    if p["groups"] != len(shapes) or len(mask) != len(shapes) * p["boxes"] or len(scales) < len(shapes) or max(mask, default=0) >= len(anchors):
        raise NetError(
            f"{len(shapes)} maps of {p['boxes']} boxes ask for mask_group_num {len(shapes)}, {len(shapes) * p['boxes']} mask and {len(shapes)} "
            f"anchors_scale, not {p['groups']}, {len(mask)} and {len(scales)}; a mask counts the {len(anchors)} pairs of biases"
        )
    _check(shapes, p)
    per_map = tuple(tuple(anchors[m] for m in mask[i * p["boxes"] : (i + 1) * p["boxes"]]) for i in range(len(shapes)))
    args = {"classes": p["classes"], "anchors": per_map, "scales": tuple(scales[: len(shapes)])}
    return Recipe("yolo.MaskedDetections", args | {"confidence": p["confidence"], "overlap": p["overlap"]}, ((1, 1, 1, 7),))


def _settings(layer: Layer, name: str, *, boxes: int) -> dict[str, Any]:
    """The fields of a message that no schema here has, with the fork's defaults."""
    p = layer.spec.part(name)
    if p is None:
        raise NetError(f"needs {name}")
    if not p.has("num_classes"):
        raise NetError("num_classes is missing")
    if p.has("label_map_file") or p.has("side"):  # names for what is printed; and a size that the map itself tells
        p.get("label_map_file"), p.get("side")
    listed = {key: value if isinstance(value := p.get(field, []), list) else [value] for key, field in _LISTS.items()}
    plain = {"classes": 0, "boxes": boxes, "confidence": 0.01, "overlap": 0.45, "coords": 4, "groups": 2}
    return listed | {key: p.get(_PLAIN[key], usual) for key, usual in plain.items()}


_LISTS = {"biases": "biases", "mask": "mask", "scales": "anchors_scale"}
_PLAIN = {
    "classes": "num_classes",
    "boxes": "num_box",
    "confidence": "confidence_threshold",
    "overlap": "nms_threshold",
    "coords": "coords",
    "groups": "mask_group_num",
}


def _anchors(p: dict[str, Any]) -> tuple[tuple[float, float], ...]:
    biases = [float(b) for b in p["biases"]]
    if not biases or len(biases) % 2:
        raise NetError(f"{len(biases)} biases: they are pairs, width and height of an anchor")
    return tuple(zip(biases[::2], biases[1::2], strict=True))


def _check(shapes: tuple[Shape, ...], p: dict[str, Any]) -> None:
    for shape in shapes:
        if len(shape) != 4 or shape[0] != 1 or shape[2] != shape[3] or shape[1] != p["boxes"] * (5 + p["classes"]):
            raise NetError(
                f"takes square maps [1, {p['boxes'] * (5 + p['classes'])}, S, S] of one image (the fork numbers every image 0), not {list(shape)}"
            )
