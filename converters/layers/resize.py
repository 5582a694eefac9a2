"""Layers of forks that change the size of an image: interpolation, repetition, unpooling, padding, and space moved into channels or back."""

from __future__ import annotations

from math import floor
from typing import Any

from prototxt import NetError, UnsupportedLayer
from prototxt.net import Layer

from ..recipe import Recipe, Shape
from ..registry import float32, layer


@layer("Interp", bottoms=(1, 2))
def interp(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """[N, C, H, W] -> [N, C, H', W']: bilinear with corners on corners (DeepLab, PSPNet), to a size, by factors, or to the second bottom's.

    A factor alone goes before height and width, and these before both factors.
    """
    p = layer.spec.interp_param
    _image(shapes[0])
    if p.pad_beg > 0 or p.pad_end > 0:
        raise NetError(f"padding must cut (0 or below), not {p.pad_beg} and {p.pad_end}")
    if p.full_zoom_factor != 1:
        raise NetError("full_zoom_factor is a fork's own and has no rule here")
    size = [d + p.pad_beg + p.pad_end for d in shapes[0][2:]]
    args: dict[str, Any] = {"begin": -p.pad_beg, "end": -p.pad_end}
    zoom, shrink, given = p.has("zoom_factor"), p.has("shrink_factor"), [p.has(name) for name in ("height", "width")]
    if len(shapes) == 2:
        if zoom or shrink or any(given):
            raise NetError("has a second bottom of the size, and fields that name another; leave out one of the two")
        made = shapes[1][2:4]
    elif zoom == shrink and all(given):
        made = (p.height, p.width)
        args["size"] = made
    elif (zoom or shrink) and p.zoom_factor >= 1 and p.shrink_factor >= 1:
        args |= {"zoom": p.zoom_factor, "shrink": p.shrink_factor}
        shrunk = [(d - 1) // p.shrink_factor + 1 for d in size]
        made = tuple(d + (d - 1) * (p.zoom_factor - 1) for d in shrunk)
    else:
        raise NetError("give height and width, factors of at least 1, or a second bottom of the size")
    if len(made) != 2 or min(*size, *made) < 1:
        raise NetError(f"{list(shapes[0][2:])} cut to {size} cannot become {list(made)}")
    return Recipe("resize.Interp", args, ((*shapes[0][:2], *made),))


_GRIDS = {"align_corners": "corners", "half_pixel_centers": "half"}


@layer("ResizeBilinear", "ResizeNearestNeighbor")
def resize(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """[N, C, H, W] -> [N, C, H', W'] as TensorFlow does it: on a grid with corners on corners, with half pixels, or with neither.

    Only data_format: NCHW has this meaning; the layer's own default is NHWC.
    """
    bilinear = layer.type == "ResizeBilinear"
    p = layer.spec.resize_bilinear_param if bilinear else layer.spec.resize_nearest_neighbor_param
    _image(shapes[0])
    if p.data_format != "NCHW":
        raise UnsupportedLayer(f"data_format {p.data_format} (the default is NHWC) reads the axes in another order; permute, and write NCHW")
    for name in ("output_depth", "scale_depth", "input_scale", "output_scale", "input_zero_point", "output_zero_point", "saturate"):
        if p.has(name):
            raise UnsupportedLayer(f"{name} has no rule here")
    made = (_resized(p, "height", shapes[0][2]), _resized(p, "width", shapes[0][3]))
    grids = [name for name in ("align_corners", "half_pixel_centers", "pytorch_half_pixel", "half_pixel_onnx") if p.get(name, False)]
    if len(grids) > 1 or (grids and grids[0] not in _GRIDS):
        raise UnsupportedLayer(f"{' and '.join(grids)}: one of align_corners and half_pixel_centers, or neither, has a rule here")
    grid = _GRIDS[grids[0]] if grids else "plain"
    if min(made) < 1:
        raise NetError(f"{list(shapes[0][2:])} cannot become {list(made)}")
    return Recipe("resize.GridResize", {"size": made, "grid": grid, "bilinear": bilinear}, ((*shapes[0][:2], *made),))


def _resized(p: Any, name: str, size: int) -> int:
    """output_height, else the size by scale_height, which Caffe multiplies in float32; the same for the width."""
    if p.has(f"output_{name}"):
        return int(getattr(p, f"output_{name}"))
    if not p.has(f"scale_{name}"):
        raise NetError(f"give output_{name} or scale_{name}")
    scale = getattr(p, f"scale_{name}")
    scaled = float32(size * scale)
    if not abs(scaled) < 1 << 31:
        raise NetError(f"{size} by scale_{name} {scale:g} is no size")
    return floor(scaled)


@layer("Resize", bottoms=(1, 2))
def resize_densebox(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """[N, C, H, W] -> [N, C, H', W'], bilinear: place i of the output is i in / out of the input, with zeros behind its last (DenseBox).

    is_pyramid_test, which no other fork has, must be written: it says whether the size or scales are given.
    """
    p = layer.spec.resize_param
    scaled = p.get("is_pyramid_test")
    if not isinstance(scaled, bool) or len(shapes) > 1 or str(p.get("type", "BILINEAR")) != "BILINEAR":
        raise UnsupportedLayer(
            "forks share the name: is_pyramid_test tells DenseBox's (bilinear, on the grid i in / out, with zeros behind the last row and column), "
            "which alone has a rule; others put half pixels or corners on corners, repeat the nearest, or take the size of a second bottom. Write "
            "resize_param { is_pyramid_test: false height: width: }, or Interp (corners on corners), or ResizeBilinear with half_pixel_centers"
        )
    names = ("out_height_scale", "out_width_scale") if scaled else ("height", "width")
    _image(shapes[0])
    if not all(isinstance(p.get(name), (int, float)) for name in names):
        raise NetError(f"is_pyramid_test: {str(scaled).lower()} needs {names[0]} and {names[1]}")
    given = [p.get(name) for name in names]
    sizes = [float32(d * v) for d, v in zip(shapes[0][2:], given, strict=True)] if scaled else given
    if not all(1 <= v < 1 << 31 for v in sizes):
        raise NetError(f"{list(shapes[0][2:])} cannot become {sizes}")
    made = (int(sizes[0]), int(sizes[1]))
    return Recipe("resize.GridResize", {"size": made, "grid": "plain", "bilinear": True, "zeros": True}, ((*shapes[0][:2], *made),))


@layer("Upsample", bottoms=(1, 2))
def upsample(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """With one bottom: every pixel repeated `scale` times (YOLO). With a pooling mask as second: values put back where they came from (SegNet)."""
    p, shape = layer.spec.upsample_param, shapes[0]
    _image(shape)
    if len(shapes) == 2:
        return _unpool(shapes, _upsampled(p, shape))
    if any(p.has(name) for name in ("scale_h", "scale_w", "upsample_h", "upsample_w", "pad_out_h", "pad_out_w")):
        raise UnsupportedLayer(
            "upsample_h, upsample_w, scale_h and scale_w belong to SegNet's Upsample, which takes a pooling mask as second bottom; "
            "YOLO's repeats each pixel `scale` times and takes one"
        )
    if not p.has("scale"):
        raise UnsupportedLayer("forks differ on the scale that is not written, 1 or 2; write upsample_param { scale: }")
    if p.get("dims_num", 4) != 4 or p.scale < 1:
        raise NetError("scale must be at least 1, and dims_num 4")
    return Recipe("resize.Repeat", {"scale": p.scale}, ((*shape[:2], shape[2] * p.scale, shape[3] * p.scale),))


def _upsampled(p: Any, shape: Shape) -> dict[str, Any]:
    """The size as SegNet reads it: where upsample_h and upsample_w are written, the older fields mean nothing."""
    size, each = ([p.has(f"{name}_{axis}") for axis in "hw"] for name in ("upsample", "scale"))
    whole, padded = p.has("scale"), (int(p.pad_out_h), int(p.pad_out_w))
    if all(size):
        if min(p.upsample_h, p.upsample_w) < 2:
            raise NetError(f"upsample_h {p.upsample_h} and upsample_w {p.upsample_w}: at least 2")
        return {"size": (p.upsample_h, p.upsample_w)}
    if any(each) and (whole or not all(each)):
        raise NetError("give upsample_h and upsample_w, or scale, or scale_h and scale_w")
    high, wide = (p.scale_h, p.scale_w) if any(each) else (p.scale, p.scale)
    if min(high, wide) < 2 or (padded[0] and high != 2) or (padded[1] and wide != 2):
        raise NetError(f"scale {high} x {wide}: at least 2, and exactly 2 with pad_out_h or pad_out_w")
    return {"scale": (high, wide), "less": padded}


@layer("MaxUnpool", "MaxUnPool", bottoms=2)
def max_unpool(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """Values put back to where a pooling mask, the second bottom, says; dst_h and dst_w are the size."""
    p = layer.spec.part("max_unpool_param")
    _image(shapes[0])
    if p is None or not p.has("dst_h") or not p.has("dst_w"):
        raise NetError("max_unpool_param must name dst_h and dst_w")
    return _unpool(shapes, {"size": (p.dst_h, p.dst_w)})


def _unpool(shapes: tuple[Shape, ...], args: dict[str, Any]) -> Recipe:
    value, mask = shapes
    if value != mask:
        raise NetError(f"the mask {list(mask)} must have the shape of the values {list(value)}")
    scale, less = args.get("scale", (0, 0)), args.get("less", (0, 0))
    size = args.get("size") or tuple(d * s - q for d, s, q in zip(value[2:], scale, less, strict=True))
    if min(size) < 1:
        raise NetError(f"{list(value[2:])} cannot become {list(size)}")
    return Recipe("resize.MaskUnpool", args, ((*value[:2], *size),))


@layer("PixelShuffle")
def pixel_shuffle(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """[N, C r^2, H, W] -> [N, C, H r, W r], channels in torch's order."""
    p = layer.spec.part("pixelshuffle_param")
    r = p.get("upscale_factor", 0) if p is not None else 0
    _image(shapes[0])
    if r < 1 or shapes[0][1] % r**2:
        raise NetError(f"upscale_factor {r} does not go with {shapes[0][1]} channels: they must be a multiple of its square")
    n, c, h, w = shapes[0]
    return Recipe("nn.PixelShuffle", {"upscale_factor": r}, ((n, c // r**2, h * r, w * r),))


@layer("Reorg", in_place="the top has another shape")
def reorg(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """[N, C, H, W] -> [N, C s^2, H / s, W / s] in Darknet's order, which is not torch's; `reverse` is the way back (YOLOv2)."""
    p = layer.spec.reorg_param
    _image(shapes[0])
    n, c, h, w = shapes[0]
    s = p.stride
    if not p.has("stride") or s < 1:
        raise NetError("reorg_param must name a stride")
    if p.reverse:
        if c % s**2:
            raise NetError(f"{c} channels are no multiple of {s}^2")
        return Recipe("resize.Reorg", {"stride": s, "reverse": True}, ((n, c // s**2, h * s, w * s),))
    if h % s or w % s or c % s**2:
        raise NetError(f"{list(shapes[0])}: height and width must be multiples of {s}, and in Darknet's order the channels of {s}^2")
    return Recipe("resize.Reorg", {"stride": s}, ((n, c * s**2, h // s, w // s),))


@layer("Pad")
def pad(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """[N, C, H, W] padded: pad_u, pad_d, pad_l, pad_r with pad_value, the border or its mirror; or `paddings`, two for each axis."""
    p, shape = layer.spec.pad_param, shapes[0]
    edges = ("pad_l", "pad_r", "pad_u", "pad_d")
    if p.paddings:
        if any(p.has(name) for name in (*edges, "pad_type", "pad_value")):
            raise UnsupportedLayer("paddings and pad_u, pad_d, pad_l, pad_r belong to two forks' layers; write one of the two")
        if len(p.paddings) != 2 * len(shape):
            raise NetError(f"{len(p.paddings)} paddings for {len(shape)} axes: two for each, before and behind")
        pairs = [tuple(p.paddings[2 * i : 2 * i + 2]) for i in range(len(shape))]
        value, mode = p.constant_values, "constant"
    elif any(p.has(name) for name in edges):
        _image(shape)
        pairs = [(0, 0), (0, 0), (p.pad_u, p.pad_d), (p.pad_l, p.pad_r)]
        value, mode = p.pad_value, {"CONSTANT": "constant", "REPLICATE": "replicate", "REFLECT": "reflect"}[p.pad_type]
    else:
        raise NetError("pad_param must name paddings, or pad_u, pad_d, pad_l, pad_r")
    top = tuple(d + a + b for d, (a, b) in zip(shape, pairs, strict=True))
    if min(top, default=1) < 1 or (mode == "reflect" and any(max(pair) >= d for d, pair in zip(shape, pairs, strict=True))):
        raise NetError(f"{pairs} do not go with {list(shape)}")
    drop = 2 if mode != "constant" else 0  # torch pads the border and its mirror on the last two axes alone
    around = tuple(v for pair in reversed(pairs[drop:]) for v in pair)
    return Recipe("resize.Pad", {"around": around, "mode": mode, "value": value}, (top,))


def _image(shape: Shape) -> None:
    if len(shape) != 4:
        raise NetError(f"takes a blob of 4 axes, not {list(shape)}")
