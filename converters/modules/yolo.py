"""YOLO's detections. Redmon & Farhadi, YOLO9000 (2016) and YOLOv3 (2018), as github.com/eric612/MobileNet-YOLO decodes them."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RegionDetections(nn.Module):
    """Maps [1, boxes (5 + classes), S, S] -> [1, 1, K, 7]: every cell's boxes with their best class, above a score, after suppression."""

    def __init__(self, classes: int, anchors: tuple[tuple[float, float], ...], confidence: float, overlap: float) -> None:
        super().__init__()
        self.classes, self.anchors, self.confidence, self.overlap = classes, anchors, confidence, overlap

    def forward(self, *maps: Tensor) -> Tensor:
        found = [self.decoded(x.detach()) for x in maps]
        box, score, label = (torch.cat(parts) for parts in zip(*found, strict=True))
        kept = score >= self.confidence
        return rows(box[kept], score[kept], label[kept], self.overlap)

    def decoded(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes [K, 4] as centre and size in parts of the image, scores and labels [K]: cell by cell, anchor by anchor."""
        box, objectness, classes = raw(x, self.anchors, self.classes, x.shape[3])
        best, label = classes.softmax(-1).max(-1)
        return box, objectness * best, label


class MaskedDetections(nn.Module):
    """Maps [1, boxes (5 + classes), S, S] -> [1, 1, K, 7]: a row for every class whose score is above the threshold, after suppression."""

    def __init__(
        self, classes: int, anchors: tuple[tuple[tuple[float, float], ...], ...], scales: tuple[int, ...], confidence: float, overlap: float
    ) -> None:
        super().__init__()
        self.classes, self.anchors, self.scales = classes, anchors, scales
        self.confidence, self.overlap = confidence, overlap

    def forward(self, *maps: Tensor) -> Tensor:
        boxes, scores, labels = [], [], []
        for x, anchors, scale in zip(maps, self.anchors, self.scales, strict=True):
            box, objectness, classes = raw(x.detach(), anchors, self.classes, x.shape[3] * scale)
            score = classes.sigmoid() * objectness[:, None]
            place, label = (score > self.confidence).nonzero(as_tuple=True)
            boxes.append(box[place])
            scores.append(score[place, label])
            labels.append(label)
        return rows(torch.cat(boxes), torch.cat(scores), torch.cat(labels), self.overlap)


def raw(x: Tensor, anchors: tuple[tuple[float, float], ...], classes: int, extent: int) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes [K, 4] as centre and size in parts of the image, objectness [K] and class values [K, classes], cell by cell.

    Anchors are in units of the image's `extent`.
    """
    side = x.shape[3]
    cells = x[0].unflatten(0, (len(anchors), 5 + classes)).permute(2, 3, 0, 1)  # [S, S, boxes, 5 + classes]
    row, column = torch.meshgrid(torch.arange(side, device=x.device), torch.arange(side, device=x.device), indexing="ij")
    corner = torch.stack((column, row), -1)[:, :, None]
    centre = (corner + cells[..., :2].sigmoid()) / side
    size = cells[..., 2:4].exp() * torch.tensor(anchors, device=x.device, dtype=x.dtype) / extent
    return torch.cat((centre, size), -1).reshape(-1, 4), cells[..., 4].sigmoid().flatten(), cells[..., 5:].reshape(-1, classes)


def rows(box: Tensor, score: Tensor, label: Tensor, overlap: float) -> Tensor:
    """[1, 1, K, 7]: 0, label + 1, score and corners of the boxes that no better one overlaps, of whatever class; one row 0, -1, ... if none."""
    if torch.compiler.is_compiling():
        raise NotImplementedError("how many boxes a YOLO output gives depends on the values: torch.export and compile take the net up to it")
    if not len(box):
        return torch.tensor([[[[0.0] + [-1.0] * 6]]], device=box.device, dtype=box.dtype)
    order = score.argsort(descending=True, stable=True)
    box, score, label = box[order], score[order], label[order]
    low, high = box[:, :2] - box[:, 2:] / 2, box[:, :2] + box[:, 2:] / 2
    shared = (torch.minimum(high[:, None], high) - torch.maximum(low[:, None], low)).clamp(min=0).prod(2)
    area = box[:, 2:].prod(1)
    rival = shared / (area[:, None] + area - shared) >= overlap
    kept = torch.ones_like(score, dtype=torch.bool)
    for i in range(len(box)):
        if kept[i]:
            kept[i + 1 :] &= ~rival[i, i + 1 :]
    front = torch.stack((torch.zeros_like(score), label.to(score.dtype) + 1, score), 1)
    return torch.cat((front, low, high), 1)[kept][None, None]
