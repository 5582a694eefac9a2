"""The rules, by Caffe's layer type. `@layer("Pooling", bottoms=1, tops=(1, 2))` registers one.

A rule is a function of the layer and the shapes of its bottoms; it returns a Recipe, or Inputs for a layer that feeds the net. It
raises NetError without saying where: the graph adds the place. Plug-ins register by the same decorator, from a module named by
an entry point of the group `decant.layers`.
"""

from __future__ import annotations

from collections.abc import Callable
from ctypes import c_float
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from math import isfinite
from pathlib import Path
from typing import Any

from prototxt import NetError, UnsupportedLayer
from prototxt.message import new, to_dict
from prototxt.net import Layer

from .recipe import Recipe, Shape

Count = int | tuple[int, int | None]  # exactly, or from .. to (None: any number)


@dataclass(frozen=True, slots=True)
class Inputs:
    """The layer feeds the net: its tops become the module's inputs; None is a shape that only the data could tell.

    `note` says what was assumed, if anything.
    """

    tops: tuple[Shape | None, ...]
    note: str = ""


RuleFunction = Callable[[Layer, tuple[Shape, ...]], Recipe | Inputs]


@dataclass(frozen=True, slots=True)
class Rule:
    """How a layer type is met. `automatic` losses get a top when the file gives none; `in_place` is empty, or says why not.

    The tops of a layer that `shares` lie in the memory of its bottom, always or where both are alone: what is written in place to one changes all.
    """

    type: str
    make: RuleFunction
    bottoms: tuple[int, int | None]
    tops: tuple[int, int | None]
    equal_counts: bool = False
    automatic: bool = False
    in_place: str = ""
    shares: str = ""
    onnx: str = ""  # why ONNX cannot express it; empty if it can
    differs: str = ""  # how it differs from Caffe; empty if it does not


_RULES: dict[str, Rule] = {}


def layer(
    *types: str,
    bottoms: Count = 1,
    tops: Count = 1,
    equal_counts: bool = False,
    automatic: bool = False,
    in_place: str = "",
    shares: str = "",
    onnx: str = "",
    differs: str = "",
) -> Callable[[RuleFunction], RuleFunction]:
    """Register the decorated function as the rule of `types`; ValueError if one has a rule already."""

    def register(make: RuleFunction) -> RuleFunction:
        for name in types:
            if name in _RULES:
                raise ValueError(f"layer type {name!r} has a rule already: {_RULES[name].make.__module__}.{_RULES[name].make.__qualname__}")
            _RULES[name] = Rule(name, make, _range(bottoms), _range(tops), equal_counts, automatic, in_place, shares, onnx, differs)
        return make

    return register


_PYTHON: dict[tuple[str, str], RuleFunction] = {}


def python_layer(name: str, module: str = "") -> Callable[[RuleFunction], RuleFunction]:
    """Register the decorated function as the rule of Python layers of class `name`, in any module or in `module` only."""

    def register(make: RuleFunction) -> RuleFunction:
        if (module, name) in _PYTHON:
            raise ValueError(f"the Python layer {name!r} has a rule already: {_PYTHON[module, name].__module__}")
        _PYTHON[module, name] = make
        return make

    return register


def python_rule(module: str, name: str) -> RuleFunction | None:
    """The rule of a Python layer, first of its module, then of its name."""
    return _PYTHON.get((module, name)) or _PYTHON.get(("", name))


def _range(count: Count) -> tuple[int, int | None]:
    return (count, count) if isinstance(count, int) else count


def rules() -> dict[str, Rule]:
    """All rules by type: those of converters/layers and those of installed plug-ins."""
    _discover()
    return dict(_RULES)


@cache
def _discover() -> None:
    for file in sorted((Path(__file__).parent / "layers").glob("*.py")):
        if file.stem != "__init__":
            import_module(f"converters.layers.{file.stem}")
    from importlib.metadata import entry_points

    for entry in entry_points(group="decant.layers"):
        entry.load()


def rule_for(kind: str) -> Rule:
    """The rule of a layer type; UnsupportedLayer with the nearest type if there is none."""
    _discover()
    if kind in _RULES:
        return _RULES[kind]
    lower = {name.lower(): name for name in _RULES}
    near = get_close_matches(kind.lower(), lower, n=1)
    raise UnsupportedLayer(f"no rule for layer type {kind!r}" + (f"; did you mean {lower[near[0]]!r}?" if near else ""))


HOW_TO_RUN = frozenset(  # fields of forks that choose a library, a precision or a way to distribute, and mean nothing for the values
    (
        "backward_math", "backward_type", "cudnn_math_override", "debug", "engine", "forward_math", "forward_type", "fuse",
        "mn_activation_param", "mn_grad_compress_param", "mn_param_grad_compress_param", "multinode", "quantization_param", "reshape_every_iter",
    )
)  # fmt: skip


class Tracked:
    """A message that remembers which of its fields were read, so that no fork's field is passed over in silence."""

    __slots__ = ("_inner", "_message", "_read")

    def __init__(self, message: Any) -> None:
        self._message, self._read = message, set[str]()
        self._inner: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        self._read.add(name)
        value = getattr(self._message, name)
        if hasattr(value, "kind") or (isinstance(value, list) and value and hasattr(value[0], "kind")):
            if name not in self._inner:
                self._inner[name] = [Tracked(v) for v in value] if isinstance(value, list) else Tracked(value)
            return self._inner[name]
        return value

    def has(self, name: str) -> bool:
        """Whether the field was written; counts as reading it."""
        self._read.add(name)
        return bool(self._message.has(name))

    def get(self, name: str, default: Any = None) -> Any:
        """The field as written, else `default`; NetError if no schema here has the field, and it is not of the default's type."""
        if not self.has(name):
            return default
        value = getattr(self, name)
        if default is not None and name in self._message.unknown and not _alike(value, default):
            raise NetError(f"{name} must be {_TYPES[type(default)]}")
        return value

    def part(self, name: str) -> Any:
        """The message `name`, which no schema here has, or None; NetError if it is a plain value, or stands more than once."""
        value = self.get(name)
        if value is not None and not isinstance(value, Tracked):
            raise NetError(f"{name} must be one message: {name} {{ ... }}")
        return value

    @property
    def message(self) -> Any:
        """The message itself, all of it counted as read."""
        self._read.update(self._message.values, self._message.unknown)
        return self._message

    @property
    def untracked(self) -> Any:
        """The message itself; what is read of it does not count."""
        return self._message

    def passed_over(self) -> list[str]:
        """Fields of forks, and fields that no schema has, that were written and never read: `pooling_param.foo`."""
        message = self._message
        found = [name for name in message.unknown if name not in self._read]
        for name in message.unknown:
            for inner in _listed(self._inner.get(name)):
                found += [f"{name}.{field}" for field in inner.passed_over()]
        for field, value in message.written():
            if field.name in HOW_TO_RUN:
                continue
            if field.name in self._read:
                for inner in _listed(self._inner.get(field.name)):
                    found += [f"{field.name}.{name}" for name in inner.passed_over()]
            elif field.fork:
                found.append(field.name)
            else:  # BVLC's own field, of no meaning for this type: Caffe passes over it too, but not over a fork's field in it
                for inner in _listed(value):
                    if hasattr(inner, "kind"):
                        found += [f"{field.name}.{name}" for name in Tracked(inner).passed_over()]
        return found


_TYPES: dict[type, str] = {bool: "true or false", int: "a number", float: "a number", list: "numbers"}


def _alike(value: Any, default: Any) -> bool:
    if isinstance(default, list):
        return all(_alike(v, 0) for v in _listed(value))
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(default, bool) and isinstance(value, bool)
    return isinstance(value, (int, float)) and isfinite(value)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def axis_of(axis: int, axes: int, *, what: str = "axis", behind: bool = False) -> int:
    """A possibly negative axis as one from 0; `behind` allows the place behind the last. NetError out of range."""
    if not isinstance(axis, int):
        raise NetError(f"{what} must be a whole number")
    limit = axes + 1 if behind else axes
    index = axis + limit if axis < 0 else axis
    if not 0 <= index < limit:
        raise NetError(f"{what} {axis} is out of range for {axes} axes")
    return index


def float32(value: float) -> float:
    """The nearest 32-bit float, which Caffe computes in; infinite beyond the largest."""
    return c_float(value).value


def filler(spec: Any, name: str) -> Any:
    """The filler message `name` of a parameter message, or None (zeros) if the file has none."""
    if not spec.has(name):
        return None
    message = getattr(spec, name).message
    if message.kind.name:
        return message
    try:  # inside a message that no schema has
        return new("FillerParameter", **to_dict(message))
    except AttributeError as exc:
        raise NetError(f"{name}: {exc}") from exc
