"""The net as it grows: layers with their blobs and arrays, and the two files in the end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from prototxt import FileProblem, Message, NetError, to_text
from prototxt.files import atomic_path
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
    """Layers in order. Names of layers and of blobs are taken as they come; a second one of the same name gets a number."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.layers: list[tuple[Message, list[np.ndarray[Any, Any]]]] = []
        self.read: set[str] = set()
        self.inputs: set[str] = set()
        self.layer_names: set[str] = set()
        self.blob_names: set[str] = set()
        self.current = ""  # the name of what is being written, for its layers and blobs

    def reserve(self, names: Iterable[str]) -> None:
        """Names of blobs that only `named` gives."""
        self.blob_names.update(names)

    def input(self, name: str, shape: Shape, layer: str) -> Blob:
        """An Input layer."""
        self.current = layer
        top = self.named(self.one("Input", [], shape, input_param={"shape": [{"dim": list(shape)}]}), (name,), len(self.layers) - 1)
        self.inputs.add(top.name)
        return top  # type: ignore[no-any-return]

    def one(self, type_: str, bottoms: Sequence[Blob], shape: Shape, arrays: Sequence[Tensor] = (), **params: Any) -> Blob:
        """Add a layer of one top."""
        return self.add(type_, bottoms, [shape], arrays, **params)[0]

    def add(self, type_: str, bottoms: Sequence[Blob], shapes: Sequence[Shape], arrays: Sequence[Tensor] = (), **params: Any) -> list[Blob]:
        """Add a layer: its tops, which have the layer's name, and a number if there are several."""
        name = _free(self.current, self.layer_names)
        tops = [Blob(_free(f"{name}_{i}" if len(shapes) > 1 else name, self.blob_names), tuple(shape)) for i, shape in enumerate(shapes)]
        layer = message("LayerParameter", {"name": name, "type": type_, "bottom": [b.name for b in bottoms], "top": [t.name for t in tops], **params})
        self.layers.append((layer, [a.detach().cpu().float().numpy() for a in arrays]))
        self.read.update(b.name for b in bottoms)
        return tops

    def silence(self, blobs: Sequence[Blob]) -> None:
        """Blobs that nothing reads and that are no outputs."""
        if blobs:
            layer = message("LayerParameter", {"name": _free("silence", self.layer_names), "type": "Silence", "bottom": [b.name for b in blobs]})
            self.layers.append((layer, []))
            self.read.update(b.name for b in blobs)

    def unread(self) -> list[Blob]:
        """Blobs that no layer reads."""
        return [Blob(top, ()) for layer, _ in self.layers for top in layer.top if top not in self.read]

    def named(self, made: Any, names: Sequence[str], first: int) -> Any:
        """What a translation gave, a blob or several, under other names if layers from the `first` on made it; an empty one leaves it its own."""
        blobs = list(made) if isinstance(made, (list, tuple)) else [made]
        for i, name in enumerate(names[: len(blobs)]):
            old = blobs[i].name
            if name and name != old and any(old in layer.top for layer, _ in self.layers[first:]):
                for layer, _ in self.layers[first:]:
                    layer.values["bottom"] = [name if b == old else b for b in layer.bottom]
                    layer.values["top"] = [name if t == old else t for t in layer.top]
                self.read = {name if b == old else b for b in self.read}
                blobs = [replace(b, name=name) if b.name == old else b for b in blobs]
        return blobs if isinstance(made, (list, tuple)) else blobs[0]

    def write(self, prototxt: Path, caffemodel: Path) -> None:
        """Both files, or none."""
        net = new("NetParameter", name=self.name, layer=[layer for layer, _ in self.layers])
        folder = next((path for path in (prototxt, caffemodel) if path.is_dir()), None)
        if folder is not None:
            raise FileProblem(f"{folder}: is a folder; write under another name")
        with atomic_path(prototxt) as text, atomic_path(caffemodel) as binary:
            text.write_bytes(to_text(net).encode("utf-8", "surrogateescape"))
            write_caffemodel(binary, net, [[Stored(a.shape, False, a.reshape(-1)) for a in arrays] for _, arrays in self.layers])


def _free(wanted: str, taken: set[str]) -> str:
    """The name, or the next one with a number that is not taken; it is from now on."""
    name, count = wanted, 1
    while name in taken:
        count += 1
        name = f"{wanted}_{count}"
    taken.add(name)
    return name


def message(name: str, values: Mapping[str, Any]) -> Message:
    """A message of nested dicts; None, empty lists and empty messages are left out."""
    fields = kind(name).fields

    def made(field: str, value: Any) -> Any:
        if isinstance(value, Mapping):
            return message(fields[field].message, value)
        if isinstance(value, (list, tuple)):
            return [made(field, v) for v in value]
        return value

    return new(name, **{field: made(field, value) for field, value in values.items() if not _nothing(value)})


def _nothing(value: Any) -> bool:
    return value is None or value == [] or (isinstance(value, Mapping) and all(map(_nothing, value.values())))
