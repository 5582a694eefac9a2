"""One message of a prototxt, as it was written: what the schema knows, and beside it what it does not.

    layer.convolution_param.num_output      the value, or the schema's default
    layer.has("convolution_param")          whether the file says so
    layer.unknown                           {"foo_param": [Message]}: fields that no schema here has, kept and written back

Enums are words, repeated fields lists. A message is read-only for everyone but the parser and the upgrade.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

from .floats import shortest
from .schema import UNKNOWN, Field, Kind, kind


class Word(str):
    """A bare word of an unknown field, `foo: MAX`: written back without quotes."""

    __slots__ = ()


class Message:
    """Values by field name. `at` is the offset of the message in its text, -1 if it has none."""

    __slots__ = ("at", "kind", "places", "unknown", "values")

    def __init__(self, kind_: Kind, values: dict[str, Any] | None = None, *, at: int = -1) -> None:
        self.kind = kind_
        self.values: dict[str, Any] = {} if values is None else values
        self.unknown: dict[str, list[Any]] = {}
        self.places: dict[str, int] = {}  # unknown field -> offset in the text
        self.at = at

    def __getattr__(self, name: str) -> Any:
        values = object.__getattribute__(self, "values")
        if name in values:
            return values[name]
        field = self.kind.fields.get(name)
        if field is None:
            if name in self.unknown:
                found = self.unknown[name]
                return found[0] if len(found) == 1 else found
            raise AttributeError(f"{self.kind.name or 'unknown message'} has no field {name!r}")
        if field.type == "message" and not field.repeated:
            return _empty(field.message)
        return field.default

    def has(self, name: str) -> bool:
        """Whether the field was written (a repeated one: at least once)."""
        return name in self.values or name in self.unknown

    def get(self, name: str, default: Any = None) -> Any:
        """The field as written, else `default`: for fields of forks that the schema may not have."""
        return getattr(self, name) if self.has(name) else default

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Message):
            return NotImplemented
        return self.kind is other.kind and self.values == other.values and self.unknown == other.unknown

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        from .text import to_text

        return f"<{self.kind.name or 'unknown'} {to_text(self).strip()[:200]!r}>"

    def copy(self) -> Message:
        """A new message with the same values; lists are copied, messages in them shared."""
        new = Message(self.kind, {k: list(v) if isinstance(v, list) else v for k, v in self.values.items()}, at=self.at)
        new.unknown = {k: list(v) for k, v in self.unknown.items()}
        new.places = dict(self.places)
        return new

    def written(self) -> Iterator[tuple[Field, Any]]:
        """(field, value) of every known field that was written, in the order of the schema."""
        for name, field in self.kind.fields.items():
            if name in self.values:
                yield field, self.values[name]


def new(kind_name: str, **values: Any) -> Message:
    """A message made in code: `new("BlobShape", dim=[1, 3])`. Values are taken as they are; None is left out."""
    k = kind(kind_name)
    unknown = set(values) - set(k.fields)
    if unknown:
        raise AttributeError(f"{kind_name} has no field {sorted(unknown)[0]!r}")
    return Message(k, {name: value for name, value in values.items() if value is not None})


@cache
def _empty(kind_name: str) -> Message:
    return Message(kind(kind_name))


def to_dict(message: Message) -> dict[str, Any]:
    """A plain dict of what was written: the schema's field names, enums as words, messages as dicts, unknown fields too."""
    return {
        **{field.name: _plain(value) for field, value in message.written()},
        **{name: _plain(found if len(found) > 1 else found[0]) for name, found in message.unknown.items()},
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Message):
        return to_dict(value)
    if isinstance(value, list):
        return [_plain(v) for v in value]
    if isinstance(value, str) and any("\udc80" <= c <= "\udcff" for c in value):
        return {"bytes_hex": value.encode("utf-8", "surrogateescape").hex()}
    return value


def from_protobuf(source: Any) -> Message:
    """A Message of a protobuf object of schema/caffe_pb2; floats become the shortest decimal of their float32."""
    k = kind(source.DESCRIPTOR.full_name.removeprefix("decant.caffe."))
    values: dict[str, Any] = {}
    for descriptor, value in source.ListFields():
        field = k.fields.get(descriptor.name)
        if field is not None:
            values[field.name] = [_from(field, v) for v in value] if field.repeated else _from(field, value)
    return Message(k, values)


def _from(field: Field, value: Any) -> Any:
    if field.type == "message":
        return from_protobuf(value)
    if field.type == "enum":
        return next((word for word, number in field.values.items() if number == value), str(value))
    if field.type == "float":
        return shortest(value)
    return value


def to_protobuf(message: Message) -> Any:
    """A protobuf object of schema/caffe_pb2 with the message's known fields; unknown ones have no number, so no place there."""
    from .schema import caffe_pb2

    target: Any = caffe_pb2
    for part in message.kind.name.split("."):
        target = getattr(target, part)
    return _fill(target(), message)


def _fill(target: Any, message: Message) -> Any:
    for field, value in message.written():
        if field.type == "message" and field.repeated:
            for item in value:
                _fill(getattr(target, field.name).add(), item)
        elif field.type == "message":
            getattr(target, field.name).SetInParent()
            _fill(getattr(target, field.name), value)
        elif field.repeated:
            getattr(target, field.name).extend(_to(field, v) for v in value)
        else:
            setattr(target, field.name, _to(field, value))
    return target


def _to(field: Field, value: Any) -> Any:
    if field.type == "enum":
        return field.values[value]
    if field.type == "string":
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return value


__all__ = ["UNKNOWN", "Message", "Word", "from_protobuf", "new", "to_dict", "to_protobuf"]
