"""Triplet loss: max(0, d(a, p) - d(a, n) + margin) over the triplets of a batch.

Weinberger & Saul 2009; Schroff, Kalenichenko & Philbin, FaceNet, 2015 (squared distances of unit features); Hermans, Beyer & Leibe 2017.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from prototxt import SolverError

from ..miners import MINERS, distances


def triplet_loss(
    features: Tensor,
    classes: Tensor,
    *,
    margin: float = 0.2,
    miner: str = "all",
    squared: bool = False,
    swap: bool = False,
    reduction: str = "mean",
) -> Tensor:
    """Features [N, D], classes [N] -> 0-d. A class below 0 is missing; a batch without a triplet gives 0, connected to the graph.

    miner      all, hard or semihard (pycls/miners.py)
    squared    compare squared distances
    swap       the negative counts from the nearer of anchor and positive (Balntas et al. 2016)
    reduction  mean over the triplets, violating: mean over those above 0, or sum
    """
    if miner not in MINERS or reduction not in ("mean", "violating", "sum"):
        raise SolverError(f"triplet loss: miner {miner!r}, reduction {reduction!r}; there are {', '.join(MINERS)} and mean, violating, sum")
    apart = distances(features)
    with torch.no_grad():
        a, p, n = MINERS[miner](apart * apart if squared else apart, classes, margin)
    if squared:
        apart = apart.square()
    away = torch.minimum(apart[a, n], apart[p, n]) if swap else apart[a, n]
    loss = F.relu(apart[a, p] - away + margin)
    if reduction == "sum":
        return loss.sum()
    if reduction == "violating":
        loss = loss[loss > 0]
    return loss.sum() / max(len(loss), 1)
