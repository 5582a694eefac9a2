"""Snapshots: weights and solver state as Caffe writes them, and a sidecar with what Caffe forgets.

Caffe's solverstate lacks the data position: a run restored from Caffe's own files reads from record 0 again, as Caffe does. Ours keep
`<state>.json` beside it with the position of every data layer and torch's generator, and go on exactly.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from prototxt import SolverError
from prototxt.files import find_file, read_file, write_file
from prototxt.solver import SolverSettings
from prototxt.states import SolverState, read_state, write_state

from .schedules import steps_passed

if TYPE_CHECKING:
    from .solver import Solver


def write_checkpoint(solver: Solver) -> Path:
    """Write `<prefix>_iter_<n>.caffemodel[.h5]`, `.solverstate[.h5]` and the sidecar, each all or nothing; the state's path."""
    settings, hdf5 = solver.settings, solver.settings.snapshot_format == "HDF5"
    stem = f"{_prefix(solver)}_iter_{solver.iteration}"
    model, state = Path(f"{stem}.caffemodel{'.h5' if hdf5 else ''}"), Path(f"{stem}.solverstate{'.h5' if hdf5 else ''}")
    solver.net.save(model)
    names = solver.optimizer.histories
    history = tuple(solver.optimizer.history(p, name).detach().cpu().numpy() for name in names for p in solver.parameters)
    step = _steps(settings, max(solver.iteration - 1, 0))  # as of the last update
    write_file(_sidecar(state), json.dumps(_position(solver)) + "\n")
    write_state(state, SolverState(solver.iteration, str(model), step, history))  # last: a state without its model is of no use
    return state


def restore_checkpoint(solver: Solver, path: Path) -> None:
    """Go on from a state: weights, history, iteration; and the data position, where a sidecar of ours tells it."""
    state = read_state(path)
    model = find_file(state.learned_net, path.parent)
    if not model.exists() and (path.parent / model.name).exists():  # the state was moved together with its model
        model = path.parent / model.name
    solver.net.load(model)
    wanted = [(p, name) for name in solver.optimizer.histories for p in solver.parameters]
    if len(state.history) != len(wanted):
        raise SolverError(f"{path}: {len(state.history)} history blobs, and this solver has {len(wanted)}; is it of another net or solver type?")
    for (parameter, name), values in zip(wanted, state.history, strict=True):
        if values.size != parameter.numel():
            raise SolverError(f"{path}: a history blob of shape {list(values.shape)} for a parameter of shape {list(parameter.shape)}")
        solver.optimizer.history(parameter, name).copy_(torch.from_numpy(np.array(values)).reshape(parameter.shape))
    solver.iteration = state.iter
    for group in solver.optimizer.param_groups:
        if "t" in group:
            group["t"] = state.iter
    if _sidecar(path).exists():
        _restore_position(solver, _sidecar(path))


def _steps(settings: SolverSettings, iteration: int) -> int:
    """Caffe's current_step: how many steps the rate of an iteration had taken."""
    if settings.lr_policy == "step":
        return iteration // settings.stepsize
    return steps_passed(iteration, settings.stepvalue) if settings.lr_policy == "multistep" else 0


def _prefix(solver: Solver) -> Path:
    prefix, name = solver.settings.snapshot_prefix, solver.path.stem
    if not prefix:
        return solver.path.with_suffix("")
    return Path(prefix) / name if Path(prefix).is_dir() else Path(prefix)


def _sidecar(state: Path) -> Path:
    return state.with_name(state.name + ".json")


def _position(solver: Solver) -> dict[str, Any]:
    feeds = [feed for feed in (solver.feed, *(feed for _, feed in solver.tests)) if feed is not None]
    return {
        "iteration": solver.iteration,
        "feeds": [feed.state() for feed in feeds],
        "generator": base64.b64encode(torch.get_rng_state().numpy().tobytes()).decode(),
    }


def _restore_position(solver: Solver, path: Path) -> None:
    feeds = [feed for feed in (solver.feed, *(feed for _, feed in solver.tests)) if feed is not None]
    try:
        position = json.loads(read_file(path, limit=1 << 26))
        for feed, state in zip(feeds, position["feeds"], strict=True):
            feed.restore(state)
        generator = base64.b64decode(position["generator"])
        torch.set_rng_state(torch.frombuffer(bytearray(generator), dtype=torch.uint8))
    except (ValueError, KeyError, TypeError, RuntimeError) as exc:
        raise SolverError(f"{path}: a damaged sidecar: {exc}; without it the run would start at record 0, as Caffe's does") from exc
