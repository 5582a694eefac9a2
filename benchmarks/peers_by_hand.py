"""Peers of `layers.py` that take more than a line."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def cross_entropy(x: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(x, y.long(), reduction="none").clamp(max=87.3365).sum() / len(x)


def focal(x: Tensor, y: Tensor) -> Tensor:
    cost = F.cross_entropy(x, y.long(), reduction="none")
    return (0.25 * (1 - (-cost).exp()) ** 2 * cost.clamp(max=87.3365)).mean()


def infogain(x: Tensor, y: Tensor, matrix: Tensor) -> Tensor:
    return -(F.embedding(y.long(), matrix) * x.log_softmax(1).clamp(min=-46.0517)).sum() / len(x)


def hinge(x: Tensor, y: Tensor) -> Tensor:
    sign = 1 - 2 * F.one_hot(y.long(), x.shape[1])
    return F.relu(1 + sign * x).sum() / len(x)


def logistic(p: Tensor, y: Tensor) -> Tensor:
    return F.nll_loss(p.clamp(min=1e-20).log(), y.long())


def euclidean(x: Tensor, y: Tensor) -> Tensor:
    return F.mse_loss(x, y, reduction="sum") / (2 * len(x))


def contrastive(a: Tensor, b: Tensor, similar: Tensor) -> Tensor:
    distance = F.pairwise_distance(a, b, eps=0)
    return torch.where(similar > 0, distance.square(), F.relu(1 - distance).square()).sum() / (2 * len(a))


def triplet(a: Tensor, p: Tensor, n: Tensor) -> Tensor:
    return F.relu(1 + (a - p).square().sum(1) - (a - n).square().sum(1)).mean()


def smooth(beta: float) -> Callable[..., Tensor]:
    def loss(x: Tensor, y: Tensor, inside: Tensor | None = None, outside: Tensor | None = None) -> Tensor:
        if inside is None or outside is None:
            return F.smooth_l1_loss(x, y, reduction="sum", beta=beta) / len(x)
        difference = (x - y) * inside  # as Caffe: of near values it is exact, which x * inside - y * inside is not
        return (F.smooth_l1_loss(difference, torch.zeros_like(difference), reduction="none", beta=beta) * outside).sum() / len(x)

    return loss


def maximum(x: Tensor) -> Tensor:
    return F.max_pool2d(F.pad(x, (3, 4, 3, 4), value=float("-inf")), 5, 3)


def average(x: Tensor) -> Tensor:
    """The area of the last window ends with the near padding's width behind the image."""
    areas = F.avg_pool2d(F.pad(torch.ones(1, 1, 34, 34), (0, 1, 0, 1)), 5, 3)
    return F.avg_pool2d(F.pad(x, (3, 4, 3, 4)), 5, 3) / areas


def with_mask(x: Tensor) -> tuple[Tensor, Tensor]:
    values, index = F.max_pool2d(x, 3, 2, 1, ceil_mode=True, return_indices=True)
    return values, index.float()


def drawn(x: Tensor) -> Tensor:
    windows = F.unfold(F.pad(x, (0, 1, 0, 1)), 3, stride=2).unflatten(1, (-1, 9)).transpose(2, 3)
    place = torch.multinomial(windows.detach().reshape(-1, 9), 1).view(*windows.shape[:3], 1)
    return windows.gather(3, place).view(*x.shape[:2], 14, 14)


def expected(x: Tensor) -> Tensor:
    x = F.pad(x, (0, 1, 0, 1))
    return F.avg_pool2d(x * x, 3, 2) / F.avg_pool2d(x, 3, 2)


def pyramid(x: Tensor, pool: Callable[..., Tensor]) -> Tensor:
    return torch.cat([pool(x, bins).flatten(1) for bins in (1, 2, 4)], 1)


def within(x: Tensor) -> Tensor:
    return x * (1 + 1e-4 * F.avg_pool2d(x * x, 3, 1, 1)).pow(-0.75)


def resized(mode: str, corners: bool | None) -> Callable[[Tensor], Tensor]:
    return lambda x: F.interpolate(x, (56, 56), mode=mode, align_corners=corners)


def reorganized(x: Tensor) -> Tensor:
    phases = F.pixel_unshuffle(x.view(x.shape[0], -1, 56, 56), 2).unflatten(1, (-1, 4))
    return phases.transpose(1, 2).reshape(x.shape[0], -1, 14, 14)


def in_top_5(x: Tensor, y: Tensor) -> Tensor:
    return (x.topk(5, 1).indices == y[:, None]).any(1).float().mean()


def accuracy(x: Tensor, y: Tensor) -> Tensor:
    return (x.argmax(1).flatten() == y.flatten()).float().mean()


def confusion(x: Tensor, y: Tensor) -> Tensor:
    pairs = y.long().flatten() * 21 + x.argmax(1).flatten()
    table = torch.bincount(pairs, minlength=441).view(21, 21).float()
    hit, occurs, guessed = table.diagonal(), table.sum(1), table.sum(0)
    return torch.stack((hit.sum() / table.sum(), (hit / occurs).mean(), (hit / (occurs + guessed - hit)).mean())).view(1, 1, 1, 3)


def lstm_unit(cell: Tensor, gates: Tensor, cont: Tensor) -> tuple[Tensor, Tensor]:
    i, f, o, g = gates.chunk(4, 2)
    cell = i.sigmoid() * g.tanh() + cont[..., None] * f.sigmoid() * cell
    return cell, o.sigmoid() * cell.tanh()
