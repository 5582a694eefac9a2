"""A net definition becomes a torch module, source, ONNX, and Caffe again.

net = converters.load("deploy.prototxt", weights="net.caffemodel", phase="TEST")
graph = converters.resolve("deploy.prototxt")          shapes and parameters, no torch, nothing allocated
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .net import CaffeNet, load
    from .resolve import resolve

__all__ = ["CaffeNet", "load", "resolve"]

_HOMES = {"CaffeNet": "net", "load": "net", "resolve": "resolve"}


def __getattr__(name: str) -> Any:  # torch is imported when something needs it, not before
    if name not in _HOMES:
        raise AttributeError(f"module 'converters' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"converters.{_HOMES[name]}"), name)
