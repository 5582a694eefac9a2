"""Caffe's fillers in numpy, for the layers that make data. Conformance: formats/fillers, data/dummy_random_fillers.

fan_in = count / dim 0, fan_out = count / dim 1, whatever the layer.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..errors import NetError
from ..message import Message

Array = np.ndarray[Any, Any]
TYPES = ("bilinear", "constant", "gaussian", "msra", "positive_unitball", "uniform", "xavier")


def check(filler: Message, shape: tuple[int, ...]) -> None:
    """NetError where Caffe would refuse the filler for a blob of `shape`."""
    if filler.type not in TYPES:
        raise NetError(f"filler type {filler.type!r} is unknown; Caffe has {', '.join(TYPES)}")
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
    if not math.prod(shape):
        return np.zeros(shape, np.float32)
    return _FILL[filler.type](shape, filler, generator).astype(np.float32, copy=False)


def _constant(shape: tuple[int, ...], f: Any, g: np.random.Generator) -> Array:
    return np.full(shape, f.value, np.float32)


def _uniform(shape: tuple[int, ...], f: Any, g: np.random.Generator) -> Array:
    return _between(shape, f.min, f.max, g)


def _between(shape: tuple[int, ...], low: float, high: float, g: np.random.Generator) -> Array:
    return g.random(shape, np.float32) * np.float32(high - low) + np.float32(low)


def _normal(shape: tuple[int, ...], mean: float, std: float, g: np.random.Generator) -> Array:
    return g.standard_normal(shape, np.float32) * np.float32(std) + np.float32(mean)


def _gaussian(shape: tuple[int, ...], f: Any, g: np.random.Generator) -> Array:
    values = _normal(shape, f.mean, f.std, g)
    if f.sparse >= 0:  # each value stays with probability sparse / dim 0
        values *= g.random(shape) < f.sparse / shape[0]
    return values


def _positive_unitball(shape: tuple[int, ...], f: Any, g: np.random.Generator) -> Array:
    rows = g.random((shape[0], math.prod(shape[1:])), np.float32)
    return (rows / rows.sum(1, keepdims=True)).reshape(shape)


def _fan(shape: tuple[int, ...], f: Any) -> float:
    count = math.prod(shape)
    fan_in, fan_out = count / shape[0], count / shape[1] if len(shape) > 1 else count
    return {"FAN_IN": fan_in, "FAN_OUT": fan_out, "AVERAGE": (fan_in + fan_out) / 2}[f.variance_norm]


def _xavier(shape: tuple[int, ...], f: Any, g: np.random.Generator) -> Array:
    limit = math.sqrt(3 / _fan(shape, f))
    return _between(shape, -limit, limit, g)


def _msra(shape: tuple[int, ...], f: Any, g: np.random.Generator) -> Array:
    return _normal(shape, 0, math.sqrt(2 / _fan(shape, f)), g)


def _bilinear(shape: tuple[int, ...], f: Any, g: np.random.Generator) -> Array:
    """The kernel that upsamples by bilinear interpolation, in every filter."""
    factor = math.ceil(shape[3] / 2)
    centre = (2 * factor - 1 - factor % 2) / (2 * factor)
    ramp = 1 - np.abs(np.arange(shape[3]) / factor - centre)
    return np.broadcast_to(ramp[:, None] * ramp, shape)


_FILL = {
    "bilinear": _bilinear,
    "constant": _constant,
    "gaussian": _gaussian,
    "msra": _msra,
    "positive_unitball": _positive_unitball,
    "uniform": _uniform,
    "xavier": _xavier,
}
