"""Splits that do not leak: groups stay whole, and folds of a multi-label set keep the shares of its labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from prototxt import LabelError

Array = np.ndarray[Any, Any]


def group_split(groups: Sequence[str] | Array, shares: dict[str, float], seed: int = 0) -> dict[str, Array]:
    """Rows of each split, in order; a group is in one split. Groups are dealt in random order to the split that lacks most of its share."""
    names, members = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    if len(names) < len(shares):
        raise LabelError(f"{len(names)} groups cannot be split into {len(shares)} parts ({', '.join(shares)}) without a leak")
    counts = np.bincount(members)
    total = sum(shares.values())
    left = {split: share / total * len(members) for split, share in shares.items()}
    parts: dict[str, list[int]] = {split: [] for split in shares}
    order = np.random.default_rng(seed).permutation(len(names))
    for n, group in enumerate(order):
        empty = [split for split in shares if not parts[split]]
        choice = empty if len(order) - n <= len(empty) else list(shares)
        split = max(choice, key=lambda s: left[s])
        parts[split].append(int(group))
        left[split] -= counts[group]
    return {split: np.flatnonzero(np.isin(members, chosen)) for split, chosen in parts.items()}


def stratified_folds(labels: Array, folds: int, seed: int = 0) -> Array:
    """The fold [N] of each row of multi-hot labels [N, K]: the rarest label is dealt first, each of its rows to the fold that lacks most of it.

    Sechidis, Tsoumakas & Vlahavas, On the Stratification of Multi-Label Data, 2011. Ties: the fold that lacks most rows, then chance.
    """
    if not 2 <= folds <= len(labels):
        raise LabelError(f"{folds} folds of {len(labels)} rows: between 2 and as many as there are rows")
    generator = np.random.default_rng(seed)
    wanted = np.tile(labels.sum(0) / folds, (folds, 1))
    room = np.full(folds, len(labels) / folds)
    fold = np.full(len(labels), -1)
    while (fold < 0).any():
        counts = labels[fold < 0].sum(0)
        rows = np.flatnonzero(fold < 0)
        need = room
        if counts.any():
            label = np.where(counts > 0, counts, np.inf).argmin()
            rows, need = rows[labels[rows, label] > 0], wanted[:, label]  # a view, which follows what is dealt
        for row in generator.permutation(rows):
            chosen = max(generator.permutation(folds), key=lambda f: (need[f], room[f]))
            fold[row] = chosen
            wanted[chosen] -= labels[row]
            room[chosen] -= 1
    return fold
