"""Pooling: MAX with and without mask, AVE, STOCHASTIC, pyramids; every rule for the output size.

out = ceil((in + 2 pad - k) / stride) + 1 (floor with round_mode FLOOR); with padding on either axis, a last window that starts outside
of the image and its near padding is dropped. torch's ceil_mode agrees but for two cases, which get modules of ours: pad > k / 2, and
empty windows, which are refused. AVE divides by the window clipped to the padded image (`ave-pad-ceil`). SPP is pooling on several levels:
He et al., Spatial Pyramid Pooling in Deep Convolutional Networks, 2014.
"""

from __future__ import annotations

from math import prod
from typing import Any

from prototxt import NetError
from prototxt.net import Layer

from ..recipe import Recipe, Shape
from ..registry import layer


@layer("Pooling", bottoms=1, tops=(1, 2), in_place="pooling cannot overwrite what it reads")
def pooling(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """[N, C, H, W] -> [N, C, H', W']; the second top of MAX holds the index of each maximum in its plane."""
    p = layer.spec.pooling_param
    shape = shapes[0]
    if len(shape) != 4:
        raise NetError(f"pools a blob of 4 axes, not {list(shape)}")
    if len(layer.tops) == 2 and p.pool != "MAX":
        raise NetError(f"only MAX pooling has a second top (the mask), not {p.pool}")
    for name in ("stride", "pad"):
        if p.has(name) and (p.has(f"{name}_h") or p.has(f"{name}_w")):
            raise NetError(f"has {name} beside {name}_h or {name}_w; write {name} or the other two")
    if p.global_pooling:
        return _global(p, shape, len(layer.tops))
    kernel, stride, pad = _pair(p, "kernel", "kernel_size", 0), _pair(p, "stride", "stride", 1), _pair(p, "pad", "pad", 0)
    _check(kernel, stride, pad)
    if p.pool == "STOCHASTIC" and any(pad):
        raise NetError("only MAX and AVE pooling take padding")
    ceil = not (p.has("round_mode") and p.round_mode == "FLOOR") and p.get("ceil_mode", True)
    size = tuple(_size(*sizes, ceil=ceil, padded=any(pad)) for sizes in zip(shape[2:], kernel, stride, pad, strict=True))
    if min(size) < 1:
        raise NetError(f"a kernel of {list(kernel)} does not fit into {list(shape[2:])} with pad {list(pad)}")
    for edge, out, s, q in zip(shape[2:], size, stride, pad, strict=True):
        if (out - 1) * s - q >= edge:
            raise NetError(
                f"with stride {list(stride)} above kernel {list(kernel)}, Caffe adds a window that lies outside of the {list(shape[2:])} image "
                "and fills it with -FLT_MAX or NaN (layers/Pooling/kernel-1-stride-2-even-max); write round_mode: FLOOR"
            )
    module = _module(p.pool, len(layer.tops), kernel, pad)
    plain = _one if module.startswith("nn.") else tuple
    args: dict[str, Any] = {"kernel_size": plain(kernel), "stride": plain(stride)}
    args |= {"padding": plain(pad)} if any(pad) else {}
    args |= {"ceil_mode": True} if ceil else {}
    top = (*shape[:2], *size)
    macs = prod(top) * prod(kernel)
    return Recipe(module, args, (top,) * len(layer.tops), macs=0 if p.pool == "MAX" else macs)


@layer("SPP", in_place="the pyramid has another shape")
def spp(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """[N, C, H, W] -> [N, C * bins], level l with 2^l x 2^l bins as far as Caffe's windows reach; one level alone is [N, C, 1, 1]."""
    p, shape = layer.spec.spp_param, shapes[0]
    if len(shape) != 4 or min(shape[2:]) < 1:
        raise NetError(f"pools a blob of 4 axes, not {list(shape)}")
    if p.pool not in ("MAX", "AVE"):
        raise NetError(f"pool {p.pool} has no windows with padding; write MAX or AVE")
    if not 1 <= p.pyramid_height <= 31:
        raise NetError(f"pyramid_height {p.pyramid_height}: at least 1, and 2^height bins a side at most 2^31")
    sizes = [tuple(_level(size, 2**level) for size in shape[2:]) for level in range(p.pyramid_height)]
    args = {"height": p.pyramid_height, "average": p.pool == "AVE"}
    top = (*shape[:2], 1, 1) if len(sizes) == 1 else (shape[0], shape[1] * sum(map(prod, sizes)))
    return Recipe("pooling.SPP", args, (top,), macs=prod(shape) * len(sizes) if p.pool == "AVE" else 0)


def _level(size: int, bins: int) -> int:
    """How many windows of a level lie along an axis."""
    kernel = -(-size // bins)
    pad = (kernel * bins - size + 1) // 2
    if pad >= kernel:
        raise NetError(f"a level of {bins} bins for {size} values has windows of {kernel} padded by {pad}, which Caffe refuses; lower pyramid_height")
    return _size(size, kernel, kernel, pad, ceil=True, padded=pad > 0)


def _one(sizes: tuple[int, ...]) -> int | tuple[int, ...]:
    return sizes[0] if len(set(sizes)) == 1 else sizes


def _module(method: str, tops: int, kernel: tuple[int, int], pad: tuple[int, int]) -> str:
    if method == "STOCHASTIC":
        return "pooling.StochasticPool2d"
    wide = any(2 * q > k for k, q in zip(kernel, pad, strict=True))  # torch refuses such padding
    if method == "AVE":
        return "pooling.WideAvgPool2d" if wide else "nn.AvgPool2d"
    return "pooling.MaxPool2dWithMask" if tops == 2 else "pooling.WideMaxPool2d" if wide else "nn.MaxPool2d"


def _global(p: Any, shape: Shape, tops: int) -> Recipe:
    if p.has("kernel_size") or p.has("kernel_h") or p.has("kernel_w"):
        raise NetError("global_pooling takes the whole image; remove the kernel size")
    if any(_pair(p, "pad", "pad", 0)) or set(_pair(p, "stride", "stride", 1)) != {1}:
        raise NetError("global_pooling takes no pad, and stride 1")
    top = (*shape[:2], 1, 1)
    if p.pool == "STOCHASTIC":
        return Recipe("pooling.StochasticPool2d", {"kernel_size": None}, (top,))
    if p.pool == "AVE":
        return Recipe("nn.AdaptiveAvgPool2d", {"output_size": 1}, (top,), macs=prod(shape))
    module = "pooling.MaxPool2dWithMask" if tops == 2 else "nn.AdaptiveMaxPool2d"
    return Recipe(module, {"kernel_size": None} if tops == 2 else {"output_size": 1}, (top,) * tops)


def _pair(p: Any, name: str, both: str, default: int) -> tuple[int, int]:
    """`both` wins over a lone `_h` or `_w`, as Caffe reads them (`pool_kernel_size_and_kernel_h`)."""
    h, w = f"{name}_h", f"{name}_w"
    if p.has(both) and p.has(h) and p.has(w):
        raise NetError(f"has {both}, {h} and {w}; write {both} or the other two")
    if p.has(both):
        return (getattr(p, both),) * 2
    if p.has(h) and p.has(w):
        return (getattr(p, h), getattr(p, w))
    if p.has(h) or p.has(w):
        raise NetError(f"has only one of {h} and {w}")
    return (default, default)


def _check(kernel: tuple[int, int], stride: tuple[int, int], pad: tuple[int, int]) -> None:
    if min(kernel) < 1:
        raise NetError("kernel_size is missing or 0")
    if min(stride) < 1:
        raise NetError("stride is 0")
    if any(q >= k for k, q in zip(kernel, pad, strict=True)):
        raise NetError(f"pad {list(pad)} must be smaller than the kernel {list(kernel)}")


def _size(size: int, kernel: int, stride: int, pad: int, *, ceil: bool, padded: bool) -> int:
    span = size + 2 * pad - kernel
    out = (-(-span // stride) if ceil else span // stride) + 1
    return out - 1 if padded and (out - 1) * stride >= size + pad else out
