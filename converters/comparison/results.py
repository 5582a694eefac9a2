"""What a comparison found: plain frozen values, truthy where everything agreed, as text, as JSON, and back.

A is what is looked at, B is the reference: errors are relative to B. A blob that a later layer writes in place is named
`conv1@0` before that write, and `conv1` as it was last, as in the ONNX files of this package.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from prototxt import FormatError

BINS = 32  # of a preview's histograms
MAP_SIDE = 16  # rows and columns of a preview's error map, at most
FLOOR = 1e-3  # blobs whose largest value is below it are compared as if it were this


@dataclass(frozen=True, slots=True)
class Tolerance:
    """A blob agrees if max|a - b| <= atol + rtol * max|b|."""

    atol: float
    rtol: float

    def __str__(self) -> str:
        return f"{self.atol:.3g} + {self.rtol:.3g} * max|b|"


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two runners: its name for a person, the framework's version, the number format it claims, and how it was asked for."""

    name: str
    version: str = ""
    precision: str = "float32"
    spec: str = ""


@dataclass(frozen=True, slots=True)
class LayerNode:
    """A layer of the net that was compared, in order of execution; bottoms and tops by blob name, `place` is file:line."""

    name: str
    type: str
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...] = ()
    place: str = ""


@dataclass(frozen=True, slots=True)
class Preview:
    """What a page shows of a blob: histograms of both sides over [low, high], some values, and the largest errors on a small grid.

    `values` are (a, b) from flat index `start` on, around the worst one. `error_map` has a row for a band of the second-last axis and a
    column for a band of the last; it is empty where a blob has fewer than two axes of more than one value.
    """

    low: float
    high: float
    histogram_a: tuple[int, ...]
    histogram_b: tuple[int, ...]
    start: int = 0
    values: tuple[tuple[float, float], ...] = ()
    error_map: tuple[tuple[float, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class BlobResult:
    """Two values of one blob, or of one gradient or weight (`name` is then `layer/index`).

    worst_abs   max|a - b|, at `index`, where the two are `value_a` and `value_b`
    worst_rel   worst_abs / max(max|b|, 1e-3), the measure of the proof card
    mean        mean of |a - b|;  quantiles  (q, |a - b|) pairs, of evenly spaced values where a blob has many
    cosine      of the angle between the two; 1 where both are zero
    top         (k, share of rows with the same k largest) for outputs with classes
    problem     why there are no numbers: shapes that differ, an empty blob, NaN or infinities in different places
    """

    name: str
    layer: str
    layer_type: str
    shape: tuple[int, ...]
    dtype: str
    tolerance: Tolerance
    ok: bool
    worst_abs: float = 0.0
    worst_rel: float = 0.0
    mean: float = 0.0
    quantiles: tuple[tuple[float, float], ...] = ()
    cosine: float = 1.0
    index: tuple[int, ...] = ()
    value_a: float = 0.0
    value_b: float = 0.0
    peak: float = 0.0  # max|b|
    nan_a: int = 0
    nan_b: int = 0
    inf_a: int = 0
    inf_b: int = 0
    top: tuple[tuple[int, float], ...] = ()
    output: bool = False
    problem: str = ""
    preview: Preview | None = None

    @property
    def needs_atol(self) -> float:
        """The smallest absolute tolerance that would pass alone; inf where none would."""
        return math.inf if self.problem else self.worst_abs

    @property
    def needs_rtol(self) -> float:
        """The smallest relative tolerance that would pass alone; inf where none would."""
        if self.problem:
            return math.inf
        return self.worst_abs / self.peak if self.peak else (math.inf if self.worst_abs else 0.0)


@dataclass(frozen=True, slots=True)
class Divergence:
    """The first blob past its tolerance, in the net's order, and why.

    `side` is "a" or "b": the one whose values its own layer, replayed alone as the prototxt has it, does not give; empty if unknown.
    `replay` is the error of that replay; `left` the error that remains once `cause` is put into it. `tried` are (cause, what it leaves).
    """

    blob: str
    layer: str
    layer_type: str
    error: float
    place: str = ""
    side: str = ""
    replay: float | None = None
    cause: str = ""
    explanation: str = ""
    fix: str = ""
    left: float | None = None
    tried: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class NonFinite:
    """The first blob of the net's order with a NaN or an infinity, and on which side: "a", "b" or "both"."""

    blob: str
    layer: str
    side: str


@dataclass(frozen=True, slots=True)
class Training:
    """N steps of two solvers: the losses of each, and weights and histories (momentum, ...) behind the last step."""

    losses_a: tuple[float, ...]
    losses_b: tuple[float, ...]
    losses: BlobResult
    weights: tuple[BlobResult, ...]
    histories: tuple[BlobResult, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether losses, weights and histories all agree."""
        return all(result.ok for result in (self.losses, *self.weights, *self.histories))


@dataclass(frozen=True, slots=True)
class Report:
    """One comparison. Truthy if something was compared, and nothing differs or is missing.

    `blobs` are in the net's order. `missing` are outputs, or blobs that were asked for, that B has and A has not, `extra` the other way
    round: both fail. `unmatched` are inner blobs that only one side can show: they are told, and do not fail.
    """

    net: str
    a: Side
    b: Side
    blobs: tuple[BlobResult, ...]
    tolerance: Tolerance
    missing: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    unmatched: tuple[str, ...] = ()
    layers: tuple[LayerNode, ...] = ()
    divergence: Divergence | None = None
    nonfinite: NonFinite | None = None
    gradients: tuple[BlobResult, ...] = ()
    training: Training | None = None
    inputs: str = ""
    notes: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        compared = self.blobs or self.gradients or self.training
        agree = all(result.ok for result in (*self.blobs, *self.gradients)) and (self.training is None or self.training.ok)
        return bool(compared) and agree and not self.missing and not self.extra

    @property
    def worst(self) -> BlobResult | None:
        """The blob that is furthest apart, one with a problem before all others."""
        return max(self.blobs, key=lambda blob: (bool(blob.problem), blob.worst_rel), default=None)

    def text(self, *, every: bool = False) -> str:
        """The report for a person: a line for each blob that differs, or for `every` one, then where and why."""
        from .text import report_text

        return report_text(self, every=every)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, `ok` with them; what is not finite becomes "NaN", "Infinity" or "-Infinity"."""
        return {"ok": bool(self), **plain(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Report:
        """The report that `to_dict` wrote; FormatError where it is none."""
        try:
            return _made(cls, {name: value for name, value in values.items() if name != "ok"})
        except (TypeError, ValueError, KeyError, AttributeError) as exc:
            raise FormatError(f"no report of a comparison: {exc}") from exc


# JSON -----------------------------------------------------------------------------------------------------------------

T = TypeVar("T")


def plain(value: Any) -> Any:
    """What JSON has a form for; what is not finite becomes "NaN", "Infinity" or "-Infinity"."""
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
    return value


def _made(kind: type[T], values: Mapping[str, Any]) -> T:
    hints = get_type_hints(kind)
    unknown = set(values) - set(hints)
    if unknown:
        raise ValueError(f"{kind.__name__} has no {sorted(unknown)[0]!r}")
    return kind(**{name: _read(hints[name], value) for name, value in values.items()})


def _read(hint: Any, value: Any) -> Any:
    if get_origin(hint) in (Union, UnionType):
        return None if value is None else _read(next(h for h in get_args(hint) if h is not type(None)), value)
    if get_origin(hint) is tuple:
        inner = get_args(hint)
        return tuple(_read(inner[0], item) for item in value) if inner[1:] == (...,) else tuple(map(_read, inner, value))
    return _made(hint, value) if isinstance(hint, type) and is_dataclass(hint) else hint(value)
