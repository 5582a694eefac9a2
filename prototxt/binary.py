"""Messages on the wire: the definition of a net that a .caffemodel carries beside its weights, read and written.

Caffe's snapshots hold the whole net that was trained. The values of its blobs are passed over here (weights.py reads them); the rest
becomes the Message that the text reader would give. Unknown fields, and known ones of a foreign wire type, are passed over as protobuf does.
"""

from __future__ import annotations

import re
from pathlib import Path
from struct import pack, unpack
from typing import Any

from .errors import WeightsError
from .files import FileBytes, check_file
from .floats import shortest
from .message import Message
from .schema import INTEGERS, Field, kind
from .weights import HDF5_MAGIC
from .wire import BYTES, FIXED32, FIXED64, VARINT, Wire, signed, varint

DEPTH_LIMIT = 100  # of nested messages, as protobuf's readers have it
LIMIT = 8 << 20  # bytes of a definition; the largest public one is below 200 kB
BLOBS = {"LayerParameter": 7, "V1LayerParameter": 6, "V0LayerParameter": 50}  # the field that holds values
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f]")  # bytes that no prototxt has
_WIRE = {"double": FIXED64, "float": FIXED32, "string": BYTES, "bytes": BYTES, "message": BYTES}  # the others are varints


def is_binary(path: str | Path) -> bool:
    """Whether a file holds bytes that no prototxt has: a .caffemodel, as far as nets go."""
    with open(check_file(path), "rb") as f:
        return bool(_CONTROL.search(f.read(4096)))


def read_definition(path: str | Path) -> Message:
    """The net in a .caffemodel, as written: V0 and V1 layers are not upgraded here. WeightsError if it has no layers, or is no .caffemodel."""
    path = check_file(path)
    data = FileBytes(path, WeightsError)
    if data[: len(HDF5_MAGIC)] == HDF5_MAGIC:
        raise WeightsError(f"{path}: an HDF5 file holds weights and no net; give the prototxt, and this file by --weights")
    wire = Wire(data, path, WeightsError, ".caffemodel")
    message = _Decoder(wire).message("NetParameter", 0, len(data))
    if not message.has("layer") and not message.has("layers"):
        raise WeightsError(f"{path}: a binary file without layers; the file is no .caffemodel")
    return message


def as_filtered(net: Message) -> Message:
    """The net of a snapshot without its rules: Caffe has applied them, and wrote its phase into every layer.

    A file with layers for both phases was not written by Caffe, and keeps its rules.
    """
    rules = [(rule.get("phase"), name) for layer in net.layer for name in ("include", "exclude") for rule in getattr(layer, name)]
    if len(set(rules)) > 1:
        return net
    plain = net.copy()
    plain.values["layer"] = [layer.copy() for layer in net.layer]
    for layer in plain.values["layer"]:
        for name in ("include", "exclude", "phase"):
            layer.values.pop(name, None)
    return plain


class _Decoder:
    """Reads messages of the schema from one wire; what it takes in is counted, and bounded by LIMIT."""

    def __init__(self, wire: Wire) -> None:
        self.wire, self.taken = wire, 0

    def message(self, name: str, start: int, stop: int, depth: int = 0, into: Message | None = None) -> Message:
        if depth > DEPTH_LIMIT:
            self.wire.damaged(start, f"messages are nested more than {DEPTH_LIMIT} deep")
        message, numbers, skipped = into or Message(kind(name)), _by_number(name), BLOBS.get(name)
        for number, wire, at, end in self.wire.fields(start, stop):
            field = numbers.get(number)
            if field is None or number == skipped:
                continue
            self._add(message, field, wire, at, end, depth)
        return message

    def _add(self, message: Message, field: Field, wire: int, at: int, end: int, depth: int) -> None:
        values, own = message.values, _WIRE.get(field.type, VARINT)
        if field.type != "message":
            self._count(at, end)
        if field.type == "message" and wire == BYTES:
            if field.repeated:
                self._count(at, at + 512)  # an empty one is not free
                values.setdefault(field.name, []).append(self.message(field.message, at, end, depth + 1))
            else:  # written twice, they merge
                values[field.name] = self.message(field.message, at, end, depth + 1, values.get(field.name))
        elif field.repeated and wire == BYTES != own:
            listed = values.setdefault(field.name, [])
            while at < end:
                after = self.wire.varint(at, end)[1] if own == VARINT else at + (4 if own == FIXED32 else 8)
                if after > end:
                    self.wire.damaged(at, "a number is cut off")
                listed += self._value(field, at, after)
                at = after
        elif wire == own:
            found = self._value(field, at, end)
            if field.repeated:
                values.setdefault(field.name, []).extend(found)
            elif found:
                values[field.name] = found[0]

    def _value(self, field: Field, at: int, end: int) -> list[Any]:
        """The value as a list of one; of none for a number that the enum has not."""
        type_ = field.type
        if type_ in ("string", "bytes"):
            return [self.wire.text(at, end)]
        if type_ in ("float", "double"):
            (number,) = unpack("<f" if type_ == "float" else "<d", self.wire.data[at:end])
            return [shortest(number) if type_ == "float" else number]
        number = self.wire.varint(at, end)[0]
        if type_ == "bool":
            return [bool(number)]
        if type_ == "enum":
            number = signed(number, 32)
            return [word for word, value in field.values.items() if value == number][:1]
        bits = 32 if type_.endswith("32") else 64
        return [signed(number, bits) if INTEGERS[type_][0] else number & (1 << bits) - 1]

    def _count(self, at: int, end: int) -> None:
        self.taken += end - at + 8
        if self.taken > LIMIT:
            raise self.wire.error(f"{self.wire.place}: byte {at:,}: a definition of more than {LIMIT:,} bytes beside the weights; no net is so long")


def _by_number(name: str) -> dict[int, Field]:
    if name not in _NUMBERS:
        _NUMBERS[name] = {field.number: field for field in kind(name).fields.values()}
    return _NUMBERS[name]


_NUMBERS: dict[str, dict[int, Field]] = {}


# Writing --------------------------------------------------------------------------------------------------------------


def encode(message: Message) -> bytes:
    """The message on the wire, fields in the order of their numbers. Unknown fields have no number, so no place there."""
    return b"".join(_encode(field, v) for field, value in _in_order(message) for v in (value if field.repeated else [value]))


def _in_order(message: Message) -> list[tuple[Field, Any]]:
    return sorted(message.written(), key=lambda item: item[0].number)


def _encode(field: Field, value: Any) -> bytes:
    own = _WIRE.get(field.type, VARINT)
    tag = varint(field.number << 3 | own)
    if field.type == "message":
        value = encode(value)
    elif own == BYTES:
        value = value.encode("utf-8", "surrogateescape")
    if own == BYTES:
        return tag + varint(len(value)) + value
    if own in (FIXED32, FIXED64):
        return tag + pack("<f" if own == FIXED32 else "<d", value)
    number = field.values[value] if field.type == "enum" else int(value)
    return tag + varint(number & (1 << 64) - 1)
