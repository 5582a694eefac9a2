"""Labels that name no class. Caffe's losses and Accuracy read memory by them; here they are refused, with the sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import DataError


def check_labels(labels: Any, classes: int, *, records: Sequence[int] = (), place: str = "labels", ignore: float | Sequence[float] = ()) -> None:
    """DataError that names the first sample of labels [N, ...] whose label, cut towards zero as Caffe cuts it, is not from 0 to classes - 1.

    `records` are the numbers of the samples in their source, if they have some; `ignore` are labels that count for none.
    """
    values = np.asarray(labels)
    flat = np.trunc(values.reshape(-1))
    wrong = ~((flat >= 0) & (flat < classes))  # NaN too
    wrong &= ~np.isin(flat, ignore)
    if not wrong.any():
        return
    first = int(np.argmax(wrong))
    sample = first // max(1, flat.size // len(values)) if values.ndim else 0
    which = f"record {records[sample]}" if sample < len(records) else f"sample {sample}"
    raise DataError(f"{place}: {which}: label {values.reshape(-1)[first]:g} is none of {classes} classes (0 to {classes - 1})")
