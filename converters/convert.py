"""The whole way: prototxt and weights in; source, safetensors, ONNX, preprocessing and the proof card out."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prototxt import FileProblem, NetError, WeightsError
from prototxt.binary import is_binary
from prototxt.files import check_file, write_file
from prototxt.net import read_net
from prototxt.rules import State

from . import graph as graphs
from .graph import Graph
from .preprocessing import Preprocessing, declared
from .resolution import refuse_empty

if TYPE_CHECKING:
    from .net import CaffeNet
    from .proof import ProofCard

_GENERIC = {"deploy", "train_val", "train", "test", "net", "model", "trainval"}


@dataclass(frozen=True, slots=True)
class Options:
    """What a conversion is asked for beyond its two files."""

    phase: str = "TEST"
    stages: tuple[str, ...] = ()
    level: int = 0
    shapes: Mapping[str, Sequence[int]] | None = None
    golden: tuple[Path, ...] = ()
    onnx: bool = True
    bake_preprocessing: bool = False
    mean: tuple[float, ...] = ()
    scale: float | None = None
    seed: int = 0
    reader: str = ""  # "opencv": who the ONNX file is for
    page: bool = False  # the comparison, blob by blob, as an HTML page with the card


@dataclass(frozen=True, slots=True)
class Conversion:
    """What was written, and the card. Truthy if the card is."""

    graph: Graph
    card: ProofCard
    files: tuple[Path, ...]
    notes: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.card)


@dataclass(frozen=True, slots=True)
class _Job:
    """One conversion: what it reads, and where its results go."""

    prototxt: Path
    weights: Path | None
    options: Options
    stage: Callable[[str], Any]
    graph: Graph
    prepared: Preprocessing
    folder: Path
    name: str

    def path(self, suffix: str) -> Path:
        """A file of the results."""
        return self.folder / f"{self.name}{suffix}"

    @property
    def baked(self) -> Preprocessing | None:
        """The preprocessing that the ONNX file holds."""
        return self.prepared if self.options.bake_preprocessing else None


@dataclass(frozen=True, slots=True)
class _Made:
    """What one part of a conversion adds to the results."""

    files: tuple[Path, ...] = ()
    measured: tuple[Any, ...] = ()
    notes: tuple[str, ...] = ()

    def __add__(self, other: _Made) -> _Made:
        return _Made(self.files + other.files, self.measured + other.measured, self.notes + other.notes)


def convert(
    prototxt: Path, weights: Path | None, folder: Path | None, options: Options, stage: Callable[[str], Any], show: Callable[[Graph], None]
) -> Conversion:
    """Convert one net; a .caffemodel as `prototxt` is its own weights. Files of an earlier conversion give way once all input has been read.

    `stage(text)` is a context manager around each long part; `show(graph)` is called once shapes are known.
    """
    job = _read(prototxt, weights, folder, options, stage)
    show(job.graph)
    for path in (*([job.weights] if job.weights else ()), *options.golden):
        check_file(path)
    with stage("loading PyTorch"):
        from . import proof
    net, filled = _built(job)
    golden = _Made()
    if options.golden:
        with stage("comparing with Caffe's numbers"):
            golden = _Made(measured=tuple(proof.against_golden(net, path) for path in options.golden))
    _make_folder(job.folder)
    _clear(job)
    made = _source_files(job, net) + golden + (_onnx_file(job, net) if options.onnx else _Made()) + filled
    card = _card(job, made)
    files = (*made.files, job.path(".proof.txt"), job.path(".proof.json"))
    if options.page:
        with stage("comparing blob by blob"):
            shown = job.path(".onnx") if options.onnx and not options.bake_preprocessing else job.path(".py")
            files = (*files, _page(net, shown, card, job.path(".proof.html")))
    return Conversion(job.graph, card, files, card.notes)


def _read(prototxt: Path, weights: Path | None, folder: Path | None, options: Options, stage: Callable[[str], Any]) -> _Job:
    """What stands in the files, without torch."""
    source = read_net(prototxt, State(options.phase, options.level, options.stages))
    graph = graphs.resolve(source, options.shapes)
    refuse_empty(graph, prototxt)
    first = graph.blob_shapes[graph.inputs[0]] if graph.inputs else ()
    prepared = declared(source, channels=first[1] if len(first) == 4 else 3, mean=options.mean, scale=options.scale)
    name = file_name(graph.name, Path(prototxt))
    return _Job(prototxt, weights or (prototxt if is_binary(prototxt) else None), options, stage, graph, prepared, folder or Path(name), name)


def _built(job: _Job) -> tuple[CaffeNet, _Made]:
    """The net with its weights, and what is to be said of them."""
    with job.stage("building the module"):
        import torch

        from .net import build

        torch.manual_seed(job.options.seed)
        net = build(job.graph)
        copied = net.load(job.weights) if job.weights else None
        if copied is not None and copied.kept and not copied.loaded:
            raise WeightsError(f"{job.weights}: has no weights for any layer of the net; leave --weights out for a net of its fillers")
        notes = _weights_notes(copied, job.weights, job.options.seed)
        if copied is None and _warm_up(net):
            notes.append("BatchNorm's statistics come from one training pass over random inputs")
    return net, _Made(notes=tuple(notes))


def _source_files(job: _Job, net: CaffeNet) -> _Made:
    """Source, weights and facts, and how far the source is from the module."""
    from . import proof
    from .source import to_source

    python, tensors, facts = job.path(".py"), job.path(".safetensors"), job.path(".json")
    with job.stage("writing source and weights"):
        write_file(python, to_source(net))
        net.save(tensors)
        write_file(facts, json.dumps(_facts(job.graph, job.prepared), indent=1, allow_nan=False) + "\n")
    with job.stage("comparing module and source"):
        measured = proof.against_source(net, python, tensors)
    return _Made((python, tensors, facts), (measured,), job.graph.notes)


def _onnx_file(job: _Job, net: CaffeNet) -> _Made:
    """The ONNX file, how far its readers are from the module, and by choice the lines for OpenCV."""
    from . import opencv, proof

    target = job.path(".onnx")
    with job.stage("exporting to ONNX"):
        written = _exported(net, target, job.baked)
    notes = () if written.dynamic_batch else ("the ONNX file has a fixed batch size: a layer of the net bakes it in",)
    with job.stage("running the ONNX file"):
        made = _Made((target,), tuple(proof.against_onnx(net, target, job.baked)), notes)
    if job.options.reader != "opencv":
        return made
    with job.stage("comparing with OpenCV 4 reading Caffe's files"):
        lines = opencv.write_lines(job.graph, None if job.baked else job.prepared, target)
        checked, told = opencv.against_importer(net, job.prototxt, job.weights)
    return made + _Made((lines,), (checked,) if checked else (), (told,) if told else ())


def _card(job: _Job, made: _Made) -> ProofCard:
    """The proof card, written."""
    from . import proof

    sources = proof.names_of([job.prototxt, *([job.weights] if job.weights not in (None, job.prototxt) else [])])
    card = proof.ProofCard(
        job.name, sources, proof.versions(), "inputs drawn from N(0, 1), labels from the classes, seed 0", made.measured, made.notes
    )
    write_file(job.path(".proof.txt"), card.text())
    write_file(job.path(".proof.json"), json.dumps(card.to_dict(), indent=1, allow_nan=False) + "\n")
    return card


def _page(net: CaffeNet, made: Path, card: ProofCard, path: Path) -> Path:
    """The page of one comparison: a file that was written, against the module."""
    from .comparison.engine import compare
    from .comparison.page import write_page

    return write_page(compare(made, net, previews=True), net.graph, path, card)


def file_name(net_name: str, prototxt: Path) -> str:
    """The stem of the written files: the prototxt's own, or where that says nothing the net's name, or the folder's."""
    stem = prototxt.name.split(".")[0]
    for candidate in (stem if stem.lower() not in _GENERIC else "", net_name, prototxt.absolute().parent.name, "net"):
        plain = re.sub(r"[^0-9A-Za-z]+", "_", candidate).strip("_")[:80]
        if plain:
            return plain if not plain[0].isdigit() else f"net_{plain}"
    return "net"


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise FileProblem(f"{folder}: cannot be made a folder for the results: {exc.strerror}") from exc


def _clear(job: _Job) -> None:
    """Take away the proof of an earlier conversion, and its ONNX file: should this one fail, none of them may stand beside the new weights."""
    proofs = [job.path(f".proof.{suffix}") for suffix in ("html", "json", "txt")]
    stale = [job.path(".onnx"), job.path(".opencv.py"), *proofs] if any(path.exists() for path in proofs) else []
    for path in stale:
        try:
            path.unlink(missing_ok=True)
        except OSError as exc:
            raise FileProblem(f"{path}: of an earlier conversion, cannot be removed: {exc.strerror}") from exc


def _exported(net: CaffeNet, target: Path, prepared: Preprocessing | None) -> Any:
    from .onnx_export import to_onnx

    try:
        return to_onnx(net, target, prepared)
    except NetError as exc:
        raise NetError(f"{exc}\nsource and weights are written; --no-onnx leaves the rest out") from exc


def _warm_up(net: CaffeNet) -> bool:
    """Give an untrained net's BatchNorm statistics, by one training pass; all zeros, as Caffe leaves them, blow up layer by layer."""
    import torch

    from .modes import modes_kept
    from .samples import sample_inputs

    if not any(step.type == "BatchNorm" for step in net.graph.steps):
        return False
    with torch.no_grad(), modes_kept(net.module):
        net.module.train()(*sample_inputs(net.graph).values())
    return True


def _facts(graph: Graph, prepared: Preprocessing) -> dict[str, Any]:
    return {
        "net": graph.name,
        "inputs": {b: list(graph.blob_shapes[b]) for b in graph.inputs},
        "outputs": {b: list(graph.blob_shapes[b]) for b in graph.outputs},
        "preprocessing": prepared.to_dict() | {"formula": prepared.formula},
        "modules": {step.key: step.name for step in graph.steps if step.tops},
    }


def _weights_notes(copied: Any, weights: Path | None, seed: int) -> list[str]:
    if copied is None:
        return [f"no weights were given: the net is initialised by its fillers, seed {seed}"]
    notes = []
    if copied.kept:
        notes.append(f"{weights} has no weights for {_some(copied.kept)}: initialised by fillers")
    if copied.unused:
        notes.append(f"{weights} also has {_some(copied.unused)}, which the net has not")
    return notes


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
