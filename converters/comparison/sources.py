"""What a user writes for a side of a comparison -> a runner.

    [RUNNER:]FILE[+WEIGHTS][@DEVICE,FORMAT]     deploy.prototxt+net.caffemodel@cuda,bf16
    RUNNER                                      the same net as the other side's, by this runner
    package.module:callable                     a module of the user's

Without a runner the file says which: .prototxt and .caffemodel torch, .onnx onnxruntime, .py source, .npz saved.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prototxt import DecantError, FileProblem, WeightsError
from prototxt.files import check_file

from .runners.base import Runner, Unavailable, first_line

if TYPE_CHECKING:
    from ..graph import Graph
    from ..net import CaffeNet

RUNNERS = {
    "torch": "PyTorch, node by node: every blob",
    "compiled": "torch.compile: outputs",
    "exported": "torch.export: outputs",
    "source": "the generated Python file: every blob",
    "onnxruntime": "ONNX Runtime, from an .onnx or exported now: every blob",
    "opencv": "OpenCV, any version, from an .onnx or exported now: every blob",
    "opencv-caffe": "OpenCV 4 reading the Caffe files themselves",
    "openvino": "OpenVINO, if it is installed, from an .onnx or exported now",
    "caffe": "real Caffe in a process of its own (--caffe-python)",
    "saved": "a run of another day (.npz), or recorded numbers of real Caffe",
}
SUFFIXES = {".prototxt": "torch", ".caffemodel": "torch", ".onnx": "onnxruntime", ".py": "source", ".npz": "saved"}
FORMATS = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16", "fp64": "float64", "half": "float16"}
PRECISIONS = ("float32", "tf32", "float16", "bfloat16", "float64")
PYTORCH = ("torch", "compiled", "exported")  # runners that take a number format
PLACED = (*PYTORCH, "onnxruntime")  # and a device
_PLACE = re.compile(r"cpu|cuda(:\d+)?")
_CALLABLE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


@dataclass(frozen=True, slots=True)
class Source:
    """A side as it was written, taken apart."""

    text: str
    runner: str
    path: str = ""
    weights: str = ""
    device: str = "cpu"
    precision: str = "float32"


class _Held:
    """Nets by files and shapes, ONNX files by net, and the folder that these are in."""

    def __init__(self) -> None:
        self.nets: dict[Any, CaffeNet] = {}
        self.exports: dict[int, Path] = {}
        self.folder: Path | None = None


@dataclass
class Context:
    """What both sides share: how nets are loaded, and what has been loaded and exported already."""

    weights: str | Path | None = None
    phase: str = "TEST"
    stages: Sequence[str] = ()
    level: int = 0
    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    caffe_python: str = ""
    seed: int = 0

    def __post_init__(self) -> None:
        self._held = _Held()

    def with_(self, **changes: Any) -> Context:
        """The same with other values; what has been loaded and exported is shared."""
        other = replace(self, **changes)
        other._held = self._held
        return other

    def net(self, path: str, weights: str) -> CaffeNet:
        """The net of a prototxt, loaded once for the same shapes."""
        import torch

        from ..net import filled
        from ..resolution import refuse_empty, resolve

        key = (path, weights, tuple(sorted((blob, tuple(shape)) for blob, shape in self.shapes.items())))
        nets = self._held.nets
        if key not in nets:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.seed)
                graph = resolve(path, self.phase, self.stages, self.level, self.shapes, strict=False)  # shapes of all that is fed, to any side
                net = filled(graph, path, weights or None)
            refuse_empty(net.graph, path)
            nets[key] = net
        return nets[key]

    def onnx(self, net: CaffeNet) -> Path:
        """The net as an ONNX file, exported once."""
        from ..onnx_export import to_onnx

        exports = self._held.exports
        if id(net) not in exports:
            target = self.temporary(f"net{len(exports)}.onnx")
            to_onnx(net, target)
            exports[id(net)] = target
        return exports[id(net)]

    def temporary(self, name: str) -> Path:
        """A path in a folder that lives as long as the context, and those made of it."""
        held = self._held
        if held.folder is None:
            held.folder = Path(tempfile.mkdtemp(prefix="decant-compare-"))
            weakref.finalize(held, shutil.rmtree, held.folder, ignore_errors=True)
        return held.folder / name


def parse(text: str) -> Source:
    """Take a side apart; DecantError says what may stand there."""
    if text in RUNNERS and not Path(text).exists():
        return Source(text, text)
    head, _, rest = text.partition(":")
    runner, rest = (head, rest) if head in RUNNERS else ("", text)
    near = get_close_matches(head, RUNNERS, n=1) if ":" in text and not runner and not Path(text).exists() else []
    if near:
        raise DecantError(f"{text!r}: there is no runner {head!r}; did you mean {near[0]}:?")
    if runner and rest.startswith("@"):
        return Source(text, runner, "", "", *_options(rest[1:], text))
    if not runner and _CALLABLE.fullmatch(text) and not Path(text).exists():
        return Source(text, "user", text)
    device, precision, weights = "cpu", "float32", ""
    if not Path(rest).exists() and "@" in rest:
        rest, _, options = rest.rpartition("@")
        device, precision = _options(options, text)
    if not Path(rest).exists() and "+" in rest:
        rest, _, weights = rest.rpartition("+")
    runner = runner or (SUFFIXES.get(Path(rest).suffix, "") if rest not in RUNNERS else rest)
    if not runner:
        raise DecantError(
            f"{text!r} is no side of a comparison: give a .prototxt, .caffemodel, .onnx, .py or .npz, one of the runners {', '.join(RUNNERS)}, "
            "alone or as RUNNER:FILE, or a module of yours as package.module:callable"
        )
    if rest in RUNNERS:
        return Source(text, runner, "", weights, device, precision)
    check_file(rest)
    if weights:
        check_file(weights)
    return Source(text, runner, rest, weights, device, precision)


def _options(written: str, text: str) -> tuple[str, str]:
    device, precision = "cpu", "float32"
    for word in filter(None, written.split(",")):
        if _PLACE.fullmatch(word):
            device = word
        elif FORMATS.get(word, word) in PRECISIONS:
            precision = FORMATS.get(word, word)
        else:
            raise DecantError(f"{text!r}: @{word} is neither a device (cpu, cuda, cuda:1) nor a number format ({', '.join([*FORMATS, *PRECISIONS])})")
    return device, precision


def made(source: Source, context: Context, base: Source | None, net: CaffeNet | None) -> Runner:
    """The runner of a side. `base` is the side whose files it takes where it names none, `net` a net that is loaded already."""
    _refuse_place(source)
    path, weights = source.path, source.weights
    if not path and base is not None and base.path and Path(base.path).suffix in (".prototxt", ""):
        path, weights = base.path, weights or base.weights
    weights = weights or str(context.weights or "")
    if source.runner == "saved":
        from .runners.saved import SavedRun

        return SavedRun(_needed(path, source, "an .npz"), source.text)
    if source.runner == "user":
        from .runners.user import import_module_of, user_runner

        return user_runner(import_module_of(path), net.graph if net else None, context.names, source.text)
    if Path(path).suffix == ".onnx":
        return _of_onnx(source, Path(path), _names(net.graph if net else None))
    if Path(path).suffix == ".py":
        return _of_source(source, Path(path), Path(weights) if weights.endswith(".safetensors") else Path(path).with_suffix(".safetensors"), net)
    if not path and net is None:
        raise DecantError(f"{source.text!r} names no file, and the other side is no prototxt whose net it could take: write {source.runner}:FILE")
    loaded = context.net(path, weights) if path else net
    assert loaded is not None
    return _of_net(source, loaded, path, weights, context)


def _refuse_place(source: Source) -> None:
    """A device or a number format that the runner would ignore."""
    if source.device != "cpu" and source.runner not in PLACED:
        raise Unavailable(f"{source.text!r}: {source.runner} knows no device; @{source.device} is for {', '.join(PLACED)}")
    if source.precision != "float32" and source.runner not in PYTORCH:
        raise Unavailable(f"{source.text!r}: {source.runner} takes its number formats as they are; @{source.precision} is for {', '.join(PYTORCH)}")


def _of_net(source: Source, net: CaffeNet, path: str, weights: str, context: Context) -> Runner:
    from .runners import pytorch

    place = (source.device, source.precision)
    if source.runner == "torch":
        return pytorch.NetRunner(net, *place, spec=source.text)
    if source.runner == "compiled":
        return pytorch.compiled(net, *place, spec=source.text)
    if source.runner == "exported":
        return pytorch.exported(net, *place, spec=source.text)
    if source.runner == "source":
        return _generated(source, net, context)
    if source.runner in ("onnxruntime", "opencv", "openvino"):
        return _of_onnx(source, context.onnx(net), _names(net.graph))
    if not path:
        raise DecantError(f"{source.text!r} reads Caffe's own files: write {source.runner}:FILE.prototxt")
    if source.runner == "caffe":
        from .runners.real_caffe import CaffeRunner

        return CaffeRunner(Path(path), Path(weights) if weights else None, net.graph, context.caffe_python, source.text)
    from .runners.opencv import OpenCVCaffeRunner

    if not weights:
        raise FileProblem(f"{source.text!r}: OpenCV reads a prototxt with its caffemodel: --weights FILE")
    return OpenCVCaffeRunner(Path(path), Path(weights), net.graph, source.text)


def _of_onnx(source: Source, path: Path, names: Mapping[str, str] | None) -> Runner:
    from .runners.onnx_files import OnnxRuntimeRunner, OpenVINORunner
    from .runners.opencv import OpenCVRunner

    if source.runner == "opencv":
        return OpenCVRunner(path, names, source.text)
    if source.runner == "openvino":
        return OpenVINORunner(path, names, source.text)
    if source.runner != "onnxruntime":
        raise DecantError(f"{source.text!r}: {source.runner} does not read an .onnx file; onnxruntime, opencv and openvino do")
    return OnnxRuntimeRunner(path, names, source.device, source.text)


def _of_source(source: Source, path: Path, weights: Path, net: CaffeNet | None) -> Runner:
    import torch

    from ..proof import import_source
    from .results import Side
    from .runners.pytorch import HookedRunner, of_graph

    check_file(path), check_file(weights)
    try:
        load = import_source(path).load
    except Exception as exc:  # it runs as code
        raise DecantError(f"{path}: no source that Decant has generated: {type(exc).__name__}: {first_line(exc)}") from exc
    try:
        module = load(str(weights))
    except Exception as exc:  # likewise
        raise WeightsError(f"{weights}: not the weights of {path}, or damaged: {first_line(exc)}") from exc
    side = Side(f"generated source ({path.name})", str(torch.__version__), spec=source.text)
    if net is not None:
        return of_graph(module, net.graph, side)
    return HookedRunner(module, (), (), {}, side)  # outputs alone: which blobs its submodules make, the graph would say


def _generated(source: Source, net: CaffeNet, context: Context) -> Runner:
    """Source and weights written now, and read back."""
    from prototxt.files import write_file

    from ..source import to_source

    path, weights = context.temporary("net.py"), context.temporary("net.safetensors")
    write_file(path, to_source(net))
    net.save(weights)
    return _of_source(source, path, weights, net)


def _names(graph: Graph | None) -> dict[str, str] | None:
    from .names import onnx_names

    return onnx_names(graph) if graph is not None else None


def _needed(path: str, source: Source, what: str) -> str:
    if not path:
        raise DecantError(f"{source.text!r} needs {what}: write {source.runner}:FILE")
    return path
