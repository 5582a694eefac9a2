"""Runners: a net in one framework each. `base` says what a runner is; one file a framework."""

from __future__ import annotations

from .base import Array, Runner, Unavailable
from .onnx_files import OnnxRuntimeRunner
from .opencv import OpenCVRunner
from .pytorch import TorchRunner

__all__ = ["Array", "OnnxRuntimeRunner", "OpenCVRunner", "Runner", "TorchRunner", "Unavailable"]
