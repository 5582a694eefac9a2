"""The layers of the SSD detector: priors, decoding with suppression, evaluation, the training loss. Boxes are xmin, ymin, xmax, ymax.

Liu et al., SSD: Single Shot MultiBox Detector, 2016.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SMALL_BOX = 1e-5  # mining's suppression passes over boxes of a smaller area
NO_OVERLAP = 1e-6  # an overlap must be above, to match
LOG_FLT_MIN = 87.33654475  # -log of the smallest normal float32, where Caffe cuts a probability


class PriorBox(nn.Module):
    """Boxes of a feature map's cells, relative to the image: [1, 2, H * W * boxes * 4], boxes in row 0 and variances in row 1.

    `sizes` are (width, height) in pixels; a cell's centre is (index + offset) * step. None takes the image's size from the second
    input, and the step from the two sizes.
    """

    def __init__(
        self,
        sizes: tuple[tuple[float, float], ...],
        variance: tuple[float, ...],
        image: tuple[int, int] | None = None,
        step: tuple[float, float] | None = None,
        offset: float = 0.5,
        clip: bool = False,
    ) -> None:
        super().__init__()
        self.sizes, self.variance, self.image, self.step, self.offset, self.clip = sizes, variance, image, step, offset, clip

    def forward(self, x: Tensor, image: Tensor) -> Tensor:
        kind = torch.promote_types(x.dtype, torch.float32)
        height, width = self.image or (image.shape[2], image.shape[3])
        step = self.step or (height / x.shape[2], width / x.shape[3])
        y = (torch.arange(x.shape[2], dtype=kind, device=x.device) + self.offset) * step[0]
        x_ = (torch.arange(x.shape[3], dtype=kind, device=x.device) + self.offset) * step[1]
        half = torch.tensor(self.sizes, dtype=kind, device=x.device) / 2
        y, x_ = y[:, None, None].expand(-1, x_.shape[0], half.shape[0]), x_[:, None].expand(y.shape[0], -1, half.shape[0])
        box = torch.stack([(x_ - half[:, 0]) / width, (y - half[:, 1]) / height, (x_ + half[:, 0]) / width, (y + half[:, 1]) / height], dim=-1)
        box = box.clamp(0, 1) if self.clip else box
        variance = torch.tensor(self.variance, dtype=kind, device=x.device).expand(box.shape)
        return torch.stack([box.flatten(), variance.flatten()])[None].to(x.dtype)


# Boxes ----------------------------------------------------------------------------------------------------------------


def corners(prior: Tensor) -> tuple[Tensor, Tensor]:
    """A blob of priors [1, 2, P * 4] as boxes [P, 4] and variances [P, 4]."""
    boxes, variance = prior.reshape(2, -1, 4).unbind(0)
    return boxes, variance


def centers(box: Tensor) -> tuple[Tensor, Tensor]:
    """Centres and sizes [..., 2] of boxes [..., 4]."""
    low, high = box[..., :2], box[..., 2:]
    return (low + high) / 2, high - low


def decode(loc: Tensor, box: Tensor, variance: Tensor, *, code: str, in_target: bool) -> Tensor:
    """The boxes that predictions [..., 4] mean, relative to priors [..., 4]; with `in_target` the variance is in them already."""
    loc = loc if in_target else loc * variance
    center, size = centers(box)
    if code == "CORNER":
        return box + loc
    if code == "CORNER_SIZE":
        return box + loc * torch.cat([size, size], -1)
    center, half = loc[..., :2] * size + center, loc[..., 2:].exp() * size / 2
    return torch.cat([center - half, center + half], -1)


def encode(truth: Tensor, box: Tensor, variance: Tensor, *, code: str, in_target: bool) -> Tensor:
    """What `decode` undoes: truth boxes [..., 4] relative to priors [..., 4]."""
    center, size = centers(box)
    if code == "CORNER":
        target = truth - box
    elif code == "CORNER_SIZE":
        target = (truth - box) / torch.cat([size, size], -1)
    else:
        truth_center, truth_size = centers(truth)
        target = torch.cat([(truth_center - center) / size, (truth_size / size).log()], -1)
    return target if in_target else target / variance


def area(box: Tensor, pixel: float = 0.0) -> Tensor:
    """Areas of boxes [..., 4], 0 of inverted ones; with `pixel` 1 the last pixel counts."""
    size = box[..., 2:] - box[..., :2]
    return torch.where((size < 0).any(-1), 0, (size + pixel).prod(-1))


def overlap(a: Tensor, b: Tensor, pixel: float = 0.0) -> Tensor:
    """Jaccard overlap of boxes [..., 4] that broadcast. In pixels, boxes that do not meet share one pixel, as in Caffe."""
    size = torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])
    if pixel:
        size = torch.where((size < 0).any(-1, keepdim=True), 0, size)
    size = size + pixel
    shared = size.prod(-1)
    both = area(a, pixel) + area(b, pixel) - shared
    return torch.where((size > 0).all(-1), shared / both, 0)


def highest(score: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` highest of the last axis and their places; equal ones in their order."""
    if torch.compiler.is_exporting():  # ONNX has no stable sort; its TopK keeps the order of equals
        return torch.topk(score, count)
    score, index = score.sort(dim=-1, descending=True, stable=True)
    return score[..., :count], index[..., :count]


def suppress(box: Tensor, candidate: Tensor, threshold: float, eta: float = 1.0) -> Tensor:
    """Which candidates are kept, [M, K]: from the first on, those that overlap none of the kept by more than `threshold`.

    box [M, K, 4] and candidate [M, K] in the order of their scores. `eta` shrinks a row's threshold after each kept box, while it is above 0.5.
    """
    place = torch.arange(box.shape[1], device=box.device)

    def some(left: Tensor, keep: Tensor, worst: Tensor, limit: Tensor) -> Tensor:
        return left.any()

    def take(left: Tensor, keep: Tensor, worst: Tensor, limit: Tensor) -> tuple[Tensor, ...]:
        best = left.to(torch.uint8).argmax(1, keepdim=True)  # of each row the first that is left, if one is
        found = left.any(1, keepdim=True)
        taken = box.gather(1, best[..., None].expand(-1, -1, 4))
        worst = torch.maximum(worst, overlap(taken, box) * found)
        limit = torch.where(found & (limit > 0.5), limit * eta, limit * 1)
        return left & (place > best) & (worst <= limit), keep | ((place == best) & found), worst, limit

    worst = torch.zeros_like(box[..., 0])
    state: tuple[Tensor, ...] = (candidate.clone(), torch.zeros_like(candidate), worst, torch.full_like(worst[:, :1], threshold))
    if torch.compiler.is_compiling():
        return torch.while_loop(some, take, state)[1]  # type: ignore[attr-defined, no-any-return]
    while bool(some(*state)):
        state = take(*state)
    return state[1]


class DetectionOutput(nn.Module):
    """Locations [N, P * 4 or P * C * 4], confidences [N, P * C] and priors [1, 2, P * 4] -> detections [1, 1, K, 7].

    A row is image, label, score, box; in the order of images, labels, scores. If nothing is found, each image has a row
    [image, -1, -1, -1, -1, -1, -1]. `top_k` and `keep_top_k` of -1 mean all. The number of rows depends on the values.
    """

    def __init__(
        self,
        classes: int,
        background: int = 0,
        share_location: bool = True,
        code: str = "CORNER",
        variance_in_target: bool = False,
        confidence: float = float("-inf"),
        overlap: float = 0.3,
        eta: float = 1.0,
        top_k: int = -1,
        keep_top_k: int = -1,
    ) -> None:
        super().__init__()
        self.classes, self.background, self.share_location = classes, background, share_location
        self.code, self.variance_in_target = code, variance_in_target
        self.confidence, self.overlap, self.eta = confidence, overlap, eta
        self.top_k, self.keep_top_k = top_k, keep_top_k
        self.as_operator = False  # set while a file is written whose format has an operator for this

    def forward(self, loc: Tensor, confidence: Tensor, prior: Tensor) -> Tensor:
        if self.as_operator:
            return self.exported(loc.detach(), confidence.detach(), prior.detach())
        labels = torch.tensor([c for c in range(self.classes) if c != self.background], device=loc.device)
        score, box = self.candidates(loc.detach(), confidence.detach(), prior.detach(), labels)
        keep = score > self.confidence
        if not torch.compiler.is_compiling():  # nothing behind the last candidate matters
            longest = int(keep.sum(-1).amax()) if keep.numel() else 0
            score, box, keep = score[..., :longest], box[..., :longest, :], keep[..., :longest]
        keep = suppress(box.flatten(0, 1), keep.flatten(0, 1), self.overlap, self.eta).view_as(keep)
        if self.keep_top_k > -1:
            most = min(self.keep_top_k, keep[0].numel())
            best = torch.where(keep, score, float("-inf")).flatten(1).topk(most).indices
            keep = keep & torch.zeros_like(keep).flatten(1).scatter(1, best, True).view_as(keep)
        return self.rows(score, box, keep, labels)

    def exported(self, loc: Tensor, confidence: Tensor, prior: Tensor) -> Tensor:
        """The same as one operator, for one box for all classes; converters/onnx_ops.py has its translation."""
        priors, variance = corners(prior)
        box = decode(loc.reshape(loc.shape[0], -1, 4), priors, variance, code=self.code, in_target=self.variance_in_target)
        score = confidence.reshape(confidence.shape[0], priors.shape[0], -1)
        settings = (self.background, self.overlap, self.top_k, self.keep_top_k, self.confidence)
        return torch.ops.decant.detections(box, score, *settings)  # type: ignore[no-any-return]

    def candidates(self, loc: Tensor, confidence: Tensor, prior: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Scores [N, labels, K] from the highest on, and their boxes [N, labels, K, 4]. Equal scores go by their prior."""
        priors, variance = corners(prior)
        loc = loc.reshape(loc.shape[0], priors.shape[0], -1, 4)
        box = decode(loc, priors[:, None], variance[:, None], code=self.code, in_target=self.variance_in_target).transpose(1, 2)
        box = box.expand(-1, labels.shape[0], -1, -1) if self.share_location else box[:, labels]
        score = confidence.reshape(confidence.shape[0], priors.shape[0], -1).transpose(1, 2)[:, labels]
        count = priors.shape[0] if self.top_k < 0 else min(self.top_k, priors.shape[0])
        score, index = highest(score, count)
        return score, box.gather(2, index[..., None].expand(-1, -1, -1, 4))

    def rows(self, score: Tensor, box: Tensor, keep: Tensor, labels: Tensor) -> Tensor:
        """The rows of what is kept; or the row of -1 of every image."""
        image = torch.arange(score.shape[0], dtype=score.dtype, device=score.device)
        label = labels.to(score.dtype)[:, None].expand_as(score)
        found = torch.cat([torch.stack([image[:, None, None].expand_as(score), label, score], -1), box], -1)
        empty = F.pad(image[:, None], (0, 6), value=-1.0)
        nothing = ~keep.any().expand(image.shape[0])
        made = torch.cat([found.flatten(0, 2), empty])
        return made[torch.cat([keep.flatten(), nothing])][None, None]
