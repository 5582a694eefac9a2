"""Snapshots: weights and solver state as Caffe writes them, and a sidecar with what Caffe forgets.

Caffe's solverstate lacks the data position: a run restored from Caffe's own files reads from record 0 again, as Caffe does. Ours keep
`<state>.json` beside it with the position of every feed, the losses that are being averaged and the random states, and go on exactly. In a world
of several processes each has a sidecar: `<state>.json`, `<state>.1.json`, ...

The files are written under other names first; when all are whole and on the disk they take their places, the state last. A process that is
killed at any moment, or a disk that is full, leaves no state without its weights, and harms no earlier snapshot.
"""

from __future__ import annotations

import base64
import json
import os
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from prototxt import DecantError, FileProblem, SolverError
from prototxt.files import find_file, read_file, write_file
from prototxt.solver import SolverSettings
from prototxt.states import SolverState, read_state, write_state

from .schedules import steps_passed

if TYPE_CHECKING:
    from .solver import Solver


def write_checkpoint(solver: Solver) -> Path:
    """Write `<prefix>_iter_<n>.caffemodel[.h5]`, `.solverstate[.h5]` and the sidecar; the state's path. FileProblem if the disk is full."""
    suffix = ".h5" if solver.settings.snapshot_format == "HDF5" else ""
    stem = f"{prefix(solver)}_iter_{solver.iteration}"
    model, state = Path(f"{stem}.caffemodel{suffix}"), Path(f"{stem}.solverstate{suffix}")
    sidecar = _sidecar(state, solver.world.rank)
    staged = {final: final.with_name(f".{os.getpid()}.{final.name}") for final in (model, sidecar, state)}
    try:
        write_file(staged[sidecar], json.dumps(_position(solver)) + "\n")
        if solver.world.main:
            solver.net.save(staged[model])
            write_state(staged[state], _state(solver, model))
        solver.world.barrier()
        if solver.world.main:
            state.unlink(missing_ok=True)  # an older state of this name belongs to other weights
            os.replace(staged[model], model)
        os.replace(staged[sidecar], sidecar)
        solver.world.barrier()
        if solver.world.main:
            os.replace(staged[state], state)
    except OSError as exc:
        raise FileProblem(f"{state}: cannot be written: {exc.strerror or exc}") from exc
    finally:
        for temporary in staged.values():
            temporary.unlink(missing_ok=True)
    return state


def restore_checkpoint(solver: Solver, path: Path) -> None:
    """Go on from a state: weights, history, iteration; and all the rest, where a sidecar of ours tells it."""
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
    if _sidecar(path, 0).exists():
        _restore_position(solver, path)


def prefix(solver: Solver) -> Path:
    """What the names of a run's files begin with: snapshot_prefix, the solver's name in it if it is a folder, or else the solver's path."""
    written, name = solver.settings.snapshot_prefix, solver.path.stem
    if not written:
        return solver.path.with_suffix("")
    return Path(written) / name if Path(written).is_dir() else Path(written)


def _state(solver: Solver, model: Path) -> SolverState:
    names = solver.optimizer.histories
    history = tuple(solver.optimizer.history(p, name).detach().cpu().numpy() for name in names for p in solver.parameters)
    return SolverState(solver.iteration, str(model), _steps(solver.settings, max(solver.iteration - 1, 0)), history)


def _steps(settings: SolverSettings, iteration: int) -> int:
    """Caffe's current_step: how many steps the rate of an iteration had taken."""
    if settings.lr_policy == "step":
        return iteration // settings.stepsize
    return steps_passed(iteration, settings.stepvalue) if settings.lr_policy == "multistep" else 0


def _sidecar(state: Path, rank: int) -> Path:
    return state.with_name(f"{state.name}.{rank}.json" if rank else f"{state.name}.json")


def _position(solver: Solver) -> dict[str, Any]:
    return {
        "iteration": solver.iteration,
        "processes": solver.world.size,
        "feeds": [feed.state() for feed in (solver.feed, *solver.test_feeds)],
        "losses": list(solver.losses),
        "scaler": None if solver.scaler is None else solver.scaler.state_dict(),
        "random": _random_states(solver.device),
    }


def _restore_position(solver: Solver, path: Path) -> None:
    """Feeds and losses from this process's sidecar; a process that had none then takes rank 0's positions, and a generator of its own."""
    own = _sidecar(path, solver.world.rank)
    sidecar = own if own.exists() else _sidecar(path, 0)
    try:
        position = json.loads(read_file(sidecar, limit=1 << 28))
        if position["iteration"] != solver.iteration:
            raise ValueError(f"it is of iteration {position['iteration']}, the state of {solver.iteration}")
        for feed, state in zip((solver.feed, *solver.test_feeds), position["feeds"], strict=True):
            feed.restore(state)
        solver.losses.extend(float(loss) for loss in position["losses"])
        if solver.scaler is not None and position["scaler"]:
            solver.scaler.load_state_dict(position["scaler"])
        if sidecar == own:
            _restore_random(position["random"], solver.device)
    except (ValueError, KeyError, TypeError, RuntimeError, DecantError) as exc:
        raise SolverError(f"{sidecar}: a sidecar that does not fit: {exc}; without it the run would start at record 0, as Caffe's does") from exc


def _random_states(device: torch.device) -> dict[str, Any]:
    """The generators that a pass may draw from: torch's, and for Python layers numpy's and Python's own."""
    kind, keys, *rest = np.random.get_state()
    states = {"torch": _text(torch.get_rng_state()), "numpy": [kind, np.asarray(keys).tolist(), *rest], "python": random.getstate()}
    return states | ({"cuda": _text(torch.cuda.get_rng_state(device))} if device.type == "cuda" else {})


def _restore_random(states: dict[str, Any], device: torch.device) -> None:
    torch.set_rng_state(_bytes(states["torch"]))
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, np.array(keys, np.uint32), *rest))
    version, numbers, gauss = states["python"]
    random.setstate((version, tuple(numbers), gauss))
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(_bytes(states["cuda"]), device)


def _text(state: torch.Tensor) -> str:
    return base64.b64encode(state.numpy().tobytes()).decode()


def _bytes(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8)
