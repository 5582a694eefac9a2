"""SSD's boxes: the priors of a map, and the detections that are left of the predictions."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PriorBox(nn.Module):
    """Boxes of given sizes around each cell of a map [N, C, H, W], relative to the image [N, C, h, w]: [1, 2, H * W * boxes * 4]."""

    def __init__(
        self,
        sizes: tuple[tuple[float, float], ...],
        variance: tuple[float, ...],
        offset: float,
        clip: bool,
        image: tuple[float, float] | None = None,
        step: tuple[float, float] | None = None,
    ) -> None:
        super().__init__()
        self.sizes, self.variance, self.offset, self.clip, self.image, self.step = sizes, variance, offset, clip, image, step

    def forward(self, x: Tensor, image: Tensor) -> Tensor:
        rows, columns = x.shape[2], x.shape[3]
        height, width = self.image or (image.shape[2], image.shape[3])
        step_y, step_x = self.step or (height / rows, width / columns)
        centre_y = ((torch.arange(rows, device=x.device, dtype=x.dtype) + self.offset) * step_y)[:, None, None]
        centre_x = ((torch.arange(columns, device=x.device, dtype=x.dtype) + self.offset) * step_x)[None, :, None]
        half = torch.tensor(self.sizes, device=x.device, dtype=x.dtype) / 2
        edges = (
            (centre_x - half[:, 0]) / width,
            (centre_y - half[:, 1]) / height,
            (centre_x + half[:, 0]) / width,
            (centre_y + half[:, 1]) / height,
        )
        boxes = torch.stack([edge.expand(rows, columns, len(self.sizes)) for edge in edges], -1)
        boxes = (boxes.clamp(0, 1) if self.clip else boxes).reshape(1, 1, -1)
        variance = torch.tensor(self.variance, device=x.device, dtype=x.dtype).repeat(rows * columns * len(self.sizes))
        return torch.cat((boxes, variance.reshape(1, 1, -1)), 1)


class DetectionOutput(nn.Module):
    """Decodes boxes [N, P, 4], and keeps of each class those that no better one overlaps: rows (image, class, score, box), [1, 1, K, 7].

    A score must be above `confidence_threshold`; `top_k` cuts a class's candidates before suppression, `keep_top_k` an image's
    detections after it. With no detection at all there is one row (image, -1, ..., -1) an image.
    """

    def __init__(
        self,
        classes: int,
        share_location: bool,
        background: int,
        code_type: str,
        variance_in_target: bool,
        nms_threshold: float,
        eta: float,
        top_k: int,
        keep_top_k: int,
        confidence_threshold: float,
    ) -> None:
        super().__init__()
        self.classes, self.share_location, self.background = classes, share_location, background
        self.code_type, self.variance_in_target = code_type, variance_in_target
        self.nms_threshold, self.eta, self.top_k, self.keep_top_k = nms_threshold, eta, top_k, keep_top_k
        self.confidence_threshold = confidence_threshold

    def forward(self, location: Tensor, confidence: Tensor, priors: Tensor) -> Tensor:
        batch, count = location.shape[0], priors.shape[2] // 4
        sets = 1 if self.share_location else self.classes
        boxes = self.decoded(location.detach().reshape(batch, count, sets, 4), priors.detach())
        scores = confidence.detach().reshape(batch, count, self.classes)
        if torch.compiler.is_exporting():  # an operator that Decant's ONNX export translates
            return torch.ops.decant.detections(  # type: ignore[no-any-return]
                boxes[:, :, 0], scores, self.background, self.nms_threshold, self.top_k, self.keep_top_k, self.confidence_threshold
            )
        rows = [row for image in range(batch) for row in self.of_image(image, boxes[image], scores[image])]
        if not rows:
            rows = [torch.cat((boxes.new_tensor([image]), boxes.new_full((6,), -1.0))) for image in range(batch)]
        return torch.stack(rows)[None, None]

    def decoded(self, t: Tensor, priors: Tensor) -> Tensor:
        """Boxes [N, P, sets, 4] of predictions: corners beside the prior's, or centre and size relative to it."""
        prior = priors[0, 0].reshape(-1, 1, 4)
        t = t if self.variance_in_target else t * priors[0, 1].reshape(-1, 1, 4)
        if self.code_type == "CORNER":
            return prior + t
        size = prior[..., 2:] - prior[..., :2]
        if self.code_type == "CORNER_SIZE":
            return prior + t * torch.cat((size, size), -1)
        centre = (prior[..., 2:] + prior[..., :2]) / 2 + t[..., :2] * size
        half = t[..., 2:].exp() * size / 2
        return torch.cat((centre - half, centre + half), -1)

    def of_image(self, image: int, boxes: Tensor, scores: Tensor) -> list[Tensor]:
        """The rows of one image: class by class, by score."""
        found = []
        for label in range(self.classes):
            if label != self.background:
                of_class = boxes[:, 0 if self.share_location else label]
                found += [(float(scores[i, label]), label, i, of_class[i]) for i in self.kept(of_class, scores[:, label])]
        if -1 < self.keep_top_k < len(found):
            found = sorted(found, key=lambda f: -f[0])[: self.keep_top_k]
        found.sort(key=lambda f: (f[1], -f[0]))
        return [torch.cat((boxes.new_tensor([image, label, score]), box)) for score, label, _, box in found]

    def kept(self, boxes: Tensor, scores: Tensor) -> list[int]:
        """Indices that greedy suppression keeps, the best first; equal scores go by index."""
        order = scores.sort(descending=True, stable=True).indices
        order = order[scores[order] > self.confidence_threshold]
        order = order if self.top_k < 0 else order[: self.top_k]
        overlap = overlaps(boxes[order]).tolist()
        threshold, kept = self.nms_threshold, list[int]()
        for i in range(len(order)):
            if all(overlap[i][j] <= threshold for j in kept):
                kept.append(i)
                if self.eta < 1 and threshold > 0.5:
                    threshold *= self.eta
        return [int(order[i]) for i in kept]


def overlaps(boxes: Tensor) -> Tensor:
    """Intersection over union of boxes [K, 4] with each other, [K, K]; an inverted box has no area."""
    low = torch.maximum(boxes[:, None, :2], boxes[:, :2])
    high = torch.minimum(boxes[:, None, 2:], boxes[:, 2:])
    apart = (boxes[:, None, :2] > boxes[:, 2:]).any(-1) | (boxes[:, None, 2:] < boxes[:, :2]).any(-1)
    both = torch.where(apart, 0.0, (high - low).prod(-1))
    size = boxes[:, 2:] - boxes[:, :2]
    area = torch.where((size < 0).any(-1), 0.0, size.prod(-1))
    return torch.where(both > 0, both / (area[:, None] + area - both), 0.0)
