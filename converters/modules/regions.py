"""Regions of Faster R-CNN (Ren et al. 2015) and R-FCN (Dai et al. 2016): proposed, pooled, labelled. A region is image, x1, y1, x2, y2."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Proposal(nn.Module):
    """Anchors moved by deltas, cut to the image, the best before and after suppression: [R, 5], first column 0; and by choice scores.

    Boxes smaller than `least` (in pixels of the image before it was scaled) are left out, or with `keep_small` have score 0. The scale of
    the height is info's third number, that of the width its number `wide`.
    """

    anchors: Tensor

    def __init__(
        self, stride: int, scales: tuple[float, ...], before: int, after: int, scores: bool, overlap: float = 0.7, least: int = 16,
        ratios: tuple[float, ...] = (0.5, 1.0, 2.0), base: int = 16, keep_small: bool = False, wide: int = 2,
    ) -> None:  # fmt: skip
        super().__init__()
        self.stride, self.before, self.after, self.scores = stride, before, after, scores
        self.overlap, self.least, self.keep_small, self.wide = overlap, least, keep_small, wide
        self.register_buffer("anchors", base_anchors(scales, ratios, base), persistent=False)
        self.as_operator = False  # set while a file is written whose format has an operator for the suppression

    def forward(self, scores: Tensor, deltas: Tensor, info: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        count, (rows, columns) = self.anchors.shape[0], scores.shape[2:]
        score = scores.detach()[0, count:].permute(1, 2, 0).reshape(-1)
        delta = deltas.detach()[0].permute(1, 2, 0).reshape(-1, 4)
        box = moved(all_anchors(self.anchors, rows, columns, self.stride), delta)
        info = info.detach().reshape(-1)
        height, width = info[0], info[1]
        scale = torch.stack((info[self.wide], info[2]))  # of the width and the height
        box = torch.minimum(box, torch.stack((width, height, width, height)) - 1).clamp(min=0)
        large = (box[:, 2:] - box[:, :2] + 1 >= self.least * scale).all(1)
        score = torch.where(large, score, 0.0 if self.keep_small else float("-inf"))
        if self.as_operator:
            score, order = score.topk(min(self.before, score.shape[0]))
            box = box[order]
            kept = torch.ops.decant.suppressed(box, score, self.overlap, self.after)
        elif torch.compiler.is_compiling():
            raise NotImplementedError("how many regions a Proposal gives depends on the values: torch.export and compile take the net up to it")
        else:
            order = score.argsort(descending=True, stable=True)[: self.before]
            score, box = score[order], box[order]
            real = score > float("-inf")
            score, box = score[real], box[real]
            kept = suppressed(box, self.overlap, self.after)
        regions = F.pad(box[kept], (1, 0))
        if not self.scores:
            return regions
        return regions, score[kept] if self.keep_small else score[kept][:, None]


def base_anchors(scales: tuple[float, ...], ratios: tuple[float, ...] = (0.5, 1.0, 2.0), base: int = 16) -> Tensor:
    """[ratios * scales, 4]: a base x base window in each ratio of height to width, in whole pixels, times each scale."""
    ratio = torch.tensor(ratios, dtype=torch.float32)
    width = half_up((base * base / ratio).sqrt())
    size = torch.stack((width, half_up(width * ratio)), 1)[:, None] * torch.tensor(scales, dtype=torch.float32)[:, None]
    half, centre = 0.5 * (size - 1), 0.5 * (base - 1)
    return torch.cat((centre - half, centre + half), 2).reshape(-1, 4)


def all_anchors(anchors: Tensor, rows: int, columns: int, stride: int) -> Tensor:
    """[rows * columns * A, 4]: the anchors [A, 4] at each cell of a map."""
    y, x = torch.meshgrid(torch.arange(rows, device=anchors.device), torch.arange(columns, device=anchors.device), indexing="ij")
    shift = (torch.stack((x, y, x, y), -1) * stride).reshape(-1, 1, 4)
    return (shift + anchors).reshape(-1, 4)


def deltas_between(box: Tensor, target: Tensor) -> Tensor:
    """[K, 4]: how centre and log size of boxes [K, 4] move to those of targets [K, 4]; the way back of `moved`."""
    size, wanted = box[:, 2:] - box[:, :2] + 1, target[:, 2:] - target[:, :2] + 1
    centre, middle = box[:, :2] + 0.5 * size, target[:, :2] + 0.5 * wanted
    return torch.cat(((middle - centre) / size, (wanted / size).log()), 1)


def overlaps_of(a: Tensor, b: Tensor) -> Tensor:
    """[A, B]: intersection over union of boxes [A, 4] and [B, 4], both ends inside."""
    low, high = torch.maximum(a[:, None, :2], b[:, :2]), torch.minimum(a[:, None, 2:], b[:, 2:])
    shared = (high - low + 1).clamp(min=0).prod(2)
    areas = ((t[:, 2:] - t[:, :2] + 1).prod(1) for t in (a, b))
    return torch.where(shared > 0, shared / (next(areas)[:, None] + next(areas) - shared), 0)


def drawn(places: Tensor, count: int) -> Tensor:
    """At most `count` of the places, at random, without one twice."""
    return places[torch.randperm(len(places), device=places.device)[:count]]


class AnchorTargets(nn.Module):
    """What each anchor inside the image shall answer: 1 (overlap of 0.7, or a box's best), 0 (below 0.3), -1 (not asked); 256 are asked.

    Labels [1, 1, A H, W]; deltas to its best box, and weights inside and outside, [1, 4 A, H, W].
    """

    anchors: Tensor

    def __init__(
        self, stride: int, scales: tuple[int, ...], positive: float = 0.7, negative: float = 0.3, count: int = 256, share: float = 0.5
    ) -> None:
        super().__init__()
        self.stride, self.positive, self.negative, self.count, self.share = stride, positive, negative, count, share
        self.register_buffer("anchors", base_anchors(scales), persistent=False)

    def forward(self, scores: Tensor, boxes: Tensor, info: Tensor) -> tuple[Tensor, ...]:
        rows, columns = scores.shape[2:]
        kind, (height, width) = boxes.dtype, info.detach().reshape(-1)[:2]
        boxes = boxes.detach().reshape(-1, 5).double()  # numpy's; thresholds and equal overlaps depend on it
        anchor = all_anchors(self.anchors, rows, columns, self.stride).double()
        inside = ((anchor[:, :2] >= 0).all(1) & (anchor[:, 2] < width) & (anchor[:, 3] < height)).nonzero().flatten()
        label, best = self.labels(overlaps_of(anchor[inside], boxes[:, :4]))
        label, target = label.to(kind), deltas_between(anchor[inside], boxes[best, :4]).to(kind)
        ones = torch.ones_like(target)
        outside = ones * (label >= 0)[:, None] / (label >= 0).sum()
        spread = [self.spread(t, inside, rows, columns) for t in (target, ones * (label == 1)[:, None], outside)]
        answer = label.new_full((len(anchor),), -1.0).index_copy(0, inside, label)
        return answer.reshape(rows, columns, -1).permute(2, 0, 1).reshape(1, 1, -1, columns), *spread

    def labels(self, overlap: Tensor) -> tuple[Tensor, Tensor]:
        """Labels of anchors [K] by their overlaps with boxes [K, G], and each anchor's best box."""
        most, best = overlap.max(1)
        label = overlap.new_full((len(overlap),), -1.0)
        label[most < self.negative] = 0
        label[(overlap == overlap.max(0).values).any(1) | (most >= self.positive)] = 1
        for value, limit in ((1, int(self.share * self.count)), (0, None)):
            places = (label == value).nonzero().flatten()
            kept = drawn(places, self.count - int((label == 1).sum()) if limit is None else limit)
            label[places] = -1
            label[kept] = value
        return label, best

    def spread(self, values: Tensor, inside: Tensor, rows: int, columns: int) -> Tensor:
        """[K, 4] of the anchors inside -> [1, 4 A, H, W], 0 for the others."""
        whole = values.new_zeros(rows * columns * len(self.anchors), 4).index_copy(0, inside, values)
        return whole.reshape(rows, columns, -1).permute(2, 0, 1)[None]


class ProposalTargets(nn.Module):
    """128 of the regions and the true boxes: a quarter of overlap 0.5 and more, with their class, the rest of 0.1 to 0.5 as class 0.

    Regions [K, 5], labels [K], and deltas and weights [K, 4 classes], not 0 for their own class.
    """

    def __init__(
        self, classes: int, count: int = 128, share: float = 0.25, foreground: float = 0.5, background: tuple[float, float] = (0.1, 0.5)
    ) -> None:
        super().__init__()
        self.classes, self.count, self.share, self.foreground, self.background = classes, count, share, foreground, background

    def forward(self, regions: Tensor, boxes: Tensor) -> tuple[Tensor, ...]:
        boxes = boxes.detach().reshape(-1, 5)
        regions = torch.cat((regions.detach().reshape(-1, 5), F.pad(boxes[:, :4], (1, 0))))
        if bool((regions[:, 0] != 0).any()):
            raise IndexError("the regions must all be of one image, 0")
        most, best = overlaps_of(regions[:, 1:].double(), boxes[:, :4].double()).max(1)  # as numpy's
        low, high = self.background
        front = drawn((most >= self.foreground).nonzero().flatten(), round(self.share * self.count))
        back = drawn(((most < high) & (most >= low)).nonzero().flatten(), self.count - len(front))
        kept = torch.cat((front, back))
        label = torch.where(torch.arange(len(kept), device=kept.device) < len(front), boxes[best[kept], 4], 0)
        target = deltas_between(regions[kept, 1:], boxes[best[kept], :4])
        own = (torch.arange(self.classes, device=label.device) == label[:, None].long()) & (label > 0)[:, None]
        weight = own[:, :, None].expand(-1, -1, 4).flatten(1).to(target.dtype)
        targets = torch.where(weight > 0, target.repeat(1, self.classes), 0)
        return regions[kept], label, targets, weight, weight.clone()


class HardestRegions(nn.Module):
    """Labels and box weights of the `count` regions of each image whose loss is highest; for the others `ignored` and 0."""

    def __init__(self, count: int, ignored: int) -> None:
        super().__init__()
        self.count, self.ignored = count, ignored

    def forward(self, regions: Tensor, loss: Tensor, label: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        inner = regions.shape[2:]
        image = regions.detach().reshape(regions.shape[0], 5, -1)[:, 0].reshape(-1)
        order = loss.detach().reshape(-1).argsort(descending=True, stable=True)
        same = image[order][:, None] == image[order]
        rank = same.tril(-1).sum(1)  # how many harder regions the image has
        chosen = torch.zeros_like(image, dtype=torch.bool).index_put((order,), rank < self.count)
        kept = chosen.reshape(regions.shape[0], 1, *inner)
        shape = [regions.shape[0], -1, *(*inner, 1, 1)[:2]]
        labels = torch.where(kept, label.detach().reshape(kept.shape), self.ignored)
        return labels.reshape(shape), torch.where(kept, weight.detach(), 0).reshape(shape)


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


def half_up(t: Tensor) -> Tensor:
    """Rounded as C rounds: halves away from zero."""
    whole = t.trunc()
    return whole + (2 * (t - whole)).trunc()


def bins(start: Tensor, extent: Tensor, count: int, size: int, *, whole: bool) -> tuple[Tensor, Tensor]:
    """First and last + 1 place of each of `count` bins of regions [R], within 0..size: two [R, count].

    Edges are rounded before the start, a `whole` number, is added (Fast R-CNN), or behind that (R-FCN): in float32 that differs.
    """
    edge, start = torch.arange(count + 1, device=start.device, dtype=start.dtype) * (extent[:, None] / count), start[:, None]
    low, high = edge[:, :-1], edge[:, 1:]
    low, high = (low.floor() + start, high.ceil() + start) if whole else ((low + start).floor(), (high + start).ceil())
    return low.clamp(0, size).long(), high.clamp(0, size).long()


def bags(plane: Tensor, rows: tuple[Tensor, Tensor], columns: tuple[Tensor, Tensor], size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Cells of all planes in one row: the places of each bin [R, bins, bins, most], which of them count, where each bin's begin."""
    most = [int((end - start).max()) if len(end) else 0 for start, end in (rows, columns)]
    row, column = (start[..., None] + torch.arange(n, device=start.device) for n, (start, _) in zip(most, (rows, columns), strict=True))
    cell = (plane[..., None, None] * size[0] + row[:, :, None, :, None]) * size[1] + column[:, None, :, None]
    inside = ((row < rows[1][..., None])[:, :, None, :, None] & (column < columns[1][..., None])[:, None, :, None]).flatten(3)
    return cell.flatten(3), inside, F.pad(inside.sum(3).flatten().cumsum(0), (1, 0))


def images_of(regions: Tensor, images: int) -> Tensor:
    """The image [R] of each region [R, 5]; IndexError if it is none of `images`, or a corner is no number."""
    image = regions[:, 0].long()
    if not torch.compiler.is_compiling() and not bool((regions.isfinite().all(1) & (image >= 0) & (image < images)).all()):
        raise IndexError(f"a region is its image, 0 to {images - 1}, and four corners; there are {regions.unique(dim=0).tolist()[:4]}")
    return image


class RoiPool(nn.Module):
    """The maximum of each bin of regions [R, 5]: corners rounded to whole cells, both ends inside; an empty bin is 0.

    Where torchvision is loaded, its operator computes this: it is Fast R-CNN's own loop.
    """

    def __init__(self, size: tuple[int, int], scale: float) -> None:
        super().__init__()
        self.size, self.scale = size, scale
        self.as_operator = False  # set while a file is written whose format has an operator for this

    def forward(self, x: Tensor, regions: Tensor) -> Tensor:
        regions = regions.detach().reshape(-1, 5)
        if self.as_operator:
            return torch.ops.decant.roi_pool(x, regions, *self.size, self.scale)  # type: ignore[no-any-return]
        image, native = images_of(regions, x.shape[0]), None
        if not torch.compiler.is_compiling() and not torch.are_deterministic_algorithms_enabled() and x.dtype == regions.dtype:
            native = getattr(torch.ops.torchvision, "roi_pool", None)
        return self.pooled(x, image, regions) if native is None else native(x, regions, self.scale, *self.size)[0]

    def pooled(self, x: Tensor, image: Tensor, regions: Tensor) -> Tensor:
        """The same by torch alone."""
        corner = half_up(regions[:, 1:] * self.scale)
        extent = (corner[:, 2:] - corner[:, :2] + 1).clamp(min=1)
        rows, columns = (bins(corner[:, i], extent[:, i], self.size[1 - i], x.shape[3 - i], whole=True) for i in (1, 0))
        if torch.compiler.is_compiling():
            return self.masked(x[image], rows, columns)
        cell, inside, begin = bags(image[:, None, None], rows, columns, (x.shape[2], x.shape[3]))
        values = x.permute(0, 2, 3, 1).flatten(0, 2).contiguous()
        with torch.no_grad():  # of equals the first has the gradient
            largest = torch.embedding_bag(values, cell[inside], begin, mode=2, include_last_offset=True)[3].clamp(min=0)
        pooled = values.gather(0, largest).view(-1, *self.size, x.shape[1])
        return torch.where(inside.any(3, keepdim=True), pooled, 0).permute(0, 3, 1, 2)

    def masked(self, x: Tensor, rows: tuple[Tensor, Tensor], columns: tuple[Tensor, Tensor]) -> Tensor:
        """The same of a copy of the image for each region, [R, C, H, W], without a look at the values of the regions."""
        nothing, made = float("-inf"), []
        down, across = (torch.arange(size, device=x.device) for size in x.shape[2:])
        for i in range(self.size[0]):
            row = (down >= rows[0][:, i, None]) & (down < rows[1][:, i, None])  # [R, H]
            strip = torch.where(row[:, None, :, None], x, nothing).amax(2)
            for j in range(self.size[1]):
                column = (across >= columns[0][:, j, None]) & (across < columns[1][:, j, None])
                made.append(torch.where(column[:, None], strip, nothing).amax(2))
        pooled = torch.stack(made, 2)
        return torch.where(pooled == nothing, 0, pooled).unflatten(2, self.size)


class PositionSensitiveRoiPool(nn.Module):
    """The mean of each bin of regions [R, 5], each bin from score maps of its own: [N, out * group^2, H, W] -> [R, out, group, group]."""

    def __init__(self, group: int, scale: float) -> None:
        super().__init__()
        self.group, self.scale = group, scale

    def forward(self, x: Tensor, regions: Tensor) -> Tensor:
        regions = regions.detach().reshape(-1, 5)
        start, end = half_up(regions[:, 1:3]) * self.scale, (half_up(regions[:, 3:]) + 1) * self.scale
        extent = (end - start).clamp(min=0.1)
        rows, columns = (bins(start[:, i], extent[:, i], self.group, x.shape[3 - i], whole=False) for i in (1, 0))
        image = images_of(regions, x.shape[0])
        if torch.compiler.is_compiling():
            return self.by_sums(x, image, rows, columns)
        own = torch.arange(self.group**2, device=x.device).view(self.group, self.group)
        cell, inside, begin = bags(image[:, None, None] * x.shape[1] + own, rows, columns, (x.shape[2], x.shape[3]))
        used, place = cell[inside].unique(return_inverse=True)  # of the first output's maps
        step = self.group**2 * x.shape[2] * x.shape[3]
        every = used[:, None] + torch.arange(0, math.prod(x.shape[1:]), step, device=x.device)
        values = x.reshape(-1).index_select(0, every.flatten()).view(every.shape)
        means = F.embedding_bag(place, values, begin, mode="mean", include_last_offset=True)
        return means.view(-1, self.group, self.group, values.shape[1]).permute(0, 3, 1, 2)

    def by_sums(self, x: Tensor, image: Tensor, rows: tuple[Tensor, Tensor], columns: tuple[Tensor, Tensor]) -> Tensor:
        """The same from sums of all values above and to the left, without a look at the values of the regions."""
        (top, bottom), (left, right) = rows, columns
        sums = F.pad(x.double().cumsum(2).cumsum(3), (1, 0, 1, 0))
        maps = sums.unflatten(1, (-1, self.group, self.group))[image]  # [R, out, group, group, H + 1, W + 1]
        total = self.at(maps, bottom, right) - self.at(maps, top, right) - self.at(maps, bottom, left) + self.at(maps, top, left)
        area = ((bottom - top).clamp(min=0)[:, :, None] * (right - left).clamp(min=0)[:, None]).to(total.dtype)[:, None]
        return torch.where(area > 0, total / area.clamp(min=1), 0).to(x.dtype)

    def at(self, maps: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """[R, out, group, group]: the value of each bin's own map at its row and column."""
        regions, out = maps.shape[:2]
        row = rows[:, None, :, None, None, None].expand(regions, out, self.group, self.group, 1, maps.shape[5])
        column = columns[:, None, None, :, None].expand(regions, out, self.group, self.group, 1)
        return maps.gather(4, row).squeeze(4).gather(4, column).squeeze(4)
