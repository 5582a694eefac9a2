"""The solver beyond the recorded traces: exact resume, its own snapshots, errors that name the place."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import CORPUS, ROOT

import pycls
from prototxt import DecantError, SolverError
from pycls.schedules import steps_passed
from pycls.updates import SGD

SOLVERS = ["sgd_momentum", "adam", "adadelta", "batchnorm", "shared_siamese", "snapshot_data_cursor", "iter_size3", "snapshot_adadelta_hdf5"]


def weights(solver: pycls.Solver) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in solver.net.module.state_dict().items()}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """A copy of a recorded solver's folder as the working directory."""
    work = shutil.copytree(CORPUS / "solvers" / request.param, tmp_path / request.param)
    monkeypatch.chdir(work)
    return work


@pytest.mark.parametrize("folder", SOLVERS, indirect=True)
def test_a_resumed_run_equals_one_that_was_not_stopped(folder: Path) -> None:
    """7 steps, snapshot, a new process's solver, 6 steps: bit for bit the same as 13, from any record on."""
    straight = pycls.Solver("solver.prototxt", weights="start.caffemodel")
    losses = [straight.step() for _ in range(13)]
    first = pycls.Solver("solver.prototxt", weights="start.caffemodel")
    for _ in range(7):
        first.step()
    resumed = pycls.Solver("solver.prototxt", restore=first.snapshot())
    assert resumed.iteration == 7
    assert [resumed.step() for _ in range(6)] == losses[7:]
    for name, value in weights(straight).items():
        assert value.equal(weights(resumed)[name]), name


@pytest.mark.parametrize("folder", ["train_net_test_net"], indirect=True)
def test_test_nets_share_the_weights(folder: Path) -> None:
    with np.load("trace.npz") as z:
        recorded = {key.split("/")[2]: z[key] for key in z.files if key.startswith("test/0/")}
    solver = pycls.Solver("solver.prototxt", weights="start.caffemodel")
    before = solver.test()
    for name, value in recorded.items():
        np.testing.assert_allclose(before[name].numpy(), value, rtol=1e-4, atol=1e-6)
    for _ in range(5):
        solver.step()
    assert any(not before[name].equal(value) for name, value in solver.test().items())


@pytest.mark.parametrize("folder", ["sgd_plain"], indirect=True)
def test_a_loss_that_is_not_finite_stops_with_the_first_blob(folder: Path) -> None:
    solver = pycls.Solver("solver.prototxt", weights="start.caffemodel")
    with torch.no_grad():
        solver.net.params()[next(iter(solver.net.params()))][0].fill_(float("nan"))
    with pytest.raises(SolverError, match="not finite"):
        solver.step()


@pytest.mark.parametrize("folder", ["sgd_plain"], indirect=True)
@pytest.mark.parametrize(("old", "new", "says"), [
    ("fixed", "cosine", "cosine"), ("net.prototxt", "missing.prototxt", r"missing\.prototxt"), ("base_lr", "bass_lr", "base_lr"),
    ("max_iter: 20", 'type: "Adam" momentum: 1', "momentum 1 and momentum2 0.999: each is at least 0 and below 1"),
    ('"fixed"\nmax_iter: 20', '"poly"', "'poly' needs a max_iter above 0"), ("test_iter: 2", "test_iter: -3", "test_iter -3"),
])  # fmt: skip
def test_bad_solvers_are_refused_by_name(folder: Path, old: str, new: str, says: str) -> None:
    text = Path("solver.prototxt").read_text()
    assert old in text
    Path("solver.prototxt").write_text(text.replace(old, new, 1))
    with pytest.raises(DecantError, match=says):
        pycls.Solver("solver.prototxt")


def test_caffes_momentum_is_not_torchs() -> None:
    """The rate is inside the velocity: after a drop Caffe's weights go on by what they had, torch's by the new rate."""
    w = torch.ones(1, requires_grad=True)
    optimizer = SGD([w], lr=1.0, momentum=0.5)
    seen = []
    for rate in (1.0, 0.1, 0.1):
        optimizer.param_groups[0]["lr"] = rate
        w.grad = torch.ones(1)
        optimizer.step()
        seen.append(float(w.detach()))
    assert seen == pytest.approx([0.0, -0.6, -1.0])  # v = 1, 0.6, 0.4


def test_steps_of_multistep() -> None:
    assert [steps_passed(i, (4, 4, 5)) for i in range(8)] == [0, 0, 0, 0, 1, 2, 3, 3]
    assert [steps_passed(i, ()) for i in range(3)] == [0, 0, 0]


@pytest.mark.parametrize("folder", ["snapshot_after_train_off_grid"], indirect=True)
def test_the_command_trains_as_the_solver_says(folder: Path) -> None:
    """Snapshots after 8, 16 and 20 updates; the last weights are those of the recorded run; a resumed run ends the same."""
    command = [sys.executable, str(ROOT / "cli.py"), "train", "solver.prototxt"]
    done = subprocess.run([*command, "-w", "start.caffemodel"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "copied" in done.stdout  # the table of what the weights gave
    states = sorted(folder.glob("*_iter_*.solverstate"))
    assert [int(p.stem.rpartition("_")[2]) for p in sorted(states, key=lambda p: p.stat().st_mtime)] == [8, 16, 20]
    last = next(folder.glob("*_iter_20.caffemodel"))
    before = last.read_bytes()
    resumed = subprocess.run([*command, "--snapshot", str(next(folder.glob("*_iter_16.solverstate")))], capture_output=True, text=True)
    assert resumed.returncode == 0, resumed.stderr
    assert last.read_bytes() == before


@pytest.mark.parametrize("folder", ["sgd_plain"], indirect=True)
def test_a_device_that_is_not_there_is_refused(folder: Path) -> None:
    done = subprocess.run([sys.executable, str(ROOT / "cli.py"), "train", "solver.prototxt", "--device", "cuda:9"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "this machine has cpu" in done.stderr


@pytest.mark.parametrize("folder", sorted(p.parent.name for p in (CORPUS / "solvers").glob("*/trace.npz")), indirect=True)
def test_tests_smoothed_losses_and_histories_are_caffes(folder: Path) -> None:
    """What check.py leaves out of a trace: test nets at their iterations, the smoothed loss, the solver's state after the last update."""
    with np.load("trace.npz") as z:
        trace = dict(z)
    start = next((name for name in ("start.caffemodel", "base.caffemodel") if Path(name).exists()), None)
    solver = pycls.Solver("solver.prototxt", weights=start)
    for iteration in range(len(trace["loss"]) + 1):
        for index, name in enumerate(("test", "test1")):
            wanted = {key.split("/", 2)[2]: value for key, value in trace.items() if key.startswith(f"{name}/{iteration}/")}
            got = solver.test(index) if wanted else {}
            for blob, value in wanted.items():
                np.testing.assert_allclose(got[blob].numpy(), value, rtol=1e-4, atol=1e-5, err_msg=f"{name} {iteration} {blob}")
        if iteration < len(trace["loss"]):
            solver.step()
            if "smoothed_loss" in trace:
                assert solver.smoothed_loss == pytest.approx(trace["smoothed_loss"][iteration], rel=1e-4, abs=1e-5)
    blobs = [(p, name) for name in solver.optimizer.histories for p in solver.parameters]
    recorded = [value for key, value in sorted(trace.items(), key=lambda pair: int(pair[0].rsplit("/", 1)[-1]) if "history" in pair[0] else 0)
                if key.startswith("history/")]  # fmt: skip
    assert len(recorded) in (0, len(blobs))
    for (parameter, name), value in zip(blobs, recorded, strict=False):
        scale = max(np.abs(value).max(), 1e-4)
        np.testing.assert_allclose(solver.optimizer.history(parameter, name).numpy().reshape(value.shape), value, rtol=1e-3, atol=1e-4 * scale)
