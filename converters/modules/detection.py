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


def crosses(box: Tensor) -> Tensor:
    """Which boxes [..., 4] reach out of the image."""
    return ((box < 0) | (box > 1)).any(-1)


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
            _, best = highest(torch.where(keep, score, float("-inf")).flatten(1), most)
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


# Training and evaluation ----------------------------------------------------------------------------------------------


def like(t: Tensor, other: Tensor) -> Tensor:
    """The values in the shape of the other; a reshape to the same shape would cost as much as a small loss."""
    return t if t.shape == other.shape else t.reshape(other.shape)


class SmoothL1Loss(nn.Module):
    """0.5 (s d)^2 where |d| < 1 / s^2, else |d| - 0.5 / s^2, summed, by the batch size; d is weighed inside and the cost outside."""

    def __init__(self, sigma: float = 1.0) -> None:
        super().__init__()
        self.sigma = sigma

    def forward(self, a: Tensor, b: Tensor, inside: Tensor | None = None, outside: Tensor | None = None) -> Tensor:
        if inside is None and outside is None:
            return F.smooth_l1_loss(a, like(b, a), reduction="sum", beta=1 / self.sigma**2) / a.shape[0]
        difference = a - like(b, a)
        difference = difference if inside is None else difference * like(inside.detach(), a)
        cost = smooth_l1(difference, self.sigma)
        cost = cost if outside is None else cost * like(outside.detach(), a)
        return cost.sum() / a.shape[0]


def smooth_l1(difference: Tensor, sigma: float = 1.0) -> Tensor:
    """The cost of each difference."""
    return F.smooth_l1_loss(difference, difference.new_zeros(()).expand_as(difference), reduction="none", beta=1 / sigma**2)


def check_labels(rows: Tensor, background: int) -> None:
    """IndexError if a box [K, 7 or 8] has the label of the background."""
    if bool((rows[:, 1].trunc() == background).any()):
        raise IndexError(f"a box has the label {background} of the background")


def first_best(values: Tensor) -> int:
    """The place of the largest of [K]; of equals the first."""
    return int((values == values.max()).nonzero()[0, 0])


class DetectionEvaluate(nn.Module):
    """Detections [1, 1, K, 7] and truth [1, 1, M, 8] -> [1, 1, classes + K, 5]: rows (image, label, score, true, false positive).

    First a row (-1, label, number of truth boxes, -1, -1) for each class. `sizes` are (height, width) of a data set's images, for boxes in
    pixels: each image that has a row takes the next one, from batch to batch and then from the first again.
    """

    def __init__(
        self, classes: int, background: int, threshold: float, difficult: bool = True, sizes: tuple[tuple[int, int], ...] | None = None
    ) -> None:
        super().__init__()
        self.classes, self.background, self.threshold, self.difficult, self.sizes = classes, background, threshold, difficult, sizes
        self.seen = 0

    def forward(self, detections: Tensor, truth: Tensor) -> Tensor:
        found, true = detections.detach().reshape(-1, 7), truth.detach().reshape(-1, 8)
        ended = (true[:, 0] == -1).nonzero()
        true = true[: int(ended[0, 0])] if len(ended) else true  # the first row of -1 ends the list
        found = found[found[:, 0] != -1]
        for boxes in (found, true):
            check_labels(boxes, self.background)
        rows = []
        for label in range(self.classes):
            if label != self.background:
                counted = (true[:, 1] == label) & (torch.ones_like(true[:, 7], dtype=torch.bool) if self.difficult else true[:, 7] == 0)
                rows.append([-1.0, float(label), float(counted.sum()), -1.0, -1.0])
        for image in found[:, 0].unique().tolist():
            size = None if self.sizes is None else self.sizes[self.seen % len(self.sizes)]
            self.seen += 1
            boxes = found[(found[:, 0] == image) & (found[:, 1] != -1)]
            rows += self.of_image(image, boxes, true[true[:, 0] == image], size)
        return detections.new_tensor(rows).reshape(1, 1, -1, 5)

    def of_image(self, image: float, found: Tensor, true: Tensor, size: tuple[int, int] | None) -> list[list[float]]:
        """The rows of one image, label by label."""
        rows = []
        for label in found[:, 1].unique().tolist():
            boxes, truths = found[found[:, 1] == label], true[true[:, 1] == label]
            if len(truths) == 0:
                rows += [[image, label, score, 0.0, 1.0] for score in boxes[:, 2].tolist()]
                continue
            boxes = boxes[boxes[:, 2].argsort(descending=True, stable=True)]
            overlaps = overlap(self.scaled(boxes[:, None, 3:], size), self.scaled(truths[:, 3:7], size), 0.0 if size is None else 1.0)
            visited = set[int]()
            for box, row in zip(boxes, overlaps, strict=True):
                best = first_best(row)
                hit = bool(row[best] >= self.threshold)  # in the precision of the blobs, where 0.7 is less than Python's
                counts = self.difficult or float(truths[best, 7]) == 0
                is_true = hit and counts and best not in visited
                is_false = not hit or (counts and best in visited)
                visited |= {best} if is_true else set()
                rows.append([image, label, float(box[2]), float(is_true), float(is_false)])
        return rows

    @staticmethod
    def scaled(box: Tensor, size: tuple[int, int] | None) -> Tensor:
        """Boxes [..., 4] clipped to the image and in its pixels, if its size is known."""
        if size is None:
            return box
        height, width = size
        return box.clamp(0, 1) * box.new_tensor([width, height, width, height])


class MultiBoxLoss(nn.Module):
    """SSD's loss (Liu et al. 2016): predictions matched with truth boxes, locations and classes weighed, hard negatives mined.

    Locations [N, P * 4 (* classes)], confidences [N, P * classes], priors [1, 2, P * 4], truth [1, 1, M, 8] (image, label, -, box,
    difficult) -> (). Matching and mining follow the values and pass no gradient. CASES-SSD lists the rules.
    """

    def __init__(
        self,
        classes: int,
        share_location: bool,
        background: int,
        code: str,
        in_target: bool,
        match: str,
        overlap_threshold: float,
        match_priors: bool,
        difficult: bool,
        ignore_crossing: bool,
        inside: bool,
        agnostic: bool,
        mining: str,
        negative_ratio: float,
        negative_overlap: float,
        sample_size: int,
        suppression: tuple[float, int, bool] | None,
        location_loss: str,
        confidence_loss: str,
        location_weight: float,
        normalization: str,
        counts: tuple[bool, bool],
    ) -> None:
        super().__init__()
        self.classes, self.share_location, self.background = classes, share_location, background
        self.code, self.in_target, self.match, self.overlap_threshold = code, in_target, match, overlap_threshold
        self.match_priors, self.difficult, self.ignore_crossing, self.inside = match_priors, difficult, ignore_crossing, inside
        self.agnostic, self.mining, self.negative_ratio, self.negative_overlap = agnostic, mining, negative_ratio, negative_overlap
        self.sample_size, self.suppression, self.location_loss = sample_size, suppression, location_loss
        self.confidence_loss, self.location_weight, self.normalization, self.counts = confidence_loss, location_weight, normalization, counts

    def forward(self, location: Tensor, confidence: Tensor, prior: Tensor, truth: Tensor) -> Tensor:
        priors, variance = corners(prior.detach())
        batch, count = location.shape[0], priors.shape[0]
        location = location.reshape(batch, count, -1, 4)
        confidence = confidence.reshape(batch, count, self.classes)
        truths = self.truths(truth.detach().reshape(-1, 8), batch)
        matches, negatives = [], []
        for image in range(batch):
            found, best = self.matched(location[image].detach(), truths[image], priors, variance)
            kept, negative = self.mined(image, found, best, location, confidence, truths, priors, variance)
            matches.append(kept)
            negatives.append(negative)
        total = sum(len(m) for m in matches)
        loss = confidence.sum() * 0 + location.sum() * 0
        if total and self.counts[0]:
            loss = loss + self.location_weight * self.location_cost(location, matches, truths, priors, variance)
        if self.counts[1]:
            loss = loss + self.confidence_cost(confidence, matches, negatives, truths)
        divisor = {"FULL": batch * count, "VALID": total, "BATCH_SIZE": batch, "NONE": 1}[self.normalization]
        return loss / max(divisor, 1)

    def truths(self, rows: Tensor, batch: int) -> list[Tensor]:
        """Truth rows by image; rows of -1 are passed over, difficult ones by choice."""
        rows = rows[rows[:, 0] != -1]
        check_labels(rows, self.background)
        rows = rows if self.difficult else rows[rows[:, 7] == 0]
        return [rows[rows[:, 0] == image] for image in range(batch)]

    def matched(self, location: Tensor, truth: Tensor, priors: Tensor, variance: Tensor) -> tuple[dict[tuple[int, int], int], Tensor]:
        """{(set of locations, prior): truth} of an image, and the largest overlap of each prior; no truth, no match and no overlap."""
        matches: dict[tuple[int, int], int] = {}
        largest = priors.new_zeros(len(priors))
        if len(truth) == 0:
            return matches, largest
        if self.match_priors:
            pairs, largest = self.match_boxes(priors, truth)
            labels = [0 if self.share_location else int(truth[t, 1]) for t in pairs.values()]
            return {(label, p): t for label, (p, t) in zip(labels, pairs.items(), strict=True)}, largest
        for label in range(location.shape[1]):
            if self.share_location or label != self.background:
                chosen = torch.arange(len(truth)) if self.share_location else (truth[:, 1] == label).nonzero().flatten()
                boxes = decode(location[:, label], priors, variance, code=self.code, in_target=self.in_target)
                pairs, largest = self.match_boxes(boxes, truth[chosen])
                matches |= {(label, p): int(chosen[t]) for p, t in pairs.items()}
        return matches, largest

    def match_boxes(self, boxes: Tensor, truth: Tensor) -> tuple[dict[int, int], Tensor]:
        """{box: truth}: each truth with its best box, then by choice each box with its best truth; and each box's largest overlap."""
        overlaps = overlap(boxes[:, None], truth[None, :, 3:7]) if len(truth) else boxes.new_zeros(len(boxes), 0)
        overlaps = torch.where(overlaps > NO_OVERLAP, overlaps, 0)
        if self.ignore_crossing:
            overlaps = overlaps * ~crosses(boxes)[:, None]
        pairs: dict[int, int] = {}
        left = overlaps.clone()
        for _ in range(len(truth)):
            place = first_best(left.flatten())
            box, row = divmod(place, len(truth))
            if float(left[box, row]) <= 0:
                break
            pairs[box] = row
            left[box], left[:, row] = 0, 0
        if self.match == "PER_PREDICTION" and len(truth):
            for box in (overlaps.amax(1) >= self.overlap_threshold).nonzero().flatten().tolist():
                if box not in pairs and float(overlaps[box].max()) > 0:
                    pairs[box] = first_best(overlaps[box])
        return pairs, overlaps.amax(1) if len(truth) else boxes.new_zeros(len(boxes))

    def mined(
        self, image: int, matches: dict[tuple[int, int], int], largest: Tensor, location: Tensor, confidence: Tensor,
        truths: list[Tensor], priors: Tensor, variance: Tensor,
    ) -> tuple[dict[tuple[int, int], int], list[int]]:  # fmt: skip
        """The matches that stay and the negatives that are chosen, of one image."""
        if self.mining == "NONE" or len(truths[image]) == 0:
            return matches, []
        cost = self.cost_of_each(confidence[image].detach(), matches, truths[image])
        if self.mining == "HARD_EXAMPLE":
            cost = cost + self.location_cost_of_each(location[image].detach(), matches, truths[image], priors, variance)
        positive = {p for _, p in matches}
        hard = self.mining == "HARD_EXAMPLE"
        boxes = priors if self.match_priors else self.predicted(location[image].detach(), priors, variance)
        crossing = crosses(boxes).tolist() if self.ignore_crossing else [False] * len(priors)
        far = (largest < self.negative_overlap).tolist()
        open_ = [p for p in range(len(priors)) if hard or (p not in positive and not crossing[p] and far[p])]
        share = cost.new_tensor(float(len(positive))) * self.negative_ratio  # in Caffe's precision, where 30 * 2.1 is below 63
        wanted = min(self.sample_size, len(open_)) if hard else int(share.clamp(0, len(open_)))
        chosen = set(self.worst(open_, cost, wanted, location[image].detach(), priors, variance))
        kept = {key: t for key, t in matches.items() if not hard or key[1] in chosen}
        return kept, [p for p in sorted(chosen) if p not in positive and not crossing[p]]

    def worst(self, places: list[int], cost: Tensor, wanted: int, location: Tensor, priors: Tensor, variance: Tensor) -> list[int]:
        """The priors of the highest cost; with suppression none that overlaps a chosen one."""
        if not places:
            return []
        order = [places[i] for i in cost[places].argsort(descending=True, stable=True).tolist()]
        if self.suppression is None:
            return order[:wanted]
        threshold, top_k, by_priors = self.suppression
        boxes = priors if by_priors else self.predicted(location, priors, variance)
        small = area(boxes).double() < SMALL_BOX
        kept: list[int] = []
        for place in order if top_k < 0 else order[:top_k]:
            if not small[place] and not bool((overlap(boxes[place], boxes[kept]) > threshold).any()):
                kept.append(place)
        return kept[:wanted]

    def predicted(self, location: Tensor, priors: Tensor, variance: Tensor) -> Tensor:
        """The boxes [P, 4] of locations [P, 1, 4], one for all classes."""
        return decode(location[:, 0], priors, variance, code=self.code, in_target=self.in_target)

    def label(self, truth: Tensor, t: int) -> int:
        """The class that a matched prior must predict."""
        return self.background + 1 if self.agnostic else int(truth[t, 1])

    def cost_of_each(self, confidence: Tensor, matches: dict[tuple[int, int], int], truth: Tensor) -> Tensor:
        """What each prior's classes cost, [P]; an unmatched one should be background."""
        labels = torch.full((len(confidence),), self.background, device=confidence.device)
        for (_, p), t in matches.items():
            labels[p] = int(truth[t, 1])
        if self.confidence_loss == "SOFTMAX":
            return nn.functional.nll_loss(confidence.log_softmax(1), labels, reduction="none").clamp(max=LOG_FLT_MIN)
        target = nn.functional.one_hot(labels, self.classes).to(confidence.dtype)
        return nn.functional.binary_cross_entropy_with_logits(confidence, target, reduction="none").sum(1)

    def location_cost_of_each(self, location: Tensor, matches: dict[tuple[int, int], int], truth: Tensor, priors: Tensor, variance: Tensor) -> Tensor:
        """What each prior's location costs, [P]; 0 of an unmatched one."""
        cost = location.new_zeros(len(priors))
        for (label, p), t in matches.items():
            cost[p] = self.coordinates(self.difference(location[p, label], truth[t], priors[p], variance[p])).sum()
        return cost

    def location_cost(
        self, location: Tensor, matches: list[dict[tuple[int, int], int]], truths: list[Tensor], priors: Tensor, variance: Tensor
    ) -> Tensor:
        """The sum over all matches."""
        keys = [(image, label, p, t) for image, found in enumerate(matches) for (label, p), t in found.items()]
        images, labels, places, _ = (list(column) for column in zip(*keys, strict=True))
        truth = torch.stack([truths[image][t] for image, _, _, t in keys])
        return self.coordinates(self.difference(location[images, places, labels], truth, priors[places], variance[places])).sum()

    def difference(self, location: Tensor, truth: Tensor, prior: Tensor, variance: Tensor) -> Tensor:
        """Prediction less target, in the units of the loss; 0, without gradient, where the matched box leaves the image, by choice."""
        target = encode(truth[..., 3:7], prior, variance, code=self.code, in_target=self.in_target)
        difference = location - target
        if self.inside:
            box = prior if self.match_priors else decode(location.detach(), prior, variance, code=self.code, in_target=self.in_target)
            difference = torch.where((box < 0) | (box > 1), 0, difference)
        return difference / variance if self.in_target else difference

    def coordinates(self, difference: Tensor) -> Tensor:
        """The cost of each coordinate."""
        return smooth_l1(difference) if self.location_loss == "SMOOTH_L1" else 0.5 * difference.square()

    def confidence_cost(
        self, confidence: Tensor, matches: list[dict[tuple[int, int], int]], negatives: list[list[int]], truths: list[Tensor]
    ) -> Tensor:
        """Of the matches and the chosen negatives; without mining of all priors."""
        named = [
            [(p, self.label(truths[image], t)) for (_, p), t in found.items()] + [(p, self.background) for p in negatives[image]]
            for image, found in enumerate(matches)
        ]
        if self.mining == "NONE":
            return self.confidence_cost_of_all(confidence, named)
        rows = [(image, p, label) for image, listed in enumerate(named) for p, label in listed]
        if not rows:
            return confidence.sum() * 0
        images, places, labels = (list(column) for column in zip(*rows, strict=True))
        scores, wanted = confidence[images, places], torch.tensor(labels, device=confidence.device)
        if self.confidence_loss == "SOFTMAX":
            return softmax_cost(scores, wanted)
        target = torch.full_like(scores, float(self.background)).scatter(1, wanted[:, None], 1.0)
        return nn.functional.binary_cross_entropy_with_logits(scores, target, reduction="sum")

    def confidence_cost_of_all(self, confidence: Tensor, named: list[list[tuple[int, int]]]) -> Tensor:
        """Without mining: unmatched priors are background for the softmax, and nothing for the logistic loss (CASES-SSD 2 to 4)."""
        batch, count = confidence.shape[:2]
        if self.confidence_loss == "SOFTMAX":
            wanted = torch.full((batch, count), self.background, device=confidence.device)
            for image, listed in enumerate(named):
                for p, label in listed:
                    wanted[image, p] = label
            return softmax_cost(confidence.flatten(0, 1), wanted.flatten())
        target = torch.full_like(confidence, float(self.background)).flatten()
        for image, listed in enumerate(named):
            for p, label in listed:
                target[image * count + p * self.classes + label] = 1.0  # Caffe moves on by priors, not by priors x classes
        return nn.functional.binary_cross_entropy_with_logits(confidence, target.view_as(confidence), reduction="sum")


def softmax_cost(scores: Tensor, labels: Tensor) -> Tensor:
    """Sum of -log softmax(scores)[label] of [K, C]; a hopeless one costs 87.3, its gradient stays."""
    cost = nn.functional.nll_loss(scores.log_softmax(1), labels, reduction="none")
    return (cost + (cost.clamp(max=LOG_FLT_MIN) - cost).detach()).sum()
