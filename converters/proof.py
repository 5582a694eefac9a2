"""The proof card: what a converted net was made of, and how far it is from what it must equal, measured now."""

from __future__ import annotations

import hashlib
import importlib.util
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from prototxt import DecantError, WeightsError
from prototxt.files import check_file

from .comparison.errors import blob_error, says_nothing
from .comparison.results import plain
from .comparison.runners import Array, OnnxRuntimeRunner, OpenCVRunner, Runner, TorchRunner, Unavailable
from .comparison.runners.saved import SavedRun
from .net import CaffeNet
from .onnx_export import output_names
from .preprocessing import Preprocessing
from .samples import sample_inputs

ONNX_LIMIT = 1e-4  # relative; what float32 in another order of sums leaves in the deepest public nets is some 1e-6
CAFFE_LIMIT = 1e-4


@dataclass(frozen=True, slots=True)
class Measurement:
    """One comparison: worst error over the outputs, and where. `note` says why there is no number, where there is none."""

    against: str
    error: float | None
    limit: float
    worst: str = ""
    note: str = ""

    @property
    def ok(self) -> bool:
        """Whether it was measured and is within the limit."""
        return self.error is not None and self.error <= self.limit

    def __str__(self) -> str:
        if self.error is None:
            return f"{self.against:<34} not measured: {self.note}"
        verdict = "ok" if self.ok else f"DIFFERS  at {self.worst}"
        return f"{self.against:<34} {self.error:8.1e}  (limit {self.limit:.0e}) {verdict}"


@dataclass(frozen=True, slots=True)
class ProofCard:
    """Sources by hash, versions, measurements. Truthy if every measurement was made and held."""

    net: str
    sources: Mapping[str, str]
    versions: Mapping[str, str]
    inputs: str
    measurements: tuple[Measurement, ...]
    notes: tuple[str, ...] = field(default=())

    def __bool__(self) -> bool:
        return bool(self.measurements) and all(m.ok for m in self.measurements)

    def text(self) -> str:
        """The card for a person."""
        lines = [f"Proof card of {self.net}", "", "made of"]
        lines += [f"  {name:<32} sha256 {digest}" for name, digest in self.sources.items()]
        lines += ["", "with", "  " + ", ".join(f"{name} {v}" for name, v in self.versions.items())]
        lines += ["", f"measured: max|a - b| / max(max|b|, 1e-3) over all outputs, {self.inputs}"]
        lines += [f"  {m}" for m in self.measurements]
        lines += ["", *(f"note: {note}" for note in self.notes)] if self.notes else []
        lines += ["", "proven: every number above holds" if self else "NOT PROVEN: see above"]
        return "\n".join(lines) + "\n"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; an error that is infinite becomes "Infinity"."""
        return {
            "net": self.net,
            "proven": bool(self),
            "sources": dict(self.sources),
            "versions": dict(self.versions),
            "inputs": self.inputs,
            "measurements": [
                {"against": m.against, "error": plain(m.error), "limit": m.limit, "ok": m.ok, "worst": m.worst, "note": m.note}
                for m in self.measurements
            ],
            "notes": list(self.notes),
        }


def sha256(path: str | Path) -> str:
    """The hash of a file, read in pieces."""
    digest = hashlib.sha256()
    with open(check_file(path), "rb") as f:
        while piece := f.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


_PACKAGES = {  # by name on the card: the distributions that may bring it
    **{name: (name,) for name in ("decant", "torch", "onnx")},
    "onnxruntime": ("onnxruntime-gpu", "onnxruntime"),
    "opencv": ("opencv-python-headless", "opencv-python", "opencv-contrib-python-headless", "opencv-contrib-python"),
}


def versions() -> dict[str, str]:
    """Versions of what took part."""
    result = {"decant": "from its source"}
    for name, packages in _PACKAGES.items():
        for package in packages:
            try:
                result[name] = version(package)
                break
            except PackageNotFoundError:
                continue
    return result | {"python": platform.python_version()}


def against_source(net: CaffeNet, source: Path, weights: Path) -> Measurement:
    """The module and the generated file, on the same inputs: they must give the same bits."""
    generated = import_source(source).load(str(weights))
    feed = _feed(net)
    want = TorchRunner(net.module, net.graph.inputs, net.graph.outputs)(feed)
    got = TorchRunner(generated, net.graph.inputs, net.graph.outputs)(feed)
    return _measure("module vs generated source", got, want, 0.0)


def import_source(path: Path) -> Any:
    """A generated Python file as a module."""
    spec = importlib.util.spec_from_file_location(f"decant_generated_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise DecantError(f"{path}: cannot be imported")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def against_onnx(net: CaffeNet, path: Path, prepared: Preprocessing | None = None) -> list[Measurement]:
    """The module against ONNX Runtime and OpenCV reading the ONNX file; with `prepared`, which the file then holds, on images of 0..255."""
    feed = _feed(net)
    inner = dict(feed)
    if prepared is not None:
        import torch

        first = net.graph.inputs[0]
        images = np.random.default_rng(0).integers(0, 256, feed[first].shape)
        feed[first] = np.asarray(images, np.float32)
        inner[first] = prepared.module()(torch.from_numpy(feed[first])).numpy()
    want = TorchRunner(net.module, net.graph.inputs, net.graph.outputs)(inner)
    names = output_names(net.graph)
    runners: list[tuple[str, Callable[[], Runner]]] = [
        ("module vs ONNX Runtime", lambda: OnnxRuntimeRunner(path, names)),
        ("module vs OpenCV reading the ONNX", lambda: OpenCVRunner(path, names)),
    ]
    found = []
    for name, make in runners:
        try:
            found.append(_measure(name, make()(feed), want, ONNX_LIMIT))
        except Unavailable as exc:
            found.append(Measurement(name, None, ONNX_LIMIT, note=str(exc)))
    return found


def against_golden(net: CaffeNet, path: str | Path) -> Measurement:
    """The module against numbers that real Caffe left in an .npz: input/<blob>, blob/<blob>, or blob_at/<blob> with blob_index/<blob>."""
    import torch

    golden = SavedRun(path)
    try:
        with torch.no_grad():
            blobs = net.blobs({name: torch.from_numpy(value) for name, value in golden.feed().items()})
    except DecantError as exc:
        raise WeightsError(f"{path}: these inputs are not the net's: {exc}") from exc
    got, want = {}, {}
    for name, key in golden.keys.items():
        if name not in blobs:
            raise WeightsError(f"{path}: {key}: the net has no blob {name!r}")
        found = blobs[name].numpy()
        if key.startswith("blob_at/"):
            held = golden.sampled(name, found.shape)
            got[name], want[name] = found.reshape(-1)[held.index], held.values
        else:
            got[name], want[name] = found, golden.arrays.numbers(key)
    if not want:
        raise WeightsError(f"{path}: no array named blob/<blob>, so nothing to compare with")
    return _measure(f"module vs Caffe ({golden.path.name})", got, want, CAFFE_LIMIT)


def _feed(net: CaffeNet) -> dict[str, Array]:
    return {name: tensor.numpy() for name, tensor in sample_inputs(net.graph).items()}


def _measure(name: str, got: Mapping[str, Array], want: Mapping[str, Array], limit: float) -> Measurement:
    errors = {blob: blob_error(got[blob], value) for blob, value in want.items()}
    if not errors:
        return Measurement(name, None, limit, note="the net has no output")
    silent = [blob for blob in errors if errors[blob] == 0 and says_nothing(want[blob])]
    if silent:
        return Measurement(name, None, limit, note=f"{silent[0]} has no finite value on these inputs")
    worst = max(errors, key=lambda blob: errors[blob])
    return Measurement(name, errors[worst], limit, worst)


def names_of(paths: Sequence[str | Path]) -> dict[str, str]:
    """{file name: hash} of the sources."""
    return {Path(p).name: sha256(p) for p in paths}
