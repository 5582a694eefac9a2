"""ONNX files in ONNX Runtime and in OpenVINO: every blob, by making it an output of the graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from math import prod
from pathlib import Path
from typing import Any

from prototxt import FormatError
from prototxt.files import check_file

from ..results import Side
from .base import Array, Runner, Unavailable, first_line


class OnnxGraph:
    """An ONNX file that can be given more outputs. `names` are {blob: name in the file}, where they differ."""

    def __init__(self, path: Path, names: Mapping[str, str] | None = None) -> None:
        import onnx

        try:
            self.model = onnx.load(str(check_file(path)))
        except Exception as exc:  # protobuf's and onnx's own
            raise FormatError(f"{path}: no ONNX file, or a damaged one: {first_line(exc)}") from exc
        graph = self.model.graph
        blobs = {name: blob for blob, name in (names or {}).items()}
        made = [name for node in graph.node for name in node.output if name]
        self.names = {blobs.get(name, name): name for name in made if names is None or name in blobs}
        self.outputs = tuple(blobs.get(value.name, value.name) for value in graph.output)
        constant = {value.name for value in graph.initializer}
        self.inputs = tuple(value.name for value in graph.input if value.name not in constant)
        self.values = {value.name: value for value in (*graph.value_info, *graph.output)}
        self.shapes = {value.name: _shape(value) for value in (*graph.input, *self.values.values())}

    def with_outputs(self, blobs: Sequence[str]) -> bytes:
        """The file with `blobs` as its outputs; a value whose type the file does not tell is a float tensor, as all blobs are."""
        import onnx

        before = list(self.model.graph.output)
        try:
            del self.model.graph.output[:]
            for blob in blobs:
                name = self.names[blob]
                self.model.graph.output.append(self.values.get(name) or onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
            return self.model.SerializeToString()
        finally:
            del self.model.graph.output[:]
            self.model.graph.output.extend(before)

    def bytes_of(self, blob: str, feed: Mapping[str, Array]) -> int:
        """By the shapes that the file tells, and the batch that is fed."""
        batch = max((len(value) for value in feed.values() if value.ndim), default=1)
        return 4 * prod(d or batch for d in self.shapes.get(self.names[blob], (1 << 18,)))


class OnnxRuntimeRunner(Runner):
    """An ONNX file in ONNX Runtime, on the CPU or a GPU."""

    def __init__(self, path: Path, names: Mapping[str, str] | None = None, device: str = "cpu", spec: str = "") -> None:
        """`names` are {blob: name in the file}, where they differ."""
        try:
            import onnxruntime
        except ImportError as exc:
            raise Unavailable(f"ONNX Runtime is not installed: {exc}") from exc
        provider = "CPUExecutionProvider" if device == "cpu" else "CUDAExecutionProvider"
        if provider not in onnxruntime.get_available_providers():
            raise Unavailable(f"this ONNX Runtime has no {provider}: it has {', '.join(onnxruntime.get_available_providers())}")
        self.onnx, self.providers = OnnxGraph(Path(path), names), [provider]
        self.inputs, self.outputs, self.inner = self.onnx.inputs, self.onnx.outputs, tuple(self.onnx.names)
        self.side = Side("ONNX Runtime" + ("" if device == "cpu" else f" on {device}"), onnxruntime.__version__, spec=spec)
        self.sessions: dict[tuple[str, ...], Any] = {}
        self._session(self.outputs)

    def _session(self, blobs: tuple[str, ...]) -> Any:
        import onnxruntime

        if blobs not in self.sessions:
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 3
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # its threads would wait where the other side computes
            try:
                self.sessions[blobs] = onnxruntime.InferenceSession(self.onnx.with_outputs(blobs), options, providers=self.providers)
            except Exception as exc:  # its own exceptions have no common root
                raise Unavailable(f"ONNX Runtime {self.side.version} does not load it: {first_line(exc)}") from exc
            if self.sessions[blobs].get_providers()[0] != self.providers[0]:
                raise Unavailable(f"ONNX Runtime falls back from {self.providers[0]}: its libraries do not load on this machine")
        return self.sessions[blobs]

    def some(self, feed: Mapping[str, Array], wanted: Sequence[str]) -> dict[str, Array]:
        """The blobs of one pass that are `wanted`."""
        names = tuple(name for name in wanted if name in self.onnx.names)
        try:
            made = self._session(names).run(None, {name: feed[name] for name in self.inputs})
        except Unavailable:
            raise
        except Exception as exc:
            raise Unavailable(f"ONNX Runtime does not run it: {first_line(exc)}") from exc
        return dict(zip(names, made, strict=True))

    def bytes_of(self, name: str, feed: Mapping[str, Array]) -> int:
        """By the shapes that the file tells."""
        return self.onnx.bytes_of(name, feed)


class OpenVINORunner(Runner):
    """An ONNX file in OpenVINO, on the CPU."""

    def __init__(self, path: Path, names: Mapping[str, str] | None = None, spec: str = "") -> None:
        try:
            openvino: Any = import_module("openvino")
        except ImportError as exc:
            raise Unavailable("OpenVINO is not installed; it is optional: python -m pip install openvino") from exc
        self.core = openvino.Core()
        self.onnx = OnnxGraph(Path(path), names)
        self.inputs, self.outputs, self.inner = self.onnx.inputs, self.onnx.outputs, tuple(self.onnx.names)
        self.side = Side("OpenVINO", openvino.__version__, spec=spec)
        self.models: dict[tuple[str, ...], Any] = {}

    def some(self, feed: Mapping[str, Array], wanted: Sequence[str]) -> dict[str, Array]:
        """The blobs of one pass that are `wanted`."""
        names = tuple(name for name in wanted if name in self.onnx.names)
        try:
            if names not in self.models:
                model = self.core.read_model(self.onnx.with_outputs(names))
                self.models[names] = self.core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
            made = self.models[names]({name: feed[name] for name in self.inputs})
        except RuntimeError as exc:
            raise Unavailable(f"OpenVINO {self.side.version} does not run it: {first_line(exc)}") from exc
        return {name: made[i] for i, name in enumerate(names)}

    def bytes_of(self, name: str, feed: Mapping[str, Array]) -> int:
        """By the shapes that the file tells."""
        return self.onnx.bytes_of(name, feed)


def _shape(value: Any) -> tuple[int, ...]:
    """0 for an axis that is free."""
    return tuple(int(d.dim_value) for d in value.type.tensor_type.shape.dim)
