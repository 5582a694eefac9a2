"""Layers that only move values: joining, cutting, reordering, changing the shape."""

from __future__ import annotations

from itertools import pairwise
from math import prod
from typing import Any

from prototxt import NetError
from prototxt.net import Layer

from ..recipe import Recipe, Shape
from ..registry import axis_of, layer


@layer("Concat", bottoms=(1, None), shares="alone")
def concat(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """Joins along `axis` (or the older `concat_dim`)."""
    axis = _axis(layer.spec.concat_param, "concat_dim", shapes[0])
    for i, shape in enumerate(shapes):
        if len(shape) != len(shapes[0]) or any(a != b for d, (a, b) in enumerate(zip(shape, shapes[0], strict=True)) if d != axis):
            raise NetError(
                f"bottoms {layer.bottoms[0]!r} {list(shapes[0])} and {layer.bottoms[i]!r} {list(shape)} differ beside axis {axis}, "
                "along which they are joined"
            )
    top = (*shapes[0][:axis], sum(s[axis] for s in shapes), *shapes[0][axis + 1 :])
    return Recipe("shape.Concat", {"dim": axis}, (top,))


@layer("Slice", tops=(1, None), shares="alone", in_place="a slice cannot overwrite what it cuts")
def slice_(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """Cuts along `axis` (or the older `slice_dim`) at slice_point, or into equal parts."""
    p = layer.spec.slice_param
    axis = _axis(p, "slice_dim", shapes[0])
    size, tops, points = shapes[0][axis], len(layer.tops), list(p.slice_point)
    if points:
        if len(points) != tops - 1:
            raise NetError(f"{len(points)} slice_point for {tops} tops; there must be one fewer")
        edges = [0, *points, size]
        if any(b <= a for a, b in pairwise(edges)):
            raise NetError(f"slice_point {points} must rise within the {size} of axis {axis}")
    elif size % tops:
        raise NetError(f"{size} along axis {axis} cannot be cut into {tops} equal tops; give slice_point")
    else:
        edges = [size // tops * i for i in range(tops + 1)]
    sizes = [b - a for a, b in pairwise(edges)]
    made = tuple((*shapes[0][:axis], s, *shapes[0][axis + 1 :]) for s in sizes)
    if axis == 0 and not points:  # a batch cut into equal parts: the size is the caller's
        return Recipe("shape.SliceEqual", {"parts": tops, "dim": 0}, made)
    return Recipe("shape.Slice", {"sizes": tuple(sizes), "dim": axis}, made)


@layer("Split", tops=(1, None), shares="always", in_place="Caffe refuses that")
def split(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """The same blob under several names."""
    return Recipe("shape.Split", {"copies": len(layer.tops)}, shapes * len(layer.tops))


@layer("Flatten", shares="always", in_place="Caffe refuses that")
def flatten(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """Joins the axes from `axis` to `end_axis` into one: none of them, where that is the axis before, into a new one of size 1."""
    p = layer.spec.flatten_param
    axis, end = axis_of(p.axis, len(shapes[0])), axis_of(p.end_axis, len(shapes[0]), what="end_axis")
    if end < axis - 1:
        raise NetError(f"end_axis {end} comes before axis {axis}")
    if end < axis:
        return Recipe("forks.Unsqueeze", {"axis": axis}, ((*shapes[0][:axis], 1, *shapes[0][axis:]),))
    top = (*shapes[0][:axis], prod(shapes[0][axis : end + 1]), *shapes[0][end + 1 :])
    return Recipe("nn.Flatten", {"start_dim": axis, "end_dim": end - len(shapes[0])}, (top,))


@layer("Reshape", shares="always", in_place="Caffe refuses that")
def reshape(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """0 copies the axis at its place, -1 is inferred; `axis` and `num_axes` limit what is reshaped."""
    p, shape = layer.spec.reshape_param, shapes[0]
    dims = list(p.shape.dim)
    start = axis_of(p.axis, len(shape), behind=True)
    end = len(shape) if p.num_axes == -1 else start + p.num_axes
    if p.num_axes < -1 or end > len(shape):
        raise NetError(f"num_axes {p.num_axes} from axis {start} reach beyond {list(shape)}")
    if sum(d == -1 for d in dims) > 1 or any(d < -1 for d in dims):
        raise NetError(f"dims {dims}: each is at least -1, and only one may be -1")
    if any(d == 0 and start + i >= len(shape) for i, d in enumerate(dims)):
        raise NetError(f"dims {dims}: a 0 copies an axis that {list(shape)} does not have there")
    known = prod(shape[start + i] if d == 0 else d for i, d in enumerate(dims) if d != -1)
    span = prod(shape[start:end])
    made = [shape[start + i] if d == 0 else span // known if d == -1 and known else d for i, d in enumerate(dims)]
    top = (*shape[:start], *made, *shape[end:])
    if prod(top) != prod(shape):
        raise NetError(f"{list(shape)} holds {prod(shape):,} values and cannot become {list(top)}, which has {prod(top):,}")
    if start == 0 and dims and shape and dims[0] == shape[0] and end > 0:
        dims[0] = 0  # the batch size, written out: relative, so that another batch size works too
    return Recipe("shape.Reshape", {"dims": tuple(dims), "start": start, "end": None if p.num_axes == -1 else end}, (top,))


@layer("Crop", bottoms=2)
def crop(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """Cuts bottom 0 to the size of bottom 1 from `axis` on, at `offset` (0 if absent, one for all, or one each)."""
    p = layer.spec.crop_param
    axis = axis_of(p.axis, len(shapes[0]))
    given, count = list(p.offset), len(shapes[0]) - axis
    if len(shapes[0]) != len(shapes[1]):
        raise NetError(f"bottoms of {len(shapes[0])} and {len(shapes[1])} axes; they must have as many")
    if len(given) > 1 and len(given) != count:
        raise NetError(f"{len(given)} offsets for {count} axes from axis {axis}: none, one, or one for each")
    offsets = tuple(given * count if len(given) == 1 else given or [0] * count)
    for offset, large, small in zip(offsets, shapes[0][axis:], shapes[1][axis:], strict=True):
        if offset + small > large:
            raise NetError(f"offset {offset} + {small} reaches beyond {large}: {list(shapes[0])} cut to {list(shapes[1])} from axis {axis}")
    return Recipe("shape.Crop", {"axis": axis, "offsets": offsets}, ((*shapes[0][:axis], *shapes[1][axis:]),))


@layer("CropCenter")
def crop_center(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """Takes crop_size values off both ends of each axis (waifu2x-caffe): one crop_size for each axis."""
    p = layer.spec.part("crop_center_param")
    sizes = p.get("crop_size") if p is not None else None
    listed = tuple(sizes) if isinstance(sizes, list) else (sizes,)
    if len(listed) != len(shapes[0]) or not all(isinstance(s, int) and s >= 0 for s in listed):
        raise NetError(f"crop_center_param must name one crop_size for each of the {len(shapes[0])} axes of {list(shapes[0])}")
    top = tuple(d - 2 * s for d, s in zip(shapes[0], listed, strict=True))
    if min(top) < 1:
        raise NetError(f"crop_size {list(listed)} leaves nothing of {list(shapes[0])}")
    return Recipe("shape.CropCenter", {"sizes": listed}, (top,))


@layer("Permute", in_place="Permute in place gives rubbish in Caffe (CASES-SSD 22)")
def permute(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """Reorders axes; those that `order` leaves out follow in their own order."""
    order, axes = list(layer.spec.permute_param.order), len(shapes[0])
    if any(a >= axes for a in order) or len(set(order)) != len(order):
        raise NetError(f"order {order} must name each of the {axes} axes of {list(shapes[0])} once at most")
    full = tuple(order + [a for a in range(axes) if a not in order])
    return Recipe("shape.Permute", {"order": full}, (tuple(shapes[0][a] for a in full),))


@layer("Tile")
def tile(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """Repeats `tiles` times along `axis`."""
    p = layer.spec.tile_param
    if not p.has("tiles") or p.tiles < 1:
        raise NetError("tiles is missing or below 1")
    axis = axis_of(p.axis, len(shapes[0]))
    top = tuple(d * p.tiles if i == axis else d for i, d in enumerate(shapes[0]))
    return Recipe("shape.Tile", {"dim": axis, "tiles": p.tiles}, (top,))


@layer("Silence", bottoms=(1, None), tops=0)
def silence(layer: Layer, shapes: tuple[Shape, ...]) -> Recipe:
    """Reads blobs so that they are no outputs."""
    return Recipe("shape.Silence", {}, ())


def _axis(p: Any, old: str, shape: Shape) -> int:
    if p.has(old):
        if p.has("axis"):
            raise NetError(f"has axis and the older {old}; write one of the two")
        return axis_of(getattr(p, old), len(shape), what=old)
    return axis_of(p.axis, len(shape))
