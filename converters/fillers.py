"""Caffe's fillers: the first values of a parameter. Conformance: formats/fillers.

fan_in = count / dim 0, fan_out = count / dim 1, whatever the layer.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from prototxt import Message

if TYPE_CHECKING:
    from torch import Tensor


def fill_(tensor: Tensor, filler: Message | None) -> Tensor:
    """Fill `tensor` in place; without a filler with zeros. Random values come from torch's generator."""
    import torch

    with torch.no_grad():
        if filler is None or not tensor.numel():
            return tensor.zero_()
        return _FILL[filler.type](tensor, filler)


def _constant(t: Tensor, f: Any) -> Tensor:
    return t.fill_(f.value)


def _uniform(t: Tensor, f: Any) -> Tensor:
    return t.uniform_(f.min, f.max)


def _gaussian(t: Tensor, f: Any) -> Tensor:
    import torch

    t.normal_(f.mean, f.std)
    if f.sparse >= 0:  # each value stays with probability sparse / dim 0
        t.mul_(torch.bernoulli(torch.full_like(t, min(1.0, f.sparse / t.shape[0]))))
    return t


def _positive_unitball(t: Tensor, f: Any) -> Tensor:
    rows = t.uniform_(0, 1).view(t.shape[0], -1)
    rows.div_(rows.sum(1, keepdim=True))
    return t


def _fan(t: Tensor, f: Any) -> float:
    fan_in = t.numel() / t.shape[0]
    fan_out = t.numel() / t.shape[1] if t.dim() > 1 else t.numel()
    return {"FAN_IN": fan_in, "FAN_OUT": fan_out, "AVERAGE": (fan_in + fan_out) / 2}[f.variance_norm]


def _xavier(t: Tensor, f: Any) -> Tensor:
    limit = math.sqrt(3 / _fan(t, f))
    return t.uniform_(-limit, limit)


def _msra(t: Tensor, f: Any) -> Tensor:
    return t.normal_(0, math.sqrt(2 / _fan(t, f)))


def _bilinear(t: Tensor, f: Any) -> Tensor:
    """The kernel that upsamples by bilinear interpolation, in every filter."""
    import torch

    factor = math.ceil(t.shape[3] / 2)
    centre = (2 * factor - 1 - factor % 2) / (2 * factor)
    ramp = 1 - (torch.arange(t.shape[3], dtype=t.dtype) / factor - centre).abs()
    return t.copy_((ramp[:, None] * ramp).expand_as(t))


_FILL = {
    "bilinear": _bilinear,
    "constant": _constant,
    "gaussian": _gaussian,
    "msra": _msra,
    "positive_unitball": _positive_unitball,
    "uniform": _uniform,
    "xavier": _xavier,
}
