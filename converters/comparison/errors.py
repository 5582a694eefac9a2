"""How far two arrays are apart."""

from __future__ import annotations

from typing import Any

import numpy as np

from .results import FLOOR


def error(got: Any, want: Any) -> float:
    """max|got - want| / max(max|want|, 1e-3) in float64, the corpus's measure; inf where shapes, NaN or infinities differ."""
    a, b = np.asarray(got, np.float64), np.asarray(want, np.float64)
    if a.shape != b.shape:
        return float("inf")
    finite = np.isfinite(b)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True) or not np.isfinite(a[finite]).all():
        return float("inf")
    if not finite.any():
        return 0.0
    return float(np.abs(a[finite] - b[finite]).max() / max(np.abs(b[finite]).max(), FLOOR))


def rows_error(got: Any, want: Any) -> float:
    """`error` of detections [1, 1, N, 7] as sets of rows: rows of equal score may come in another order."""
    a, b = np.asarray(got, np.float64).reshape(-1, 7), np.asarray(want, np.float64).reshape(-1, 7)
    if len(a) != len(b):
        return float("inf")
    return max((error(a[i], row) for i, row in zip(nearest_rows(a, b), b, strict=True)), default=0.0)


def nearest_rows(a: Any, b: Any) -> list[int]:
    """For each row of b the index of the nearest row of a that no row before it has taken; both have as many."""
    left, order = list(range(len(a))), []
    for row in np.asarray(b, np.float64):
        order.append(min(left, key=lambda i: float(np.abs(a[i] - row).max())))
        left.remove(order[-1])
    return order


def says_nothing(value: Any) -> bool:
    """Whether an array has values, and none of them is finite: equal ones prove nothing of the net."""
    values = np.asarray(value)
    return bool(values.size) and not np.isfinite(values).any()


def blob_error(got: Any, want: Any) -> float:
    """`error`, or `rows_error` for what has the shape of detections."""
    shape = np.shape(want)
    return rows_error(got, want) if len(shape) == 4 and shape[:2] == (1, 1) and shape[3] == 7 else error(got, want)
