"""Region proposals of Faster R-CNN (Ren et al. 2015), as its Python layer computes them."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Proposal(nn.Module):
    """Anchors moved by deltas, cut to the image, the small ones left out, the best before and after suppression: [R, 5], first column 0."""

    anchors: Tensor

    def __init__(self, stride: int, scales: tuple[int, ...], before: int, after: int, scores: bool, overlap: float = 0.7, least: int = 16) -> None:
        super().__init__()
        self.stride, self.before, self.after, self.scores = stride, before, after, scores
        self.overlap, self.least = overlap, least
        self.register_buffer("anchors", base_anchors(scales), persistent=False)

    def forward(self, scores: Tensor, deltas: Tensor, info: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        count, (rows, columns) = self.anchors.shape[0], scores.shape[2:]
        score = scores.detach()[0, count:].permute(1, 2, 0).reshape(-1)
        delta = deltas.detach()[0].permute(1, 2, 0).reshape(-1, 4)
        y, x = torch.meshgrid(torch.arange(rows, device=scores.device), torch.arange(columns, device=scores.device), indexing="ij")
        shift = (torch.stack((x, y, x, y), -1) * self.stride).reshape(-1, 1, 4)
        box = moved((shift + self.anchors).reshape(-1, 4).to(delta.dtype), delta)
        height, width, scale = info.detach()[0, :3]
        box = torch.minimum(box.clamp(min=0), torch.stack((width, height, width, height)) - 1)
        large = (box[:, 2:] - box[:, :2] + 1 >= self.least * scale).all(1)
        score, box = score[large], box[large]
        order = score.argsort(descending=True, stable=True)[: self.before]
        score, box = score[order], box[order]
        kept = suppressed(box, self.overlap, self.after)
        regions = torch.cat((box.new_zeros(len(kept), 1), box[kept]), 1)
        return (regions, score[kept][:, None]) if self.scores else regions


def base_anchors(scales: tuple[int, ...]) -> Tensor:
    """[3 * scales, 4]: a 16 x 16 window in the ratios 1/2, 1 and 2, whole pixels, times the scales."""
    found = []
    for ratio in (0.5, 1.0, 2.0):
        width = round((256 / ratio) ** 0.5)
        height = round(width * ratio)
        for scale in scales:
            w, h = width * scale, height * scale
            found.append([7.5 - 0.5 * (w - 1), 7.5 - 0.5 * (h - 1), 7.5 + 0.5 * (w - 1), 7.5 + 0.5 * (h - 1)])
    return torch.tensor(found)


def moved(box: Tensor, delta: Tensor) -> Tensor:
    """Boxes [K, 4] whose centre and size are moved by deltas [K, 4]; both ends count as inside."""
    size = box[:, 2:] - box[:, :2] + 1
    centre = box[:, :2] + 0.5 * size + delta[:, :2] * size
    half = 0.5 * delta[:, 2:].exp() * size
    return torch.cat((centre - half, centre + half), 1)


def suppressed(box: Tensor, threshold: float, most: int) -> Tensor:
    """Places of the boxes, in their order, that no kept one overlaps by more than the threshold; at most `most`."""
    area = (box[:, 2:] - box[:, :2] + 1).prod(1)
    left, kept = torch.arange(len(box), device=box.device), list[Tensor]()
    while len(left) and len(kept) < most:
        first, left = left[0], left[1:]
        kept.append(first)
        low, high = torch.maximum(box[first, :2], box[left, :2]), torch.minimum(box[first, 2:], box[left, 2:])
        shared = (high - low + 1).clamp(min=0).prod(1)
        left = left[shared / (area[first] + area[left] - shared) <= threshold]
    return torch.stack(kept) if kept else left
