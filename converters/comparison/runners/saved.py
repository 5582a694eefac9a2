"""Runs of another day or machine: an .npz of arrays, and a .json beside it that says who made them.

input/<blob>   blob/<blob>   blob_at/<blob> with blob_index/<blob> and blob_shape/<blob>   grad_param/<layer>/<i>
The same keys as in recordings of real Caffe, so those are runs too.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from prototxt import WeightsError
from prototxt.files import atomic_path, read_file, write_file

from ..arrays import Arrays
from ..results import Side
from .base import Array, Runner, Unavailable


class Sampled:
    """Some values of a blob: `values` at the flat indices `index` of a blob of `shape`."""

    def __init__(self, values: Array, index: Array, shape: Iterable[Any]) -> None:
        self.values, self.index, self.shape = values, index, tuple(int(d) for d in shape)


class SavedRun(Runner):
    """Blobs as they were recorded; read from the file one at a time."""

    recorded = True

    def __init__(self, path: str | Path, spec: str = "") -> None:
        self.arrays = Arrays(path)
        self.path, keys = self.arrays.path, self.arrays.keys
        self.inputs = tuple(key[6:] for key in keys if key.startswith("input/"))
        self.keys = {key.partition("/")[2]: key for key in keys if key.startswith(("blob/", "blob_at/"))}
        self.inner = self.outputs = tuple(self.keys)
        if not self.keys and not any(key.startswith("grad_param/") for key in keys):
            raise WeightsError(f"{self.path}: no array named blob/<blob>, so nothing to compare with")
        self.side = _side(self.path, spec)

    def feed(self) -> dict[str, Array]:
        """What the run was fed."""
        return {name: self.arrays.floats(f"input/{name}") for name in self.inputs}

    def some(self, feed: Mapping[str, Array], wanted: Sequence[str]) -> dict[str, Array]:
        """The recorded blobs that are `wanted`, whatever the feed."""
        return dict(self.stream(feed, wanted))

    def stream(self, feed: Mapping[str, Array], wanted: Sequence[str]) -> Iterator[tuple[str, Any]]:
        """The recorded blobs that are `wanted`, one at a time."""
        for name in wanted:
            key = self.keys.get(name, "")
            if key.startswith("blob_at/"):
                yield name, self.sampled(name, self.arrays.shape(f"blob_shape/{name}"))
            elif key:
                yield name, self.arrays.numbers(key)

    def sampled(self, name: str, shape: tuple[int, ...]) -> Sampled:
        """The values that were kept of a blob of `shape`."""
        values = self.arrays.numbers(f"blob_at/{name}").reshape(-1)
        return Sampled(values, self.arrays.indices(f"blob_index/{name}", prod(shape), values.size), shape)

    def gradients(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        """The recorded gradients."""
        found = {key[11:]: self.arrays.numbers(key) for key in self.arrays.keys if key.startswith("grad_param/")}
        if not found:
            raise Unavailable(f"{self.path}: the run holds no gradients (grad_param/<layer>/<i>)")
        return found


def run_path(path: str | Path) -> Path:
    """Where `save_run` puts the arrays."""
    return Path(path).with_suffix(".npz")


def save_run(path: str | Path, runner: Runner, feed: Mapping[str, Array], wanted: Iterable[str] | None = None, *, gradients: bool = False) -> Path:
    """Run once and write `path` (.npz) and the .json beside it; returns the path of the .npz. The file grows blob by blob."""
    import zipfile

    path = run_path(path)
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, value in feed.items():
            _add(archive, f"input/{name}", value)
        for name, value in runner.stream(feed, list(wanted or runner.inner)):
            _add(archive, f"blob/{name}", value)
        if gradients:
            for name, value in runner.gradients(feed).items():
                _add(archive, f"grad_param/{name}", value)
    write_file(path.with_suffix(".json"), json.dumps({"runner": asdict(runner.side)}, indent=1) + "\n")
    return path


def _add(archive: Any, name: str, value: Array) -> None:
    with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
        np.lib.format.write_array(file, np.ascontiguousarray(value), allow_pickle=False)


def _side(path: Path, spec: str) -> Side:
    beside = path.with_suffix(".json")
    try:
        told = json.loads(read_file(beside, limit=1 << 20))["runner"] if beside.is_file() else {}
        return Side(f"{told.get('name', 'recorded')} ({path.name})", str(told.get("version", "")), str(told.get("precision", "float32")), spec)
    except (ValueError, KeyError, TypeError, AttributeError):
        return Side(f"recorded ({path.name})", spec=spec)
