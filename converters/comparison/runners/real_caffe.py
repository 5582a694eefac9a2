"""Real Caffe, in a process of its own, whose interpreter may be another one: `caffe` seldom installs beside today's packages."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prototxt.files import check_file

from ...graph import Graph
from ..results import Side
from .base import Array, Runner, Unavailable

WORKER = Path(__file__).with_name("caffe_worker.py")


class CaffeRunner(Runner):
    """A prototxt and a caffemodel in pycaffe, layer by layer, so that blobs written in place are seen before and after."""

    def __init__(self, prototxt: Path, weights: Path | None, graph: Graph, python: str = "", spec: str = "") -> None:
        """`python` is the interpreter that has the module `caffe`; by default this one."""
        self.python = shutil.which(python) or python or sys.executable
        self.job = {
            "prototxt": str(check_file(prototxt).absolute()),
            "weights": str(check_file(weights).absolute()) if weights else "",
            "phase": graph.state.phase,
            "stages": list(graph.state.stages),
            "level": graph.state.level,
        }
        self.graph, self.inputs, self.outputs = graph, graph.inputs, graph.outputs
        self.inner = tuple(dict.fromkeys([name for v, name in graph.value_names.items() if v.blob not in graph.inputs or v.version]))
        self.folder = Path(tempfile.mkdtemp(prefix="decant-caffe-"))
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        told = self._run({"ask": "version"})
        self.side = Side("Caffe", str(told.get("version", "")), spec=spec)

    def some(self, feed: Mapping[str, Array], wanted: Sequence[str]) -> dict[str, Array]:
        """The blobs of one pass that are `wanted`."""
        return dict(self.stream(feed, wanted))

    def stream(self, feed: Mapping[str, Array], wanted: Sequence[str]) -> Iterator[tuple[str, Array]]:
        """One pass in the other process, which leaves a file for each blob; they are read one at a time."""
        self._feed(feed)
        files = self._run({"ask": "forward", "wanted": list(wanted)})["files"]
        for name in wanted:
            if name in files:
                yield name, self._take(files[name])

    def gradients(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        """After one backward pass of the net's losses, or of the seeded objective where it has none."""
        from ..gradients import driven, seeded

        self._feed(feed)
        if not self.graph.losses:
            self._write("diffs.npz", seeded({name: self.graph.blob_shapes[name] for name in self.outputs}))
        files = self._run({"ask": "backward", "seeded": not self.graph.losses})["files"]
        return {name: self._take(files[name]) for name in driven(self.graph) if name in files}

    def _feed(self, feed: Mapping[str, Array]) -> None:
        self._write("feed.npz", {name: feed[name] for name in self.inputs})

    def _write(self, name: str, arrays: dict[str, Any]) -> None:
        np.savez(self.folder / name, **arrays)

    def _take(self, file: str) -> Array:
        path = self.folder / Path(file).name
        value = np.load(path, allow_pickle=False)
        path.unlink()
        return value

    def _run(self, what: dict[str, Any]) -> dict[str, Any]:
        return worked(self.python, self.folder, self.job | what)


def worked(python: str, folder: Path, job: dict[str, Any]) -> dict[str, Any]:
    """What the worker answers to a job; Unavailable with the reason where it fails."""
    (folder / "job.json").write_text(json.dumps(job))
    try:
        done = subprocess.run([python, str(WORKER), str(folder)], capture_output=True, text=True, check=False)
    except OSError as exc:
        raise Unavailable(f"--caffe-python {python}: cannot be started: {exc.strerror}") from exc
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()] or ["it said nothing"]
        reason = next((line for line in reversed(said) if "Error" in line or "Check failed" in line), said[-1])
        missing = "No module named" in reason and "caffe" in reason
        way_out = "; name an interpreter that has it: --caffe-python PATH" if missing else ""
        raise Unavailable(f"Caffe in {python} failed: {reason.strip()[:300]}{way_out}")
    return json.loads((folder / "result.json").read_text())


def trained(solver: Path, steps: int, weights: str | Path | None, python: str = "") -> tuple[str, tuple[float, ...], dict[str, Array]]:
    """Version of Caffe, losses, and weights by layer/index behind `steps` iterations of a solver; pycaffe does not show histories."""
    with tempfile.TemporaryDirectory(prefix="decant-caffe-") as temporary:
        folder = Path(temporary)
        job = {"ask": "train", "solver": str(solver.absolute()), "steps": steps, "weights": str(check_file(weights).absolute()) if weights else ""}
        told = worked(shutil.which(python) or python or sys.executable, folder, job)
        kept = {name: np.load(folder / Path(file).name, allow_pickle=False) for name, file in told["files"].items()}
    return str(told.get("version", "")), tuple(map(float, told["losses"])), kept
