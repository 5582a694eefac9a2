"""A net definition becomes a torch module, source, ONNX, and Caffe again.

net = converters.load("deploy.prototxt", weights="net.caffemodel", phase="TEST")
graph = converters.resolve("deploy.prototxt")          shapes and parameters, no torch, nothing allocated
converters.to_source(net)  converters.to_onnx(net, path)
converters.to_caffe(module, example, path)             any module that torch.fx traces, as layers of BVLC Caffe
report = converters.compare(net, "onnxruntime")        blob by blob, the first divergence, its cause
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .caffe_export.trace import to_caffe
    from .comparison.engine import compare
    from .net import CaffeNet, load
    from .onnx_export import to_onnx
    from .resolution import resolve
    from .source import to_source

__all__ = ["CaffeNet", "compare", "load", "resolve", "to_caffe", "to_onnx", "to_source"]

_HOMES = {
    "CaffeNet": "net",
    "compare": "comparison.engine",
    "load": "net",
    "resolve": "resolution",
    "to_caffe": "caffe_export.trace",
    "to_onnx": "onnx_export",
    "to_source": "source",
}


def __getattr__(name: str) -> Any:  # torch is imported when something needs it, not before
    if name not in _HOMES:
        raise AttributeError(f"module 'converters' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"converters.{_HOMES[name]}"), name)
