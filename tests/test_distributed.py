"""Several processes reach what one reaches: gloo, on the CPU, started as torchrun starts them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import ROOT

from prototxt.weights import read_weights
from pycls.runlog import read_log

NET = """
name: "two"
layer {{ name: "data" type: "HDF5Data" top: "data" top: "class" top: "marks" top: "target"
  hdf5_data_param {{ source: "list.txt" batch_size: {batch} }} }}
layer {{ name: "conv" type: "Convolution" bottom: "data" top: "conv" param {{ lr_mult: 1 }} param {{ lr_mult: 2 decay_mult: 0 }}
  convolution_param {{ num_output: 5 kernel_size: 3 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "relu" type: "ReLU" bottom: "conv" top: "conv" }}
layer {{ name: "scores" type: "InnerProduct" bottom: "conv" top: "scores"
  inner_product_param {{ num_output: 4 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "tags" type: "InnerProduct" bottom: "conv" top: "tags" inner_product_param {{ num_output: 3 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "value" type: "InnerProduct" bottom: "conv" top: "value" inner_product_param {{ num_output: 2 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "idle" type: "InnerProduct" bottom: "conv" top: "idle" inner_product_param {{ num_output: 2 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "scores" bottom: "class" top: "loss" loss_param {{ ignore_label: -1 }} }}
layer {{ name: "marked" type: "SigmoidCrossEntropyLoss" bottom: "tags" bottom: "marks" top: "marked" loss_weight: 0.5
  loss_param {{ ignore_label: -1 normalization: VALID }} }}
layer {{ name: "distance" type: "EuclideanLoss" bottom: "value" bottom: "target" top: "distance" loss_weight: 0.1 }}
layer {{ name: "size" type: "Reduction" bottom: "scores" top: "size" reduction_param {{ operation: SUMSQ }} loss_weight: 0.001 }}
layer {{ name: "silence" type: "Silence" bottom: "idle" }}
"""
SOLVER = """
net: "net.prototxt" base_lr: 0.05 lr_policy: "step" gamma: 0.5 stepsize: 8 momentum: 0.9 weight_decay: 0.01 iter_size: 2 clip_gradients: 1.5
max_iter: 20 snapshot: 10 random_seed: 3 snapshot_prefix: "run" display: 1
"""


def write_data(folder: Path) -> None:
    """26 records, in which the labels of every other one are mostly ignored: one process has nearly all of them, the other hardly any."""
    generator = np.random.default_rng(0)
    count = 26
    classes = generator.integers(0, 4, count).astype("f4")
    marks = generator.integers(0, 2, (count, 3)).astype("f4")
    classes[1::2], marks[1::2] = -1, -1
    classes[5], marks[9, 1] = 2, 1
    with h5py.File(folder / "data.h5", "w") as f:
        f["data"] = generator.normal(size=(count, 2, 6, 7)).astype("f4")
        f["class"], f["marks"] = classes, marks
        f["target"] = generator.normal(size=(count, 2)).astype("f4")
    (folder / "list.txt").write_text("data.h5\n")


def prepare(folder: Path, batch: int) -> None:
    folder.mkdir()
    write_data(folder)
    (folder / "net.prototxt").write_text(NET.format(batch=batch))
    (folder / "solver.prototxt").write_text(SOLVER)


def weights(path: Path) -> dict[str, list[np.ndarray]]:
    return {layer.name: [np.array(blob.array) for blob in layer.blobs] for layer in read_weights(path)}


RUN = """
import os, socket, sys

import pycls, pycls.solver
from pycls import distributed
from pycls.checkpoint import prefix
from pycls.progress import Progress
from pycls.runlog import RunLog
from pycls.trainer import train


def work(folder, restore):
    os.chdir(folder)
    world, device = distributed.join("cpu")
    solver = pycls.Solver("solver.prototxt", restore=restore, device=device, world=world)
    train(solver, Progress(quiet=True), RunLog(f"{prefix(solver)}.jsonl" if world.main else None))
    distributed.leave()
    sys.stdout.flush()
    os._exit(0)


def world(folder, processes, restore=None):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        os.environ.update(WORLD_SIZE=str(processes), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(s.getsockname()[1]))
    children = []
    for rank in range(processes):
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank))
        children.append(os.fork() or work(folder, restore))
    assert not any(os.waitpid(child, 0)[1] for child in children)


world("one", 1)
world("two", 2)
world("again", 2)
world("again", 2, "run_iter_10.solverstate")
"""


def test_two_processes_with_half_the_batch_reach_the_weights_of_one(tmp_path: Path) -> None:
    """And go on from their snapshot of iteration 10 to the same bits, each with a sidecar of its own. One Python starts all."""
    for name, batch in (("one", 8), ("two", 4), ("again", 4)):
        prepare(tmp_path / name, batch)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", RUN], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    one, two, again = (weights(tmp_path / name / "run_iter_20.caffemodel") for name in ("one", "two", "again"))
    for name, blobs in one.items():
        for a, b, c in zip(blobs, two[name], again[name], strict=True):
            np.testing.assert_allclose(b, a, rtol=0, atol=1e-6, err_msg=name)
            assert np.array_equal(b, c), name
    assert (tmp_path / "again/run_iter_10.solverstate.1.json").exists()
    losses = [[r["loss"] for r in read_log(tmp_path / name / "run.jsonl") if r["kind"] == "train"] for name in ("one", "two", "again")]
    assert len(losses[0]) == 20
    assert losses[1] == losses[2]
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
