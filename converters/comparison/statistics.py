"""Two arrays of one blob -> a BlobResult. A comparison of every blob spends its time here, so each pass over the values counts.

Sums are float32, pairwise or by BLAS: they describe, and decide nothing. The verdict needs max|a - b| and max|b| alone, both exact.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .errors import error, nearest_rows
from .results import BINS, FLOOR, MAP_SIDE, BlobResult, Preview, Tolerance
from .runners.base import Array
from .runners.saved import Sampled

PIECE = 65536  # values that are measured at a time
SAMPLE = 2048  # values that quantiles and histograms are made of
PLANES = 8  # planes that an error map is made of
SHOWN = 9  # values around the worst one
QUANTILES = (0.5, 0.9, 0.99)
TOLERANCES = {  # by number format: what another order of sums leaves in deep nets; an atol for blobs that are nearly zero
    "float64": Tolerance(1e-12, 1e-9),
    "float32": Tolerance(1e-7, 1e-4),
    "tf32": Tolerance(1e-5, 1e-2),
    "float16": Tolerance(1e-5, 1e-2),
    "bfloat16": Tolerance(1e-4, 8e-2),
}
_ONES = np.ones(PIECE, np.float32)  # a dot product with it is the fastest sum
_ORDER = ("float64", "float32", "tf32", "float16", "bfloat16")


def tolerance_for(a: str, b: str) -> Tolerance:
    """The tolerance of the coarser of two number formats."""
    return TOLERANCES[max(a, b, key=lambda name: _ORDER.index(name) if name in _ORDER else 1)]


class Facts:
    """What is known of a blob besides its values."""

    __slots__ = ("layer", "layer_type", "name", "output")

    def __init__(self, name: str, layer: str = "", layer_type: str = "", *, output: bool = False) -> None:
        self.name, self.layer, self.layer_type, self.output = name, layer, layer_type, output


def compare_blob(facts: Facts, a: Any, b: Any, tolerance: Tolerance, *, preview: bool = False) -> BlobResult:
    """The two values of one blob. Integers must be equal; detections [1, 1, N, 7] are compared as sets of rows."""
    a, b, index, shape = _sampled(a, b)
    if np.asarray(b).dtype.kind in "iub":
        tolerance = Tolerance(0.0, 0.0)
    common: dict[str, Any] = {
        "name": facts.name, "layer": facts.layer, "layer_type": facts.layer_type, "dtype": str(b.dtype), "tolerance": tolerance,
        "output": facts.output, "shape": shape,
    }  # fmt: skip
    problem = _problem(a, b, index, shape)
    if problem:
        return BlobResult(**common, ok=False, worst_abs=float("inf"), worst_rel=float("inf"), cosine=0.0, problem=problem)
    if len(shape) == 4 and shape[:2] == (1, 1) and shape[3] == 7 and index is None:
        return _detections(common, a, b, tolerance)
    return _numbers(common, a, b, tolerance, index, preview=preview)


def _sampled(a: Any, b: Any) -> tuple[Array, Array, Array | None, tuple[int, ...]]:
    """Both sides as arrays: where one holds some values only, the other is cut to the same."""
    if not isinstance(a, Sampled) and not isinstance(b, Sampled):
        a, b = np.asarray(a), np.asarray(b)
        return a, b, None, b.shape
    held: Sampled = b if isinstance(b, Sampled) else a
    cut = []
    for side in (a, b):
        if isinstance(side, Sampled):
            cut.append(side.values.reshape(-1))
        else:
            side = np.asarray(side)
            cut.append(side.reshape(-1)[held.index] if side.shape == held.shape else side)
    return cut[0], cut[1], held.index, held.shape


def _problem(a: Array, b: Array, index: Array | None, shape: tuple[int, ...]) -> str:
    if a.shape != b.shape:
        return f"shapes differ: {list(a.shape)} and {list(shape if index is not None else b.shape)}"
    if b.size == 0:
        return "empty: it holds no values"
    return ""


def _numbers(common: dict[str, Any], a: Array, b: Array, tolerance: Tolerance, index: Array | None, *, preview: bool) -> BlobResult:
    x, y = _flat(a), _flat(b)
    counts: dict[str, Any] = {}
    problem = ""
    with np.errstate(invalid="ignore", over="ignore"):
        one = _pass(x, y)
        if not (np.isfinite(one.worst) and np.isfinite(one.peak)):
            counts, problem, x, y = _without_nonfinite(x, y)
            one = _pass(x, y)
    at, worst = one.at, math.inf if problem else one.worst
    flat_at = int(index[at]) if index is not None else at
    return BlobResult(
        **common,
        **counts,
        ok=not problem and worst <= tolerance.atol + tolerance.rtol * one.peak,
        worst_abs=worst,
        worst_rel=worst / max(one.peak, FLOOR),
        mean=one.total / x.size,
        quantiles=tuple(zip(QUANTILES, one.quantiles(), strict=True)),
        cosine=one.cosine,
        index=tuple(int(i) for i in np.unravel_index(flat_at, common["shape"])) if common["shape"] else (),
        value_a=float(x[at]),
        value_b=float(y[at]),
        peak=one.peak,
        top=_top(a, b) if common["output"] and index is None else (),
        problem=problem,
        preview=_preview(x, y, at, common["shape"] if index is None else ()) if preview else None,
    )


@dataclass(slots=True)
class _Pass:
    """What one walk over the values finds: the largest difference and its place, the sum of all, some of them, max|b|, the three products."""

    worst: float = -1.0
    at: int = 0
    total: float = 0.0
    peak: float = 0.0
    xx: float = 0.0
    yy: float = 0.0
    xy: float = 0.0
    some: list[Array] = field(default_factory=list)

    def quantiles(self) -> list[float]:
        """Differences of the sample themselves; np.quantile would cost more than all else here."""
        values = np.sort(np.concatenate(self.some))
        return [float(values[int(q * (values.size - 1))]) for q in QUANTILES]

    @property
    def cosine(self) -> float:
        """Of the angle between the two."""
        if not self.xx and not self.yy:
            return 1.0
        return self.xy / (self.xx * self.yy) ** 0.5 if 0 < self.xx * self.yy < float("inf") else 0.0


def _pass(x: Array, y: Array) -> _Pass:
    """In pieces that stay in the cache between the operations. NaN, once met, stays `worst`."""
    found, step = _Pass(), _step(x)
    differences = np.empty(min(PIECE, x.size), np.result_type(x, y))
    for start in range(0, x.size, PIECE):
        u, v = x[start : start + PIECE], y[start : start + PIECE]
        d = differences[: u.size]
        np.subtract(u, v, out=d)
        np.abs(d, out=d)
        at = int(d.argmax())
        if found.worst == found.worst and not d[at] <= found.worst:
            found.worst, found.at = float(d[at]), start + at
        found.some.append(d[-start % step :: step].copy())
        found.total += float(np.dot(d, _ONES[: d.size]))
        found.peak = max(found.peak, float(v.max()), -float(v.min()))
        found.xx += float(np.dot(u, u))
        found.yy += float(np.dot(v, v))
        found.xy += float(np.dot(u, v))
    return found


def _flat(values: Array) -> Array:
    """One axis, in float32 or, for what is wider, float64: unsigned 0 - 1 is -1."""
    values = values.reshape(-1)
    if values.dtype == np.float32 or values.dtype == np.float64:
        return values
    return values.astype(np.float64 if values.dtype.kind in "iu" and values.dtype.itemsize > 2 else np.float32)


def _without_nonfinite(x: Array, y: Array) -> tuple[dict[str, int], str, Array, Array]:
    """Counts, whether NaN and infinities stand in the same places, and both sides with zeros there."""
    counts = _nonfinite_counts(x, y)
    same = np.array_equal(x[~np.isfinite(x) | ~np.isfinite(y)], y[~np.isfinite(x) | ~np.isfinite(y)], equal_nan=True)
    finite = np.isfinite(x) & np.isfinite(y)
    x, y = np.where(finite, x, 0), np.where(finite, y, 0)
    problem = (
        "" if same else f"NaN or infinities in different places: {counts['nan_a'] + counts['inf_a']} and {counts['nan_b'] + counts['inf_b']} values"
    )
    return counts, problem, x, y


def _nonfinite_counts(x: Array, y: Array) -> dict[str, Any]:
    return {"nan_a": int(np.isnan(x).sum()), "nan_b": int(np.isnan(y).sum()), "inf_a": int(np.isinf(x).sum()), "inf_b": int(np.isinf(y).sum())}


def _step(values: Array) -> int:
    return -(-values.size // SAMPLE)


def _thinned(values: Array) -> Array:
    return values[:: _step(values)]


def _top(a: Array, b: Array) -> tuple[tuple[int, float], ...]:
    """The share of rows whose k largest classes are the same, for [N, C] and [N, C, 1, 1]."""
    if a.ndim < 2 or a.shape[1] < 2 or a[0].size != a.shape[1]:
        return ()
    rows_a, rows_b = a.reshape(len(a), -1), b.reshape(len(b), -1)
    found = []
    for k in (1, 5):
        if k < rows_a.shape[1]:
            first, second = (np.sort(np.argsort(-rows, 1, kind="stable")[:, :k], 1) for rows in (rows_a, rows_b))
            found.append((k, float((first == second).all(1).mean())))
    return tuple(found)


def _preview(x: Array, y: Array, at: int, shape: tuple[int, ...]) -> Preview:
    first, second = _thinned(x), _thinned(y)
    low, high = float(min(first.min(), second.min())), float(max(first.max(), second.max()))
    start = max(0, min(at - SHOWN // 2, x.size - SHOWN))
    return Preview(
        low,
        high,
        _histogram(first, low, high),
        _histogram(second, low, high),
        start,
        tuple((float(u), float(v)) for u, v in zip(x[start : start + SHOWN], y[start : start + SHOWN], strict=True)),
        _map(x, y, at, shape) if x[at] != y[at] else (),
    )


def _histogram(values: Array, low: float, high: float) -> tuple[int, ...]:
    width = (high - low) or 1.0
    bins = ((values.astype(np.float64) - low) / width * BINS).astype(np.intp).clip(0, BINS - 1)
    return tuple(np.bincount(bins, minlength=BINS).tolist())


def _map(x: Array, y: Array, at: int, shape: tuple[int, ...]) -> tuple[tuple[float, ...], ...]:
    """The largest difference in each cell of a grid over the last two axes, of some planes, the worst one among them."""
    if len(shape) < 2 or shape[-1] < 2 or shape[-2] < 2:
        return ()
    a, b = x.reshape(-1, *shape[-2:]), y.reshape(-1, *shape[-2:])
    chosen = [*range(0, len(a), -(-len(a) // PLANES)), at // a[0].size]
    plane = np.abs(np.subtract(a[chosen], b[chosen], dtype=np.float64)).max(0)
    for axis in (0, 1):
        size = plane.shape[axis]
        cells = min(size, MAP_SIDE)
        plane = np.maximum.reduceat(plane, (np.arange(cells) * size) // cells, axis=axis)
    return tuple(map(tuple, _short(plane).tolist()))


def _short(values: Array) -> Array:
    """Rounded to three digits, so that a page of a thousand of them stays small."""
    digits = 10.0 ** (2 - np.floor(np.log10(np.where(values > 0, values, 1.0), dtype=np.float64)))
    return np.round(values * digits) / digits


def _detections(common: dict[str, Any], a: Array, b: Array, tolerance: Tolerance) -> BlobResult:
    """As sets of rows: rows of equal score may come in another order."""
    x, y = a.reshape(-1, 7), b.reshape(-1, 7)
    x = x[nearest_rows(x, y)]
    errors = [error(row, want) for row, want in zip(x, y, strict=True)]
    worst, at = max(errors), int(np.argmax(errors))
    with np.errstate(invalid="ignore", over="ignore"):
        column, cosine = int(np.argmax(np.abs(x[at] - y[at]))), _pass(_flat(a), _flat(b)).cosine
    peak = float(np.abs(y[np.isfinite(y)]).max(initial=0.0))
    return BlobResult(
        **common,
        **_nonfinite_counts(a, b),
        ok=worst <= tolerance.rtol,
        worst_abs=worst * max(peak, FLOOR),
        worst_rel=worst,
        index=(0, 0, at, column),
        value_a=float(x[at, column]),
        value_b=float(y[at, column]),
        peak=peak,
        cosine=cosine,
        problem="" if np.isfinite(worst) else "the detections are not the same rows",
    )
