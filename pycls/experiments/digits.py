"""The real data of the experiments: scikit-learn's 1,797 handwritten digits of 8 x 8."""

from __future__ import annotations

import torch
from torch import Tensor

from prototxt import DataError


def digits() -> tuple[Tensor, Tensor]:
    """Images [1797, 1, 8, 8] in 0..1 and classes [1797]."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as exc:
        raise DataError("the experiments read scikit-learn's digits; python -m pip install scikit-learn") from exc
    data, classes = load_digits(return_X_y=True)
    return torch.from_numpy(data).float().reshape(-1, 1, 8, 8) / 16, torch.from_numpy(classes).long()


def split(classes: Tensor, share: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Rows of the first `share` of each class in random order, and the rest."""
    first, rest = [], []
    for c in classes.unique():
        rows = torch.nonzero(classes == c).squeeze(1)
        rows = rows[torch.randperm(len(rows), generator=generator)]
        cut = round(share * len(rows))
        first.append(rows[:cut])
        rest.append(rows[cut:])
    return torch.cat(first), torch.cat(rest)
