"""Caffe's files: text, binary, HDF5, databases. Numpy only, never torch.

parse(path, kind="net" | "solver") -> Message      the file as written
upgrade(message) -> Message                        the same as a file of today
to_dict(message) -> dict                           plain values, by the schema's names
batches(net path, phase) -> iterator               {top: array}, one dict a forward pass of the net's data layers
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import (
    CaffeTextError,
    ConfigError,
    DataError,
    DecantError,
    FileProblem,
    FormatError,
    LabelError,
    NetError,
    ShapeUnknown,
    SolverError,
    TaskError,
    TrainingError,
    UnsupportedLayer,
    UpgradeError,
    WeightsError,
)
from .message import Message, to_dict
from .text import parse, parse_text, to_text
from .upgrade import upgrade

if TYPE_CHECKING:
    from .data.layer_batches import batches

__all__ = [
    "CaffeTextError",
    "ConfigError",
    "DataError",
    "DecantError",
    "FileProblem",
    "FormatError",
    "LabelError",
    "Message",
    "NetError",
    "ShapeUnknown",
    "SolverError",
    "TaskError",
    "TrainingError",
    "UnsupportedLayer",
    "UpgradeError",
    "WeightsError",
    "batches",
    "parse",
    "parse_text",
    "to_dict",
    "to_text",
    "upgrade",
]


def __getattr__(name: str) -> Any:  # what reads data needs numpy, and parsing does not
    if name != "batches":
        raise AttributeError(f"module 'prototxt' has no attribute {name!r}")
    from .data.layer_batches import batches

    return batches
