"""Operators that stand for a module's data-dependent part while it is exported, and what each becomes in ONNX's own operators."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor


@cache
def translations() -> dict[Any, Callable[..., Any]]:
    """{operator: its translation}, for torch.onnx.export; registers the operators with torch the first time."""
    _register()
    operators = torch.ops.decant
    return {operators.detections.default: _detections(), operators.roi_pool.default: _roi_pool(), operators.suppressed.default: _suppressed()}


def _register() -> None:
    @torch.library.custom_op("decant::detections", mutates_args=())
    def detections(
        boxes: Tensor, scores: Tensor, background: int, nms_threshold: float, top_k: int, keep_top_k: int, confidence_threshold: float
    ) -> Tensor:
        raise NotImplementedError("this operator is for export; the eager module computes by itself")

    @detections.register_fake
    def _(boxes: Tensor, scores: Tensor, background: int, nms_threshold: float, top_k: int, keep_top_k: int, confidence_threshold: float) -> Tensor:
        return boxes.new_empty((1, 1, torch.library.get_ctx().new_dynamic_size(), 7))

    @torch.library.custom_op("decant::roi_pool", mutates_args=())
    def roi_pool(x: Tensor, regions: Tensor, high: int, wide: int, scale: float) -> Tensor:
        raise NotImplementedError("this operator is for export; the eager module computes by itself")

    @roi_pool.register_fake
    def _(x: Tensor, regions: Tensor, high: int, wide: int, scale: float) -> Tensor:
        return x.new_empty((regions.shape[0], x.shape[1], high, wide))

    @torch.library.custom_op("decant::suppressed", mutates_args=())
    def suppressed(box: Tensor, score: Tensor, overlap: float, most: int) -> Tensor:
        raise NotImplementedError("this operator is for export; the eager module computes by itself")

    @suppressed.register_fake
    def _(box: Tensor, score: Tensor, overlap: float, most: int) -> Tensor:
        return box.new_empty((torch.library.get_ctx().new_dynamic_size(),), dtype=torch.int64)


def _roi_pool() -> Callable[..., Any]:
    from onnxscript import opset18 as op

    def translate(x: Any, regions: Any, high: int, wide: int, scale: float) -> Any:
        """ONNX's MaxRoiPool is Fast R-CNN's."""
        return op.MaxRoiPool(x, regions, pooled_shape=[high, wide], spatial_scale=scale)

    return translate


def _suppressed() -> Callable[..., Any]:
    from onnxscript import opset18 as op

    def translate(box: Any, score: Any, overlap: float, most: int) -> Any:
        """box [K, 4] by falling score [K] -> places [M]. Both ends of a box are inside, so it is one wider than ONNX takes it."""
        box = op.Add(box, op.Constant(value_floats=[0.0, 0.0, 1.0, 1.0]))
        selected = op.NonMaxSuppression(
            op.Unsqueeze(box, op.Constant(value_ints=[0])),
            op.Unsqueeze(score, op.Constant(value_ints=[0, 1])),
            op.Constant(value_ints=[most]),
            op.Constant(value_floats=[overlap]),
            op.Constant(value_floats=[-3.0e38]),
        )
        return op.Gather(selected, op.Constant(value_int=2), axis=1)

    return translate


def _detections() -> Callable[..., Any]:
    from onnxscript import opset18 as op

    def constant(*values: int) -> Any:
        return op.Constant(value_ints=list(values))

    def translate(boxes: Any, scores: Any, background: int, nms_threshold: float, top_k: int, keep_top_k: int, confidence_threshold: float) -> Any:
        """boxes [N, P, 4], scores [N, P, C] -> [1, 1, K, 7]; the background's scores sink below every threshold."""
        by_class = op.Transpose(scores, perm=[0, 2, 1])
        lowest = op.Constant(value_float=-3.0e38)
        if background >= 0:
            classes = op.Shape(by_class, start=1, end=2)
            index = op.Range(op.Constant(value_int=0), op.Squeeze(classes), op.Constant(value_int=1))
            hidden = op.Unsqueeze(op.Equal(index, op.Constant(value_int=background)), constant(0, 2))
            by_class = op.Where(hidden, lowest, by_class)
        if top_k >= 0:
            priors = op.Shape(by_class, start=2, end=3)
            best, place = op.TopK(by_class, op.Min(priors, constant(max(top_k, 1))), axis=2, largest=1, sorted=1)  # of equals the first
            by_class = op.ScatterElements(op.Expand(lowest, op.Shape(by_class)), place, best, axis=2)
        threshold = 3.0e38 if top_k == 0 else max(confidence_threshold, -2.9e38)
        selected = op.NonMaxSuppression(
            boxes, by_class, op.Shape(by_class, start=2, end=3), op.Constant(value_floats=[nms_threshold]), op.Constant(value_floats=[threshold])
        )  # [K, 3]: image, class, box; class by class, by score
        image, label, box = (op.Gather(selected, op.Constant(value_int=i), axis=1) for i in range(3))
        score = op.GatherND(by_class, selected)
        if keep_top_k > -1:
            keep = _best_of_image(op, image, score, keep_top_k)
            places = op.Squeeze(op.NonZero(keep), constant(0))  # OpenCV 5.0 has no Compress
            image, label, box, score = (op.Gather(v, places, axis=0) for v in (image, label, box, score))
        corners = op.GatherND(boxes, op.Concat(op.Unsqueeze(image, constant(1)), op.Unsqueeze(box, constant(1)), axis=1))
        columns = [op.Unsqueeze(op.Cast(v, to=1), constant(1)) for v in (image, label, score)]
        rows = op.Concat(*columns, corners, axis=1)
        return op.Unsqueeze(op.Concat(rows, _nothing(op, boxes, rows, constant), axis=0), constant(0, 1))

    return translate


def _best_of_image(op: Any, image: Any, score: Any, keep: int) -> Any:
    """[K] bool: whether fewer than `keep` detections of the same image have a higher score, or an equal one and come first."""
    across, down = op.Constant(value_ints=[0]), op.Constant(value_ints=[1])
    same = op.Equal(op.Unsqueeze(image, across), op.Unsqueeze(image, down))
    rival, own = op.Unsqueeze(score, across), op.Unsqueeze(score, down)
    place = op.Range(op.Constant(value_int=0), op.Size(score), op.Constant(value_int=1))
    first = op.And(op.Equal(rival, own), op.Less(op.Unsqueeze(place, across), op.Unsqueeze(place, down)))
    better = op.And(same, op.Or(op.Greater(rival, own), first))
    rivals = op.ReduceSum(op.Cast(better, to=7), down, keepdims=0)
    return op.Less(rivals, op.Constant(value_int=keep))


def _nothing(op: Any, boxes: Any, rows: Any, constant: Callable[..., Any]) -> Any:
    """One row (image, -1, ...) an image if there is no detection at all, else no row."""
    batch = op.Shape(boxes, start=0, end=1)
    images = op.Range(op.Constant(value_int=0), op.Squeeze(batch), op.Constant(value_int=1))
    first = op.Unsqueeze(op.Cast(images, to=1), constant(1))
    rest = op.Expand(op.Constant(value_floats=[-1.0]), op.Concat(batch, constant(6), axis=0))
    empty = op.Cast(op.Equal(op.Shape(rows, start=0, end=1), constant(0)), to=7)
    return op.Slice(op.Concat(first, rest, axis=1), constant(0), op.Mul(batch, empty), constant(0))
