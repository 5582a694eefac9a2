"""One call in a traced module, and the tables of what calls become. A translator returns a blob, or several, or raises CannotWrite."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from torch import Tensor, nn

from .writer import Blob, CannotWrite, Shape, Writer


@dataclass(frozen=True, slots=True)
class Call:
    """`args` are blobs, tensors that are constants of the module, and plain values; `result` is what the call gave for the example."""

    writer: Writer
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result: Any
    module: Any = None

    @property
    def x(self) -> Blob:
        """The first argument, which must be a blob."""
        return blob(self.get(0, "input"))

    @property
    def shape(self) -> Shape:
        """The shape of the result."""
        return tuple(self.result.shape)

    def get(self, place: int, name: str, default: Any = None) -> Any:
        """An argument by place or name, or by the name that numpy has for it, as torch takes it."""
        given = (self.kwargs[spelled] for spelled in (name, *_NUMPYS.get(name, ())) if spelled in self.kwargs)
        return self.args[place] if len(self.args) > place else next(given, default)

    def one(self, type_: str, bottoms: Sequence[Blob], arrays: Sequence[Tensor] = (), shape: Shape | None = None, **params: Any) -> Blob:
        """Add a layer of one top, of the result's shape if no other is given."""
        return self.writer.one(type_, bottoms, self.shape if shape is None else shape, arrays, **params)


_NUMPYS = {"dim": ("axis",), "input": ("x", "a", "x1"), "other": ("x2",)}
Translator = Callable[[Call], Any]
MODULES: dict[type[nn.Module], Translator] = {}
FUNCTIONS: dict[Any, Translator] = {}  # functions, names of methods, and full names of functions of packages that need not be there


def module(*classes: type[nn.Module]) -> Callable[[Translator], Translator]:
    """Register the translator of module classes."""

    def register(translate: Translator) -> Translator:
        MODULES.update(dict.fromkeys(classes, translate))
        return translate

    return register


def function(*targets: Any) -> Callable[[Translator], Translator]:
    """Register the translator of functions, and of tensor methods by their names."""

    def register(translate: Translator) -> Translator:
        FUNCTIONS.update(dict.fromkeys(targets, translate))
        return translate

    return register


def blob(value: Any) -> Blob:
    """The value as a blob; CannotWrite for a constant."""
    if not isinstance(value, Blob):
        raise CannotWrite("takes a constant where a layer of Caffe reads a blob; compute it beforehand, or make it an input")
    return value


def number(value: Any) -> float:
    """The value as a number; CannotWrite for what is none, or is none before the net runs."""
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError) as exc:
        what = "a blob" if isinstance(value, Blob) else f"a {type(value).__name__}"
        raise CannotWrite(f"takes {what} where a layer of Caffe has a plain number; write the number") from exc


def need(fits: bool, why: str) -> None:
    """CannotWrite unless it fits."""
    if not fits:
        raise CannotWrite(why)


def pair(value: Any) -> tuple[int, int]:
    """Two numbers of one or two."""
    return (value, value) if isinstance(value, int) else tuple(value)


def sized(name: str, sizes: tuple[int, ...], usual: int | None = None, both: str = "") -> dict[str, Any]:
    """Fields of a size: nothing for the usual one, one number if all are equal, else `_h` and `_w`."""
    if set(sizes) == {usual}:
        return {}
    if len(set(sizes)) == 1:
        return {both or name: sizes[0]}
    return {f"{name}_h": sizes[0], f"{name}_w": sizes[1]}


# What several parts are made of -----------------------------------------------------------------------------------------


def power(call: Call, x: Blob, *, scale: float = 1.0, shift: float = 0.0, exponent: float = 1.0) -> Blob:
    """(shift + scale x) ^ exponent; x itself if that changes nothing."""
    fields = {"power": exponent if exponent != 1 else None, "scale": scale if scale != 1 else None, "shift": shift if shift != 0 else None}
    return x if set(fields.values()) == {None} else call.one("Power", [x], shape=x.shape, power_param=fields)


def clip(call: Call, x: Blob, low: Any, high: Any) -> Blob:
    """x within low .. high."""
    return call.one("Clip", [x], shape=x.shape, clip_param={"min": number(low), "max": number(high)})


def cut(call: Call, x: Blob, axis: int, start: int, stop: int) -> Blob:
    """The part of x from start to stop along an axis; the rest is read by nobody."""
    size = x.shape[axis]
    edges = [edge for edge in (start, stop) if 0 < edge < size]
    if not edges:
        return x
    parts = [b - a for a, b in zip([0, *edges], [*edges, size], strict=True)]
    tops = call.writer.add(
        "Slice", [x], [(*x.shape[:axis], p, *x.shape[axis + 1 :]) for p in parts], slice_param={"axis": axis, "slice_point": edges}
    )
    kept = tops[1 if start > 0 else 0]
    call.writer.silence([top for top in tops if top is not kept])
    return kept


def reshape(call: Call, x: Blob, shape: Shape) -> Blob:
    """x in another shape; the batch size stays free if both have it first."""
    if x.shape == shape:
        return x
    if len(shape) == 2 and x.shape[:1] == shape[:1] and len(x.shape) > 1:
        return call.one("Flatten", [x], shape=shape)
    dims = [0 if i == 0 and x.shape[:1] == shape[:1] else d for i, d in enumerate(shape)]
    return call.one("Reshape", [x], shape=shape, reshape_param={"shape": {"dim": dims}})


def pool(call: Call, x: Blob, method: str, kernel: Any, stride: Any, pad: Any, *, want: Shape) -> Blob:
    """Pooling of any rounding, exactly. Caffe rounds the size up: a window that torch leaves out is cut off again."""
    need(len(x.shape) == 4, f"pools {len(x.shape) - 2} axes; Caffe pools images [N, C, H, W]")
    kernel, stride, pad = pair(kernel), pair(stride if stride is not None and stride != () else kernel), pair(pad)
    need(all(q < k for k, q in zip(kernel, pad, strict=True)), f"padding {pad} must be below the kernel {kernel}")
    made, outside = [], False
    for size, k, s, q in zip(x.shape[2:], kernel, stride, pad, strict=True):
        out = -(-(size + 2 * q - k) // s) + 1
        out -= bool(q) and (out - 1) * s >= size + q
        outside |= (out - 1) * s - q >= size
        made.append(out)
    fields = {"pool": method, **sized("kernel", kernel, both="kernel_size"), **sized("stride", stride, 1), **sized("pad", pad, 0)}
    if outside:  # Caffe would fill a window outside of the image with nonsense
        return call.one("Pooling", [x], shape=(*x.shape[:2], *want), pooling_param=fields | {"round_mode": "FLOOR"})
    y = call.one("Pooling", [x], shape=(*x.shape[:2], *made), pooling_param=fields)
    for axis, size in enumerate(want, 2):
        y = cut(call, y, axis, 0, size)
    return y


def global_pool(call: Call, x: Blob, method: str) -> Blob:
    """The maximum or the mean of each plane, [N, C, 1, 1]."""
    need(len(x.shape) == 4, f"pools {len(x.shape) - 2} axes; Caffe pools images [N, C, H, W]")
    return call.one("Pooling", [x], shape=(*x.shape[:2], 1, 1), pooling_param={"pool": method, "global_pooling": True})


def adaptive(call: Call, x: Blob, method: str) -> Blob:
    """Pooling to a size that divides the image's."""
    want = call.shape[2:]
    if set(want) == {1}:
        return global_pool(call, x, method)
    need(
        len(want) == 2 and all(size % w == 0 for size, w in zip(x.shape[2:], want, strict=True)),
        f"pools {list(x.shape[2:])} to {list(want)} with windows of several sizes; give it an image whose size is a multiple",
    )
    kernel = tuple(size // w for size, w in zip(x.shape[2:], want, strict=True))
    return x if kernel == (1, 1) else pool(call, x, method, kernel, kernel, 0, want=want)


def leading(x: Blob, small: Shape) -> int | None:
    """How many first axes of x a shape covers, 1 behind them: [N, C, 1, 1] covers two of [N, C, H, W]; None if it is none such."""
    if len(small) != len(x.shape):
        return None
    count = next((i for i, (a, b) in enumerate(zip(small, x.shape, strict=True)) if a != b), len(small))
    return count if count and prod(small[count:]) == 1 else None
