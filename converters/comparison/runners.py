"""Runners: a net in one framework. Each has a name, and takes a feed {input: array} to outputs {blob: array}.

A runner that cannot run here raises Unavailable, with the reason in a sentence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from prototxt import DecantError

Array = np.ndarray[Any, Any]


class Unavailable(DecantError):
    """A framework that is not here, or that does not take the net."""


class Runner(Protocol):
    """One net in one framework."""

    name: str

    def __call__(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs by blob name."""


class TorchRunner:
    """Any torch module that takes the inputs in net order; it runs in eval mode, so that nothing is random and nothing is changed."""

    def __init__(self, module: Any, inputs: Sequence[str], outputs: Sequence[str], name: str = "PyTorch") -> None:
        self.module, self.inputs, self.outputs, self.name = module, tuple(inputs), tuple(outputs), name

    def __call__(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs by blob name."""
        import torch

        training = self.module.training
        self.module.eval()
        try:
            with torch.no_grad():
                made = self.module(*(torch.from_numpy(feed[name]) for name in self.inputs))
        finally:
            self.module.train(training)
        made = made if isinstance(made, dict) else {self.outputs[0]: made}
        return {name: made[name].numpy() for name in self.outputs}


class OnnxRuntimeRunner:
    """An ONNX file in ONNX Runtime, on the CPU."""

    name = "ONNX Runtime"

    def __init__(self, path: Path, names: Mapping[str, str] | None = None) -> None:
        """`names` are {blob: name in the file}, where they differ."""
        try:
            import onnxruntime
        except ImportError as exc:
            raise Unavailable(f"ONNX Runtime is not installed: {exc}") from exc
        self.names = names or {}
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        try:
            self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as exc:  # its own exceptions have no common root
            raise Unavailable(f"ONNX Runtime {onnxruntime.__version__} does not load it: {_first_line(exc)}") from exc

    def __call__(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs by blob name."""
        names = [output.name for output in self.session.get_outputs()]
        blobs = {name: blob for blob, name in self.names.items()}
        wanted = {i.name for i in self.session.get_inputs()}
        try:
            made = self.session.run(names, {name: value for name, value in feed.items() if name in wanted})
        except Exception as exc:
            raise Unavailable(f"ONNX Runtime does not run it: {_first_line(exc)}") from exc
        return {blobs.get(name, name): value for name, value in zip(names, made, strict=True)}


class OpenCVRunner:
    """An ONNX file in OpenCV's dnn module."""

    name = "OpenCV"

    def __init__(self, path: Path, names: Mapping[str, str]) -> None:
        """`names` are {blob: name in the file} of the outputs."""
        try:
            import cv2
        except ImportError as exc:
            raise Unavailable(f"OpenCV is not installed: {exc}") from exc
        self.names = dict(names)
        try:
            self.net = cv2.dnn.readNetFromONNX(str(path))
        except cv2.error as exc:
            raise Unavailable(f"OpenCV {cv2.__version__} does not load it: {_first_line(exc)}") from exc

    def __call__(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs by blob name."""
        import cv2

        try:
            for name, value in feed.items():
                self.net.setInput(value, name)
            made = self.net.forward(list(self.names.values()))
        except cv2.error as exc:
            raise Unavailable(f"OpenCV {cv2.__version__} does not run it: {_first_line(exc)}") from exc
        return dict(zip(self.names, made, strict=True))


def _first_line(exc: Exception) -> str:
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    return (lines[0] if lines else type(exc).__name__)[:300]
