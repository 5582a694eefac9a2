"""Caffe's fillers: the first values of a parameter or of made-up data. Conformance: formats/fillers, data/dummy_random_fillers.

fan_in = count / dim 0, fan_out = count / dim 1, whatever the layer.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..errors import NetError
from ..message import Message

Array = np.ndarray[Any, Any]


def check(filler: Message, shape: tuple[int, ...]) -> None:
    """NetError where Caffe would refuse the filler for a blob of `shape`."""
    if filler.type not in _FILL:
        raise NetError(f"filler type {filler.type!r} is unknown; Caffe has {', '.join(_FILL)}")
    if filler.type == "uniform" and not filler.min <= filler.max:
        raise NetError(f"a uniform filler from {filler.min:g} to {filler.max:g}: min is above max")
    if filler.type == "gaussian" and not filler.std > 0:
        raise NetError(f"a gaussian filler of std {filler.std:g}: it must be above 0")
    if filler.type != "gaussian" and filler.sparse != -1:
        raise NetError(f"sparse is for gaussian fillers, not for {filler.type}")
    if filler.type == "bilinear" and (len(shape) != 4 or shape[2] != shape[3]):
        raise NetError(f"a bilinear filler needs square 2-D filters, not {list(shape)}")


def fill(shape: tuple[int, ...], filler: Message, generator: np.random.Generator) -> Array:
    """A float32 array of `shape`."""
    array = np.empty(shape, np.float32)
    fill_into(array, filler, generator)
    return array


def fill_into(array: Array, filler: Message, generator: np.random.Generator) -> None:
    """Fill a contiguous float32 array in place, so that no second copy of a large parameter is ever needed."""
    if array.size:
        _FILL[filler.type](array, filler, generator)


def _constant(a: Array, f: Any, g: np.random.Generator) -> None:
    a.fill(f.value)


def _uniform(a: Array, f: Any, g: np.random.Generator) -> None:
    _between(a, f.min, f.max, g)


def _between(a: Array, low: float, high: float, g: np.random.Generator) -> None:
    g.random(dtype=np.float32, out=a)
    a *= np.float32(high - low)
    a += np.float32(low)


def _normal(a: Array, mean: float, std: float, g: np.random.Generator) -> None:
    g.standard_normal(dtype=np.float32, out=a)
    a *= np.float32(std)
    a += np.float32(mean)


def _gaussian(a: Array, f: Any, g: np.random.Generator) -> None:
    _normal(a, f.mean, f.std, g)
    if f.sparse >= 0:  # each value stays with probability sparse / dim 0
        a *= g.random(a.shape, np.float32) < f.sparse / a.shape[0]


def _positive_unitball(a: Array, f: Any, g: np.random.Generator) -> None:
    g.random(dtype=np.float32, out=a)
    rows = a.reshape(a.shape[0], -1)
    rows /= rows.sum(1, keepdims=True)


def _fan(a: Array, f: Any) -> float:
    fan_in, fan_out = a.size / a.shape[0], a.size / a.shape[1] if a.ndim > 1 else a.size
    return {"FAN_IN": fan_in, "FAN_OUT": fan_out, "AVERAGE": (fan_in + fan_out) / 2}[f.variance_norm]


def _xavier(a: Array, f: Any, g: np.random.Generator) -> None:
    limit = math.sqrt(3 / _fan(a, f))
    _between(a, -limit, limit, g)


def _msra(a: Array, f: Any, g: np.random.Generator) -> None:
    _normal(a, 0, math.sqrt(2 / _fan(a, f)), g)


def _bilinear(a: Array, f: Any, g: np.random.Generator) -> None:
    """The kernel that upsamples by bilinear interpolation, in every filter."""
    factor = math.ceil(a.shape[3] / 2)
    centre = (a.shape[3] - 1) / (2 * factor)
    ramp = 1 - np.abs(np.arange(a.shape[3]) / factor - centre)
    a[...] = ramp[:, None] * ramp


_FILL = {
    "bilinear": _bilinear,
    "constant": _constant,
    "gaussian": _gaussian,
    "msra": _msra,
    "positive_unitball": _positive_unitball,
    "uniform": _uniform,
    "xavier": _xavier,
}
