"""Which pairs and triplets of a batch a loss looks at. A class below 0 is missing: its row is in none.

A triplet is (anchor, positive, negative): two rows of one class and one of another. Each miner gives three index tensors [T].
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Triplets = tuple[Tensor, Tensor, Tensor]


def distances(features: Tensor) -> Tensor:
    """Euclidean distances [N, N] in float32 or wider, by differences: no expansion that cancels; the gradient at 0 is 0."""
    wide = features if features.dtype == torch.float64 else features.float()
    return torch.cdist(wide, wide, compute_mode="donot_use_mm_for_euclid_dist")


def all_pairs(classes: Tensor) -> tuple[Tensor, Tensor]:
    """Every pair i < j of rows whose class is known."""
    rows = torch.nonzero(classes >= 0).squeeze(1)
    i, j = torch.triu_indices(len(rows), len(rows), 1, device=classes.device)
    return rows[i], rows[j]


def batch_all(apart: Tensor, classes: Tensor, margin: float) -> Triplets:
    """Every triplet there is."""
    same, other = _relations(classes)
    anchor, positive, negative = torch.nonzero(same[:, :, None] & other[:, None, :], as_tuple=True)
    return anchor, positive, negative


def batch_hard(apart: Tensor, classes: Tensor, margin: float) -> Triplets:
    """One triplet an anchor: its farthest positive and its nearest negative (Hermans, Beyer & Leibe 2017)."""
    same, other = _relations(classes)
    anchor = torch.nonzero(same.any(1) & other.any(1)).squeeze(1)
    positive = apart.masked_fill(~same, -torch.inf)[anchor].argmax(1)
    negative = apart.masked_fill(~other, torch.inf)[anchor].argmin(1)
    return anchor, positive, negative


def semi_hard(apart: Tensor, classes: Tensor, margin: float) -> Triplets:
    """Triplets whose negative is farther than the positive, and by no more than the margin (Schroff et al. 2015)."""
    anchor, positive, negative = batch_all(apart, classes, margin)
    gap = apart[anchor, negative] - apart[anchor, positive]
    keep = (gap > 0) & (gap <= margin)
    return anchor[keep], positive[keep], negative[keep]


MINERS: dict[str, Callable[[Tensor, Tensor, float], Triplets]] = {"all": batch_all, "hard": batch_hard, "semihard": semi_hard}


def _relations(classes: Tensor) -> tuple[Tensor, Tensor]:
    """[N, N]: two different rows of one class; rows of two classes."""
    known = (classes >= 0)[:, None] & (classes >= 0)
    same = known & (classes[:, None] == classes)
    return same & ~torch.eye(len(classes), dtype=torch.bool, device=classes.device), known & (classes[:, None] != classes)
