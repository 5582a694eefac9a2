"""One comparison as the command line asks for it, in one frozen value: so a process of its own can take it too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from prototxt import DecantError

from . import engine, sources
from .feeds import IMAGES, Array, read_inputs
from .results import Report, Tolerance
from .sources import Context


@dataclass(frozen=True, slots=True)
class Comparison:
    """What is compared, and how. `b` may be empty where A's run is only saved."""

    a: str
    b: str | None = None
    weights: Path | None = None
    input: Path | None = None
    net: Path | None = None
    blobs: Sequence[str] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    tolerance: Tolerance | None = None
    gradients: bool = False
    report: Path | None = None
    save: Path | None = None
    caffe_python: str = ""
    mean: Sequence[float] = ()
    scale: float = 1.0
    phase: str = "TEST"
    stages: Sequence[str] = ()
    level: int = 0
    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    seed: int = 0

    def context(self) -> Context:
        """How nets are loaded."""
        return Context(self.weights, self.phase, self.stages, self.level, dict(self.shapes), self.names, self.caffe_python, self.seed)


def run(asked: Comparison) -> Report | None:
    """Compare, write the report's files and A's run where they are asked for; None where A's run is saved and there is no B."""
    if asked.b is None and asked.save is None:
        raise DecantError("give a second side to compare with, or --save RUN.npz to keep A's run; docs/compare.md has examples")
    context = asked.context()
    pair = engine.paired(asked.a, asked.b or asked.a, _inputs(asked, context), asked.net, context)
    if asked.save is not None:
        from .runners.saved import save_run

        save_run(asked.save, pair.a, pair.feed, asked.blobs, gradients=asked.gradients)
    if asked.b is None:
        return None
    seen = asked.report is not None  # histograms and maps are for the page alone
    found = engine.report_of(pair, blobs=asked.blobs, tolerance=asked.tolerance, gradients=asked.gradients, previews=seen)
    if asked.report is not None:
        from .reports import write_report

        write_report(found, asked.report, pair.graph)
    return found


def _inputs(asked: Comparison, context: Context) -> Mapping[str, Array] | None:
    if (asked.mean or asked.scale != 1.0) and (asked.input is None or asked.input.suffix.lower() not in IMAGES):
        raise DecantError("--mean and --scale prepare an image; give one by --input")
    if asked.input is None:
        return None
    explaining = asked.net or next((path for side in (asked.b, asked.a) if side and (path := sources.parse(side).path).endswith(".prototxt")), None)
    graph = None
    if explaining:
        from ..resolution import resolve

        graph = resolve(explaining, asked.phase, asked.stages, asked.level, asked.shapes, strict=False)
    return read_inputs(asked.input, graph, asked.mean, asked.scale)
