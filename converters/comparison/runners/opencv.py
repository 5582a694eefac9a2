"""OpenCV's dnn module: any version reading an ONNX file, and 4.x reading Caffe's own files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...graph import Graph
from ..results import Side
from .base import Array, Runner, Unavailable, first_line
from .onnx_files import OnnxGraph


def _cv2() -> Any:
    try:
        import cv2
    except ImportError as exc:
        raise Unavailable(f"OpenCV is not installed: {exc}") from exc
    return cv2


class OpenCVRunner(Runner):
    """An ONNX file in OpenCV."""

    def __init__(self, path: Path, names: Mapping[str, str] | None = None, spec: str = "") -> None:
        """`names` are {blob: name in the file}."""
        self.cv2 = _cv2()
        self.onnx = OnnxGraph(Path(path), names)
        self.inputs, self.outputs, self.inner = self.onnx.inputs, self.onnx.outputs, tuple(self.onnx.names)
        self.side = Side("OpenCV reading ONNX", self.cv2.__version__, spec=spec)
        self.nets: dict[tuple[str, ...], Any] = {}
        self._net(self.outputs)

    def _net(self, blobs: tuple[str, ...]) -> Any:
        if blobs not in self.nets:
            import numpy as np

            try:
                self.nets[blobs] = self.cv2.dnn.readNetFromONNX(np.frombuffer(self.onnx.with_outputs(blobs), np.uint8))
            except self.cv2.error as exc:
                raise Unavailable(f"OpenCV {self.side.version} does not load it: {first_line(exc)}") from exc
        return self.nets[blobs]

    def some(self, feed: Mapping[str, Array], wanted: Sequence[str]) -> dict[str, Array]:
        """The blobs of one pass that are `wanted`."""
        names = tuple(name for name in wanted if name in self.onnx.names)
        net = self._net(names)
        try:
            for name in self.inputs:
                net.setInput(feed[name], name)
            made = net.forward([self.onnx.names[name] for name in names])
        except self.cv2.error as exc:
            raise Unavailable(f"OpenCV {self.side.version} does not run it: {first_line(exc)}") from exc
        return dict(zip(names, made, strict=True))

    def bytes_of(self, name: str, feed: Mapping[str, Array]) -> int:
        """By the shapes that the file tells."""
        return self.onnx.bytes_of(name, feed)


class OpenCVCaffeRunner(Runner):
    """Caffe's own files in OpenCV 4: its importer was removed in OpenCV 5. It knows layers by name, and each blob as it was last."""

    def __init__(self, prototxt: Path, weights: Path, graph: Graph, spec: str = "") -> None:
        cv2 = _cv2()
        if not hasattr(cv2.dnn, "readNetFromCaffe"):
            raise Unavailable(f"OpenCV {cv2.__version__} no longer reads Caffe's files; 4.x does, in an environment of its own")
        self.cv2 = cv2
        self.side = Side("OpenCV reading Caffe", cv2.__version__, spec=spec)
        self.inputs, self.outputs = graph.inputs, graph.outputs
        self.layers = {top.blob: step.name for step in graph.steps if len(step.tops) == 1 for top in step.tops}
        self.inner = tuple(self.layers)
        try:
            self.net = cv2.dnn.readNetFromCaffe(str(prototxt), str(weights))
            self.net.enableFusion(False)  # a fused layer's blob is not its own
        except cv2.error as exc:
            raise Unavailable(f"OpenCV {cv2.__version__} does not load it: {first_line(exc)}") from exc

    def some(self, feed: Mapping[str, Array], wanted: Sequence[str]) -> dict[str, Array]:
        """The blobs of one pass that are `wanted`."""
        names = [name for name in wanted if name in self.layers]
        try:
            for name in self.inputs:
                self.net.setInput(feed[name], name)
            made = self.net.forward([self.layers[name] for name in names])
        except self.cv2.error as exc:
            raise Unavailable(f"OpenCV {self.side.version} does not run it: {first_line(exc)}") from exc
        return dict(zip(names, made, strict=True))
