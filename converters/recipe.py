"""A recipe: what a layer becomes. It builds the torch module, prints the module's source line, and knows the layer's shapes.

Made by a layer's rule from the prototxt alone, without torch: so `inspect` costs no import of torch, and module, source, shapes
and weight order cannot disagree.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from inspect import signature
from typing import TYPE_CHECKING, Any

from prototxt import Message

if TYPE_CHECKING:
    from torch import nn

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ParamBlob:
    """One of Caffe's parameter blobs of a layer: the module's attribute that holds it, in Caffe's shape, and what fills it at first."""

    name: str
    shape: Shape
    filler: Message | None = None  # none: zeros
    learned: bool = True  # BatchNorm's statistics are not
    also: tuple[Shape, ...] = ()  # other shapes of the same values that files have


@dataclass(frozen=True, slots=True)
class Recipe:
    """`module` is "nn.Conv2d", or "pooling.MaxPool" for a class of converters/modules, or a class of a plug-in.

    `tops` are the shapes of the outputs. `macs` are multiply-adds of one pass. `reads` are the bottoms that the module takes
    (None: all, in order). `constants` are values for buffers that no file of weights holds. `onnx` is empty, or says why ONNX
    cannot express the module with these arguments. `note` says what was assumed, if anything. `library` has operators that the
    module takes where it is loaded; generated source works without it.
    """

    module: str | type[nn.Module]
    args: Mapping[str, Any]
    tops: tuple[Shape, ...]
    blobs: tuple[ParamBlob, ...] = ()
    macs: int = 0
    reads: tuple[int, ...] | None = None
    constants: Mapping[str, Any] = field(default_factory=dict)
    onnx: str = ""
    note: str = ""
    library: str = ""

    def build(self) -> nn.Module:
        """The module, its parameters not yet filled."""
        if self.library:
            import_module(self.library)
        cls = self.module_class()
        if self.blobs and "device" in signature(cls).parameters:  # torch's own initial values would be overwritten anyway
            from torch.nn.utils import skip_init

            return skip_init(cls, **self.args)
        return cls(**self.args)

    def module_class(self) -> type[nn.Module]:
        """The class that `module` names."""
        if not isinstance(self.module, str):
            return self.module
        home, _, name = self.module.partition(".")
        if home == "nn":
            from torch import nn

            return getattr(nn, name)  # type: ignore[no-any-return]
        return getattr(import_module(f"converters.modules.{home}"), name)  # type: ignore[no-any-return]

    @property
    def class_name(self) -> str:
        """The name that the module's class has in generated source."""
        if not isinstance(self.module, str):
            return self.module.__name__
        return self.module if self.module.startswith("nn.") else self.module.partition(".")[2]

    def source(self) -> str:
        """The expression that builds the module: `nn.Conv2d(in_channels=3, out_channels=64, kernel_size=(7, 7))`."""
        return f"{self.class_name}({', '.join(f'{name}={literal(value)}' for name, value in self.args.items())})"


def literal(value: Any) -> str:
    """The Python literal of a number, string, bool, None, or a tuple or list of these; nothing else can stand in a recipe."""
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    if isinstance(value, (tuple, list)):
        inner = ", ".join(literal(v) for v in value)
        return f"({inner}{',' if len(value) == 1 else ''})" if isinstance(value, tuple) else f"[{inner}]"
    if isinstance(value, str) and value.isascii() and value.isprintable() and not {'"', "\\"} & set(value):
        return f'"{value}"'
    if value is None or isinstance(value, (bool, int, float, str)):
        return repr(value)
    raise TypeError(f"a recipe takes literals, not {type(value).__name__}")
