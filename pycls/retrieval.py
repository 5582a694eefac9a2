"""How good features are: retrieval (recall at k, mean average precision at R) and verification (ROC, TAR at FAR), and how tight classes lie.

A query looks for rows of its own class by Euclidean distance, itself left out. R is the number of rows of its class; a query whose class
has no other row counts in no mean. Musgrave, Belongie & Lim, A Metric Learning Reality Check, 2020.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

CHUNK = 1024  # queries ranked at once: memory is CHUNK x rows


@dataclass(frozen=True)
class Retrieval:
    """Recall at each k, mean average precision at R, precision at R, and the number of queries that counted."""

    recall: dict[int, float]
    map_at_r: float
    r_precision: float
    queries: int


def retrieval(features: Tensor, classes: Tensor, ks: Iterable[int] = (1, 5, 10)) -> Retrieval:
    """Every row of features [N, D] with a class [N] of 0 or above asks for its like among the others."""
    features, classes = features[classes >= 0].float(), classes[classes >= 0]
    recall, precision, average, queries = dict.fromkeys(sorted(set(ks)), 0.0), 0.0, 0.0, 0
    for start in range(0, len(classes), CHUNK):
        rows = torch.arange(start, min(start + CHUNK, len(classes)), device=classes.device)
        hits = _ranked_hits(features, classes, rows)
        wanted = (classes[rows][:, None] == classes).sum(1) - 1
        hits, wanted = hits[wanted > 0], wanted[wanted > 0]
        place = torch.arange(1, hits.shape[1] + 1, device=hits.device)
        inside = hits & (place <= wanted[:, None])
        precision += float((inside.sum(1) / wanted).sum())
        average += float(((hits.cumsum(1) / place * inside).sum(1) / wanted).sum())
        queries += len(wanted)
        for k in recall:
            recall[k] += float(hits[:, :k].any(1).sum())
    count = max(queries, 1)
    return Retrieval({k: v / count for k, v in recall.items()}, average / count, precision / count, queries)


def _ranked_hits(features: Tensor, classes: Tensor, rows: Tensor) -> Tensor:
    """For each query row, its class or not, of the other rows by rising distance: [Q, N - 1]."""
    apart = torch.cdist(features[rows], features, compute_mode="donot_use_mm_for_euclid_dist")
    apart[torch.arange(len(rows), device=rows.device), rows] = torch.inf
    order = apart.argsort(dim=1, stable=True)[:, :-1]
    return classes[order] == classes[rows][:, None]


@dataclass(frozen=True)
class Verification:
    """The ROC of pairs: false and true accept rates by falling threshold, and the area under them."""

    false_accept: Tensor
    true_accept: Tensor
    thresholds: Tensor
    area: float

    def tar_at_far(self, far: float) -> float:
        """The highest true accept rate whose false accept rate is at most `far`; no point of the curve is invented between two."""
        return float(self.true_accept[self.false_accept <= far].max())


def verification(scores: Tensor, same: Tensor) -> Verification:
    """Scores [P] (higher: more alike) and whether a pair is of one class [P]; rates and area are NaN where one kind of pair is absent."""
    scores, order = scores.sort(descending=True)
    hits = same[order].bool()
    last = torch.cat([scores[1:] != scores[:-1], torch.ones_like(hits[:1])])  # equal scores are accepted together
    accepted, wrong = (torch.cat([torch.zeros(1, device=t.device), t.cumsum(0)[last].float()]) for t in (hits, ~hits))
    false_accept, true_accept = wrong / wrong[-1], accepted / accepted[-1]
    thresholds = torch.cat([torch.full((1,), torch.inf, device=scores.device), scores[last]])
    return Verification(false_accept, true_accept, thresholds, float(torch.trapezoid(true_accept, false_accept)))


@dataclass(frozen=True)
class Spread:
    """Mean distance of a row to its class's mean, and of two classes' means."""

    intra: float
    inter: float

    @property
    def ratio(self) -> float:
        """Intra over inter: how wide a class is on the scale of the space; below it, scale alone changes nothing."""
        return self.intra / self.inter if self.inter else float("inf")


def spread(features: Tensor, classes: Tensor) -> Spread:
    """Features [N, D] and classes [N]; classes below 0 are missing."""
    known = [int(c) for c in classes.unique() if c >= 0]
    means = torch.stack([features[classes == c].mean(0) for c in known])
    intra = torch.cat([(features[classes == c] - m).norm(dim=1) for c, m in zip(known, means, strict=True)]).mean()
    return Spread(float(intra), float(torch.pdist(means).mean()) if len(known) > 1 else 0.0)
