"""SPP: spatial pyramid pooling. He et al., Spatial Pyramid Pooling in Deep Convolutional Networks, 2014."""

from __future__ import annotations

from math import prod

from prototxt import NetError
from prototxt.net import Layer

from ..recipe import Recipe, Shape
from ..registry import layer


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
    sizes = [tuple(_bins(size, 2**level) for size in shape[2:]) for level in range(p.pyramid_height)]
    args = {"height": p.pyramid_height, "average": p.pool == "AVE"}
    top = (*shape[:2], 1, 1) if len(sizes) == 1 else (shape[0], shape[1] * sum(map(prod, sizes)))
    return Recipe("pyramid.SPP", args, (top,), macs=prod(shape) * len(sizes) if p.pool == "AVE" else 0)


def _bins(size: int, bins: int) -> int:
    """How many windows of ceil(size / bins) there are along an axis; those that start behind the image and its near padding are dropped."""
    kernel = -(-size // bins)
    pad = (kernel * bins - size + 1) // 2
    if pad >= kernel:
        raise NetError(f"a level of {bins} bins for {size} values has windows of {kernel} padded by {pad}, which Caffe refuses; lower pyramid_height")
    windows = -(-(size + 2 * pad - kernel) // kernel) + 1
    return windows - 1 if pad and (windows - 1) * kernel >= size + pad else windows
