"""DummyData: what its fields say. Conformance: data/dummy_*."""

from __future__ import annotations

from typing import Any

from ..errors import NetError
from ..message import Message, new
from ..net import Layer
from ..wire import MAX_AXES, MAX_COUNT
from . import fillers

Shape = tuple[int, ...]


def plan(layer: Layer) -> tuple[tuple[Shape, ...], tuple[Message, ...]]:
    """The shape and the filler of each top. NetError where Caffe would stop."""
    p, tops = layer.spec.dummy_data_param, len(layer.tops)
    listed = [_plain(f) for f in p.data_filler]
    if len(listed) not in (0, 1, tops):
        raise NetError(f"{len(listed)} data_filler for {tops} tops: none, one for all, or one for each")
    found = listed * tops if len(listed) == 1 else listed or [new("FillerParameter")] * tops
    made = _shapes(p, tops)
    for shape, filler in zip(made, found, strict=True):
        if len(shape) > MAX_AXES or any(d < 0 for d in shape) or _count(shape) > MAX_COUNT:
            raise NetError(f"a top of shape {list(shape)[:40]} is no blob")
        fillers.check(filler, shape)
    return made, tuple(found)


def _plain(message: Any) -> Message:
    return getattr(message, "message", message)  # type: ignore[no-any-return]


def _count(shape: Shape) -> int:
    count = 1
    for d in shape:
        count *= d
    return count


def _shapes(p: Any, tops: int) -> tuple[Shape, ...]:
    """`shape`, one for all tops or one for each; or the older num, channels, height and width."""
    legacy = [list(getattr(p, name)) for name in ("num", "channels", "height", "width")]
    if p.shape and any(legacy):
        raise NetError("has shape and the older num, channels, height, width; write one of the two")
    if p.shape:
        listed = [tuple(s.dim) for s in p.shape]
        if len(listed) not in (1, tops):
            raise NetError(f"{len(listed)} shapes for {tops} tops: one for all, or one for each")
        return tuple(listed * tops if len(listed) == 1 else listed)
    if any(len(dims) not in (1, tops) for dims in legacy):
        raise NetError(f"needs a shape for its {tops} tops; num, channels, height and width are written once for all, or once for each")
    return tuple(zip(*(dims * tops if len(dims) == 1 else dims for dims in legacy), strict=True))
