"""Python layers. Their code lies beside the net and is never imported; the known ones have a rule here, by module and class name."""

from __future__ import annotations

import re
from typing import Any

from prototxt import NetError, UnsupportedLayer
from prototxt.net import Layer

from ..recipe import Recipe, Shape
from ..registry import layer, python_layer, python_rule


@layer("Python", bottoms=(0, None), tops=(0, None), onnx="it runs code of its author's, here by a rule")
def python(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """Whatever the rule of its class says; UnsupportedLayer if there is none."""
    p = layer.spec.python_param
    rule = python_rule(p.module, p.layer)
    if rule is None:
        raise UnsupportedLayer(
            f"the Python layer {p.layer!r} of the module {p.module!r} is code beside the net, which Decant does not run; "
            "@python_layer gives a rule for it: docs/adding-a-layer.md"
        )
    made = rule(layer, shapes)
    if not isinstance(made, Recipe):
        raise NetError(f"the rule of the Python layer {p.layer!r} must return a Recipe")
    return made


@python_layer("ProposalLayer")
def proposal(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """Scores [1, 2 A, H, W], box deltas [1, 4 A, H, W] and im_info [1, 3] -> regions [R, 5], and by choice scores [R, 1] (py-faster-rcnn).

    The limits are those of its config at TEST: 6000 before suppression, 300 after, 0.7, 16 pixels; at TRAIN 12000 and 2000.
    """
    if len(shapes) != 3 or not 1 <= len(layer.tops) <= 2 or shapes[0][0] != 1:
        raise NetError("takes scores, deltas and im_info of one image, and gives regions and by choice their scores")
    settings = _settings(layer.spec.python_param.param_str)
    scales = tuple(settings.get("scales", (8, 16, 32)))
    anchors = 3 * len(scales)
    if shapes[0][1] != 2 * anchors or shapes[1][1] != 4 * anchors:
        raise NetError(f"{anchors} anchors do not go with scores {list(shapes[0])} and deltas {list(shapes[1])}")
    before, after = (12000, 2000) if layer.phase == "TRAIN" else (6000, 300)
    args = {"stride": settings["feat_stride"], "scales": scales, "before": before, "after": after, "scores": len(layer.tops) == 2}
    return Recipe("proposal.Proposal", args, ((1, 5), (1, 1))[: len(layer.tops)])


def _settings(text: str) -> dict[str, Any]:
    """feat_stride and scales of a param_str, which is YAML of a few words; NetError for anything else."""
    rest, found = text, {}
    for name, pattern in (("feat_stride", r"(\d+)"), ("scales", r"(?:!!python/tuple\s*)?[\[(]([\d\s,]+)[\])]")):
        match = re.search(rf"['\"]?{name}['\"]?\s*:\s*{pattern}", rest)
        if match:
            numbers = [int(n) for n in re.findall(r"\d+", match[1])]
            found[name] = numbers[0] if name == "feat_stride" else numbers
            rest = rest.replace(match[0], "")
    if "feat_stride" not in found or re.sub(r"[{},\s]", "", rest):
        raise NetError(f"param_str {text!r}: known are feat_stride, which it must have, and scales")
    return found
