"""The whole way: prototxt and weights in; source, safetensors, ONNX, preprocessing and the proof card out."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prototxt import FileProblem, NetError
from prototxt.binary import is_binary
from prototxt.files import check_file, write_file
from prototxt.net import read_net
from prototxt.rules import State

from . import graph as graphs
from .graph import Graph
from .preprocessing import Preprocessing, declared
from .resolution import refuse_empty

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
    card: Any
    files: tuple[Path, ...]
    notes: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.card)


def convert(
    prototxt: Path, weights: Path | None, folder: Path | None, options: Options, stage: Callable[[str], Any], show: Callable[[Graph], None]
) -> Conversion:
    """Convert one net; a .caffemodel as `prototxt` is its own weights. Files of an earlier conversion give way once all input has been read.

    `stage(text)` is a context manager around each long part; `show(graph)` is called once shapes are known.
    """
    weights = weights or (prototxt if is_binary(prototxt) else None)
    source = read_net(prototxt, State(options.phase, options.level, options.stages))
    graph = graphs.resolve(source, options.shapes)
    refuse_empty(graph, prototxt)
    show(graph)
    for path in (*([weights] if weights else ()), *options.golden):
        check_file(path)
    first = graph.blob_shapes[graph.inputs[0]] if graph.inputs else ()
    prepared = declared(source, channels=first[1] if len(first) == 4 else 3, mean=options.mean, scale=options.scale)
    name = file_name(graph.name, Path(prototxt))
    with stage("loading PyTorch"):
        import torch

        from . import opencv, proof
        from .net import build
        from .onnx_export import to_onnx
        from .source import to_source
    with stage("building the module"):
        torch.manual_seed(options.seed)
        net = build(graph)
        copied = net.load(weights) if weights else None
        warmed = weights is None and _warm_up(net)
    golden = []
    if options.golden:
        with stage("comparing with Caffe's numbers"):
            golden = [proof.against_golden(net, path) for path in options.golden]
    folder = _folder(folder or Path(name))
    _clear(folder, name)
    with stage("writing source and weights"):
        python, tensors = folder / f"{name}.py", folder / f"{name}.safetensors"
        write_file(python, to_source(net))
        net.save(tensors)
        facts = folder / f"{name}.json"
        write_file(facts, json.dumps(_facts(graph, prepared), indent=1, allow_nan=False) + "\n")
    files, notes = [python, tensors, facts], list(graph.notes)
    with stage("comparing module and source"):
        measured = [proof.against_source(net, python, tensors), *golden]
    if options.onnx:
        target = folder / f"{name}.onnx"
        with stage("exporting to ONNX"):
            written = _exported(to_onnx, net, target, prepared if options.bake_preprocessing else None)
        files.append(target)
        if not written.dynamic_batch:
            notes.append("the ONNX file has a fixed batch size: a layer of the net bakes it in")
        with stage("running the ONNX file"):
            measured += proof.against_onnx(net, target, prepared if options.bake_preprocessing else None)
        if options.reader == "opencv":
            with stage("comparing with OpenCV 4 reading Caffe's files"):
                files.append(opencv.write_lines(graph, None if options.bake_preprocessing else prepared, target))
                checked, told = opencv.against_importer(net, prototxt, weights)
            measured += [checked] if checked else []
            notes += [told] if told else []
    notes += _weights_notes(copied, weights, options.seed)
    notes += ["BatchNorm's statistics come from one training pass over random inputs"] if warmed else []
    sources = proof.names_of([prototxt, *([weights] if weights not in (None, prototxt) else [])])
    card = proof.ProofCard(
        name, sources, proof.versions(), "inputs drawn from N(0, 1), labels from the classes, seed 0", tuple(measured), tuple(notes)
    )
    write_file(folder / f"{name}.proof.txt", card.text())
    write_file(folder / f"{name}.proof.json", json.dumps(card.to_dict(), indent=1, allow_nan=False) + "\n")
    files += [folder / f"{name}.proof.txt", folder / f"{name}.proof.json"]
    if options.page:
        with stage("comparing blob by blob"):
            made = target if options.onnx and not options.bake_preprocessing else python
            files.append(_page(net, made, card, folder / f"{name}.proof.html"))
    return Conversion(graph, card, tuple(files), tuple(notes))


def _page(net: Any, made: Path, card: Any, path: Path) -> Path:
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


def _folder(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise FileProblem(f"{folder}: cannot be made a folder for the results: {exc.strerror}") from exc
    return folder


def _clear(folder: Path, name: str) -> None:
    """Take away the proof of an earlier conversion, and its ONNX file: should this one fail, none of them may stand beside the new weights."""
    proofs = [folder / f"{name}.proof.{suffix}" for suffix in ("html", "json", "txt")]
    stale = [folder / f"{name}.onnx", folder / f"{name}.opencv.py", *proofs] if any(path.exists() for path in proofs) else []
    for path in stale:
        try:
            path.unlink(missing_ok=True)
        except OSError as exc:
            raise FileProblem(f"{path}: of an earlier conversion, cannot be removed: {exc.strerror}") from exc


def _exported(to_onnx: Callable[..., Any], net: Any, target: Path, prepared: Preprocessing | None) -> Any:
    try:
        return to_onnx(net, target, prepared)
    except NetError as exc:
        raise NetError(f"{exc}\nsource and weights are written; --no-onnx leaves the rest out") from exc


def _warm_up(net: Any) -> bool:
    """Give an untrained net's BatchNorm statistics, by one training pass; all zeros, as Caffe leaves them, blow up layer by layer."""
    import torch

    from .samples import sample_inputs

    if not any(step.type == "BatchNorm" for step in net.graph.steps):
        return False
    mode = net.module.training
    with torch.no_grad():
        net.module.train()(*sample_inputs(net.graph).values())
    net.module.train(mode)
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
