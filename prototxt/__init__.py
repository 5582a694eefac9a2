"""Caffe's files: text, binary, HDF5, databases. Numpy only, never torch.

parse(path, kind="net" | "solver") -> Message      the file as written
upgrade(message) -> Message                        the same as a file of today
to_dict(message) -> dict                           plain values, by the schema's names
"""

from __future__ import annotations

from .errors import (
    CaffeTextError,
    DataError,
    DecantError,
    FileProblem,
    FormatError,
    NetError,
    SolverError,
    UnsupportedLayer,
    UpgradeError,
    WeightsError,
)
from .message import Message, to_dict
from .text import parse, parse_text, to_text
from .upgrade import upgrade

__all__ = [
    "CaffeTextError",
    "DataError",
    "DecantError",
    "FileProblem",
    "FormatError",
    "Message",
    "NetError",
    "SolverError",
    "UnsupportedLayer",
    "UpgradeError",
    "WeightsError",
    "parse",
    "parse_text",
    "to_dict",
    "to_text",
    "upgrade",
]
