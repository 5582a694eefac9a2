"""N solver steps on both sides: losses, weights and histories (momentum, ...) behind the last one.

A side is a solver.prototxt (`solver.prototxt@cuda`), `caffe:solver.prototxt`, or a recorded trace (.npz): loss [n],
param/<iteration>/<layer>/<i>, history/<iteration>/<k>.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from converters.comparison.results import BlobResult, Report, Side, Training
from converters.comparison.runners.base import Array
from converters.comparison.statistics import TOLERANCES, Facts, compare_blob
from prototxt import DecantError, WeightsError
from prototxt.files import check_file


@dataclass(frozen=True, slots=True)
class Steps:
    """What a side's N steps left. `histories` are numbered as in a solverstate; empty where the side does not show them."""

    side: Side
    losses: tuple[float, ...]
    weights: Mapping[str, Array]
    histories: Mapping[str, Array] = field(default_factory=dict)


def compare_training(a: str | Path, b: str | Path | None, steps: int, weights: str | Path | None = None, caffe_python: str = "") -> Report:
    """Run `steps` iterations of both, from the same `weights`, and compare; B is the reference. DecantError where a side is no solver."""
    if b is None:
        raise DecantError("--steps compares two sides: give a second solver, or a recorded trace.npz")
    left, right = (_steps_of(str(side), steps, weights, caffe_python) for side in (a, b))
    tolerance = TOLERANCES["float32"]
    losses = compare_blob(Facts("loss"), _array(left.losses), _array(right.losses), tolerance, preview=True)
    notes = ["the tolerance is that of the recorded traces: 1e-4 of the largest value"]
    if not (left.histories and right.histories):
        notes.append("histories are not compared: one side does not show them behind this step")
    training = Training(
        left.losses,
        right.losses,
        losses,
        _pairs(left.weights, right.weights),
        _pairs(left.histories, right.histories) if left.histories and right.histories else (),
    )
    return Report(Path(str(a)).stem, left.side, right.side, (), tolerance, training=training, inputs=f"{steps} solver steps", notes=tuple(notes))


def _pairs(left: Mapping[str, Array], right: Mapping[str, Array]) -> tuple[BlobResult, ...]:
    """One that a side lacks fails."""
    absent = np.empty(0, np.float32)
    names = dict.fromkeys([*right, *left])
    return tuple(
        compare_blob(Facts(name, name.rpartition("/")[0]), left.get(name, absent), right.get(name, absent), TOLERANCES["float32"], preview=True)
        for name in names
    )


def _array(values: Any) -> Array:
    return np.asarray(values, np.float32)


def _steps_of(text: str, steps: int, weights: str | Path | None, caffe_python: str) -> Steps:
    path, device = text, "cpu"
    if text.startswith("caffe:"):
        return _by_caffe(Path(text[6:]), steps, weights, caffe_python)
    if not Path(text).exists() and "@" in text:
        path, _, device = text.rpartition("@")
    check_file(path)
    if path.endswith(".npz"):
        return _recorded(Path(path), steps)
    return _by_solver(Path(path), steps, weights, device, text)


def _by_solver(path: Path, steps: int, weights: str | Path | None, device: str, text: str) -> Steps:
    import torch

    from .solver import Solver

    if device.startswith("cuda") and not torch.cuda.is_available():
        raise DecantError(f"{text}: CUDA is not available: torch finds no GPU on this machine")
    with torch.random.fork_rng():
        torch.manual_seed(0)  # both sides start alike, also where neither weights nor random_seed say how
        solver = Solver(path, weights=weights, device=device)
        losses = tuple(solver.step() for _ in range(steps))
    kept = {f"{layer}/{i}": p.detach().cpu().numpy() for layer, params in solver.net.params().items() for i, p in enumerate(params)}
    names = solver.optimizer.histories
    histories = [solver.optimizer.history(p, name).detach().cpu().numpy() for name in names for p in solver.parameters]
    side = Side(f"Decant's solver on {device}", str(torch.__version__), spec=text)
    return Steps(side, losses, kept, {f"history/{k}": value for k, value in enumerate(histories)})


def _recorded(path: Path, steps: int) -> Steps:
    try:
        with np.load(path, allow_pickle=False) as z:
            arrays = {key: z[key] for key in z.files if key == "loss" or key.startswith((f"param/{steps}/", f"history/{steps}/"))}
            iterations = sorted({int(key.split("/")[1]) for key in z.files if key.startswith("param/")})
    except (OSError, ValueError, EOFError, IndexError) as exc:
        raise WeightsError(f"{path}: no recorded trace, or a damaged one: {exc}") from exc
    if "loss" not in arrays or len(arrays["loss"]) < steps or steps not in iterations:
        raise DecantError(
            f"{path}: holds no weights behind step {steps}; it has them behind {', '.join(map(str, iterations)) or 'none'}: --steps one of these"
        )
    kept = {key.split("/", 2)[2]: value for key, value in arrays.items() if key.startswith("param/")}
    histories = {f"history/{key.split('/')[2]}": value for key, value in arrays.items() if key.startswith("history/")}
    ordered = {f"history/{k}": histories[f"history/{k}"] for k in sorted(int(name.split("/")[1]) for name in histories)}
    return Steps(Side(f"recorded ({path.name})", spec=str(path)), tuple(map(float, arrays["loss"][:steps])), kept, ordered)


def _by_caffe(path: Path, steps: int, weights: str | Path | None, python: str) -> Steps:
    from converters.comparison.runners.real_caffe import trained

    version, losses, kept = trained(check_file(path), steps, weights, python)
    return Steps(Side("Caffe's solver", version, spec=f"caffe:{path}"), losses, kept)
