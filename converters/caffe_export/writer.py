"""The net as it grows: layers with their blobs and arrays, and the two files in the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from prototxt import Message, NetError, to_text
from prototxt.files import atomic_path, write_file
from prototxt.message import new
from prototxt.schema import kind
from prototxt.wire import Blob as Stored
from prototxt.write_weights import write_caffemodel

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Blob:
    """A blob of the net that is being written."""

    name: str
    shape: Shape


class CannotWrite(NetError):
    """BVLC Caffe has no layers that compute this; the message says why, and the way out."""


class Writer:
    """Layers in order. Names are taken as they come; a second one of the same name gets a number."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.layers: list[tuple[Message, list[np.ndarray[Any, Any]]]] = []
        self.read: set[str] = set()
        self.inputs: set[str] = set()
        self.taken: set[str] = set()
        self.current = ""  # the name of what is being written, for its layers and blobs

    def input(self, name: str, shape: Shape) -> Blob:
        """An Input layer."""
        self.current = name
        self.inputs.add(name)
        return self.add("Input", [], [shape], input_param={"shape": [{"dim": list(shape)}]})[0]

    def one(self, type_: str, bottoms: Sequence[Blob], shape: Shape, arrays: Sequence[Tensor] = (), **params: Any) -> Blob:
        """Add a layer of one top."""
        return self.add(type_, bottoms, [shape], arrays, **params)[0]

    def add(self, type_: str, bottoms: Sequence[Blob], shapes: Sequence[Shape], arrays: Sequence[Tensor] = (), **params: Any) -> list[Blob]:
        """Add a layer: its tops, which have the layer's name, and a number if there are several."""
        name = self._name(self.current)
        tops = [Blob(self._name(f"{name}_{i}") if len(shapes) > 1 else name, tuple(shape)) for i, shape in enumerate(shapes)]
        layer = message("LayerParameter", {"name": name, "type": type_, "bottom": [b.name for b in bottoms], "top": [t.name for t in tops], **params})
        self.layers.append((layer, [a.detach().cpu().float().numpy() for a in arrays]))
        self.read.update(b.name for b in bottoms)
        return tops

    def silence(self, blobs: Sequence[Blob]) -> None:
        """Blobs that nothing reads and that are no outputs."""
        if blobs:
            layer = message("LayerParameter", {"name": self._name("silence"), "type": "Silence", "bottom": [b.name for b in blobs]})
            self.layers.append((layer, []))
            self.read.update(b.name for b in blobs)

    def unread(self) -> list[Blob]:
        """Blobs that no layer reads."""
        return [Blob(top, ()) for layer, _ in self.layers for top in layer.top if top not in self.read]

    def _name(self, wanted: str) -> str:
        name, count = wanted, 1
        while name in self.taken:
            count += 1
            name = f"{wanted}_{count}"
        self.taken.add(name)
        return name

    def write(self, prototxt: Path, caffemodel: Path) -> None:
        """Both files, each all or nothing."""
        net = new("NetParameter", name=self.name, layer=[layer for layer, _ in self.layers])
        write_file(prototxt, to_text(net))
        with atomic_path(caffemodel) as temporary:
            write_caffemodel(temporary, net, [[Stored(a.shape, False, a.reshape(-1)) for a in arrays] for _, arrays in self.layers])


def message(name: str, values: Mapping[str, Any]) -> Message:
    """A message of nested dicts; None and empty lists are left out."""
    fields = kind(name).fields

    def made(field: str, value: Any) -> Any:
        if isinstance(value, Mapping):
            return message(fields[field].message, value)
        if isinstance(value, (list, tuple)):
            return [made(field, v) for v in value]
        return value

    return new(name, **{field: made(field, value) for field, value in values.items() if value is not None and value != []})
