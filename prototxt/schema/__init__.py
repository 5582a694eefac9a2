"""Caffe's schema as tables: what fields a message has, by name. The facts stand in caffe.proto.

kind("LayerParameter").fields["type"].type == "string"
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from ..floats import shortest

INTEGERS = {"int32": (-(2**31), 2**31 - 1), "int64": (-(2**63), 2**63 - 1), "uint32": (0, 2**32 - 1), "uint64": (0, 2**64 - 1)}


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """One field of a message. `type` is a scalar's name, "enum" or "message"; `fork` names a fork that added it, or is empty."""

    name: str
    number: int
    type: str
    repeated: bool
    required: bool
    default: Any
    values: Mapping[str, int]  # of an enum
    message: str  # the message's name
    fork: str


@dataclass(frozen=True, slots=True, eq=False)
class Kind:
    """A message type: its name and its fields, in the order of their numbers."""

    name: str
    fields: Mapping[str, Field]


UNKNOWN = Kind("", {})  # of a message that no schema here has


@cache
def kind(name: str) -> Kind:
    """The message type `name`, e.g. "NetParameter" or "DetectNetGroundTruthParameter.ClassMapping"."""
    from . import caffe_pb2

    descriptor = caffe_pb2.DESCRIPTOR.pool.FindMessageTypeByName(f"{caffe_pb2.DESCRIPTOR.package}.{name}")
    return Kind(name, {f.name: _field(f, caffe_pb2.fork) for f in descriptor.fields})


_SCALARS = {1: "double", 2: "float", 3: "int64", 5: "int32", 8: "bool", 9: "string", 11: "message", 12: "bytes", 13: "uint32", 14: "enum"}


def _field(f: Any, fork: Any) -> Field:
    type_ = _SCALARS[f.type]
    repeated = f.is_repeated if hasattr(f, "is_repeated") else f.label == f.LABEL_REPEATED
    required = f.is_required if hasattr(f, "is_required") else f.label == f.LABEL_REQUIRED
    values = {v.name: v.number for v in f.enum_type.values} if type_ == "enum" else {}
    default: Any = () if repeated else f.default_value
    if type_ == "enum" and not repeated:
        default = f.enum_type.values_by_number[f.default_value].name
    if type_ == "float" and not repeated:
        default = shortest(default)
    message = f.message_type.full_name.removeprefix("decant.caffe.") if type_ == "message" else ""
    return Field(f.name, f.number, type_, repeated, required, default, values, message, f.GetOptions().Extensions[fork])
