"""Solvers against a replay of ../shared/conformance/TRAINING.md in numpy and double precision, which shares no code with pycls.

The recorded traces pin single rules; here rules, policies, multipliers, decay, clipping, iter_size and sharing meet in combinations that none of
them has, on one net by hand: data -> ip1 -> sigmoid -> mid -> sigmoid -> mid again (shared) -> sigmoid -> ip2 -> softmax loss, and a layer that no
loss reaches.
"""

from __future__ import annotations

from collections.abc import Callable
from math import exp, floor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

import pycls

N, IN, MID, OUT, IDLE, RECORDS, STEPS = 5, 6, 4, 3, 2, 13, 14
NET = """
layer {{ name: "data" type: "HDF5Data" top: "data" top: "label" hdf5_data_param {{ source: "list.txt" batch_size: {n} }} }}
layer {{ name: "ip1" type: "InnerProduct" bottom: "data" top: "a" {ip1} inner_product_param {{ num_output: 4 }} }}
layer {{ name: "s1" type: "Sigmoid" bottom: "a" top: "a" }}
layer {{ name: "mid1" type: "InnerProduct" bottom: "a" top: "b" param {{ name: "m" }} inner_product_param {{ num_output: 4 bias_term: false }} }}
layer {{ name: "s2" type: "Sigmoid" bottom: "b" top: "b" }}
layer {{ name: "mid2" type: "InnerProduct" bottom: "b" top: "c" param {{ name: "m" {m} }} inner_product_param {{ num_output: 4 bias_term: false }} }}
layer {{ name: "s3" type: "Sigmoid" bottom: "c" top: "c" }}
layer {{ name: "ip2" type: "InnerProduct" bottom: "c" top: "scores" {ip2} inner_product_param {{ num_output: 3 }} }}
layer {{ name: "idle" type: "InnerProduct" bottom: "c" top: "idle" inner_product_param {{ num_output: 2 bias_term: false }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "scores" bottom: "label" top: "loss" loss_weight: {weight} }}
"""
BASE = {"base_lr": 0.1, "lr_policy": "fixed", "gamma": 0.0, "power": 0.0, "stepsize": 0, "stepvalue": (), "momentum": 0.0, "momentum2": 0.999}
BASE |= {"delta": 1e-8, "rms_decay": 0.99, "weight_decay": 0.0, "regularization_type": "L2", "iter_size": 1, "clip_gradients": -1.0, "type": "SGD"}
BASE |= {"max_iter": STEPS, "average_loss": 1}


def case(name: str, multipliers: dict[str, tuple[float, float]] | None = None, weight: float = 1.0, **options: Any) -> Any:
    return pytest.param(options, multipliers or {}, weight, id=name)


CASES = [
    case("sgd, step of gamma 0", momentum=0.9, lr_policy="step", gamma=0.0, stepsize=5),
    case("sgd, rate 0", momentum=0.9, base_lr=0.0, weight_decay=0.1),
    case("sgd, no momentum, decay of what no loss reaches", weight_decay=0.3),
    case("sgd, l1, multipliers", {"w1": (2, 0), "b1": (0.5, 3), "m": (3, 0.5)}, momentum=0.5, weight_decay=0.05, regularization_type="L1"),
    case("sgd, clip 0", momentum=0.9, clip_gradients=0.0, weight_decay=0.01),
    case("sgd, clip, iter_size, decay", {"b2": (0, 1)}, momentum=0.9, clip_gradients=0.05, iter_size=3, weight_decay=0.02, average_loss=4),
    case("sgd, loss weight -2, unsorted steps", weight=-2.0, momentum=0.3, lr_policy="multistep", gamma=0.5, stepvalue=(6, 3, 3, 10)),
    case("sgd, loss weight 0: nothing is reached, all decays", weight=0.0, momentum=0.9, weight_decay=0.1),
    case("sgd, momentum 1", momentum=1.0, weight_decay=0.01, base_lr=0.01),
    case("nesterov, poly, iter_size", {"m": (0.5, 2)}, type="Nesterov", momentum=0.9, lr_policy="poly", power=1.5, iter_size=2, weight_decay=0.01),
    case("nesterov, l1, clip", type="Nesterov", momentum=0.6, weight_decay=0.02, regularization_type="L1", clip_gradients=0.1),
    case("adagrad, iter_size, clip, l1", type="AdaGrad", iter_size=2, clip_gradients=0.02, weight_decay=0.01, regularization_type="L1", delta=1e-3),
    case("adagrad, inv, sharing", {"m": (5, 1)}, type="AdaGrad", lr_policy="inv", gamma=0.3, power=0.75, weight_decay=0.02),
    case("rmsprop, sigmoid", {"b1": (0, 0)}, type="RMSProp", rms_decay=0.7, base_lr=0.02, lr_policy="sigmoid", gamma=0.8, stepsize=6, delta=1e-4),
    case("rmsprop, decay, iter_size", type="RMSProp", base_lr=0.01, weight_decay=0.05, iter_size=4, delta=1e-2),
    case("adadelta, multipliers", {"w2": (3, 0)}, type="AdaDelta", base_lr=1.0, momentum=0.95, delta=1e-6, weight_decay=0.01),
    case("adadelta, no momentum, clip", type="AdaDelta", base_lr=0.5, delta=1e-4, clip_gradients=0.05),
    case("adam, exp, clip, sharing", {"m": (4, 0)}, type="Adam", base_lr=0.02, momentum=0.9, lr_policy="exp", gamma=0.9, clip_gradients=0.03),
    case("adam, large delta, l2", type="Adam", base_lr=0.02, momentum=0.5, momentum2=0.9, delta=0.1, weight_decay=0.1, iter_size=2),
    case("adam, l1", type="Adam", base_lr=0.01, momentum=0.9, weight_decay=0.1, regularization_type="L1", delta=1e-4),
    case("adam, no momentum", type="Adam", base_lr=0.01, momentum=0.0, momentum2=0.0, delta=1e-2),
]


class Replay:
    """The solver in numpy."""

    def __init__(self, weights: dict[str, np.ndarray], data: np.ndarray, labels: np.ndarray, options: dict, multipliers: dict, weight: float) -> None:
        self.w = {name: value.astype(np.float64) for name, value in weights.items()}
        self.data, self.labels, self.s, self.multipliers, self.weight = data.astype(np.float64), labels.astype(int), options, multipliers, weight
        self.at, self.iteration, self.steps = 0, 0, 0
        self.h = {name: np.zeros_like(value) for name, value in self.w.items()}
        self.q = {name: np.zeros_like(value) for name, value in self.w.items()}

    def rate(self) -> float:
        s, i = self.s, self.iteration
        if s["lr_policy"] == "multistep" and self.steps < len(s["stepvalue"]) and i >= s["stepvalue"][self.steps]:
            self.steps += 1
        rates: dict[str, Callable[[], float]] = {
            "fixed": lambda: 1.0,
            "step": lambda: s["gamma"] ** floor(i / s["stepsize"]),
            "exp": lambda: s["gamma"] ** i,
            "inv": lambda: (1 + s["gamma"] * i) ** -s["power"],
            "multistep": lambda: s["gamma"] ** self.steps,
            "poly": lambda: (1 - i / s["max_iter"]) ** s["power"],
            "sigmoid": lambda: 1 / (1 + exp(-s["gamma"] * (i - s["stepsize"]))),
        }
        return s["base_lr"] * rates[s["lr_policy"]]()

    def one_pass(self, g: dict[str, np.ndarray]) -> float:
        """Forward and backward by hand; adds to the gradients."""
        w = self.w
        rows = [(self.at + i) % len(self.data) for i in range(N)]
        self.at += N
        x, y = self.data[rows], self.labels[rows]
        a = 1 / (1 + np.exp(-(x @ w["w1"].T + w["b1"])))
        b = 1 / (1 + np.exp(-(a @ w["m"].T)))
        c = 1 / (1 + np.exp(-(b @ w["m"].T)))
        p = np.exp(c @ w["w2"].T + w["b2"])
        p /= p.sum(1, keepdims=True)
        d = (p - np.eye(OUT)[y]) / N * self.weight
        dc = (d @ w["w2"]) * c * (1 - c)
        db = (dc @ w["m"]) * b * (1 - b)
        da = (db @ w["m"]) * a * (1 - a)
        for name, value in {"w2": d.T @ c, "b2": d.sum(0), "m": dc.T @ b + db.T @ a, "w1": da.T @ x, "b1": da.sum(0)}.items():
            g[name] = g[name] + value
        return self.weight * -np.log(p[range(N), y]).mean()

    def step(self) -> tuple[float, float]:
        s, rate = self.s, self.rate()
        g = {name: np.zeros_like(value) for name, value in self.w.items()}
        loss = sum(self.one_pass(g) for _ in range(s["iter_size"])) / s["iter_size"]
        learned = [name for name in g if self.multipliers.get(name, (1, 1))[0] != 0]
        norm = np.sqrt(sum((g[name] ** 2).sum() for name in learned))
        clip = s["clip_gradients"] / norm if 0 <= s["clip_gradients"] < norm else 1.0
        for name in learned:
            lr, decay = self.multipliers.get(name, (1, 1))
            value = g[name] * clip / s["iter_size"]
            d = s["weight_decay"] * decay
            value = value + d * (self.w[name] if s["regularization_type"] == "L2" else np.sign(self.w[name]))
            self.w[name] = self.w[name] - self.update(name, value, rate * lr)
        self.iteration += 1
        return loss, rate

    def update(self, name: str, g: np.ndarray, r: float) -> np.ndarray:
        s, h, q = self.s, self.h[name], self.q[name]
        m, m2, delta, t = s["momentum"], s["momentum2"], s["delta"], self.iteration + 1
        match s["type"]:
            case "SGD":
                self.h[name] = m * h + r * g
                return self.h[name]
            case "Nesterov":
                self.h[name] = m * h + r * g
                return (1 + m) * self.h[name] - m * h
            case "AdaGrad":
                self.h[name] = h + g * g
                return r * g / (np.sqrt(self.h[name]) + delta)
            case "RMSProp":
                self.h[name] = s["rms_decay"] * h + (1 - s["rms_decay"]) * g * g
                return r * g / (np.sqrt(self.h[name]) + delta)
            case "AdaDelta":
                self.h[name] = m * h + (1 - m) * g * g
                v = g * np.sqrt((q + delta) / (self.h[name] + delta))
                self.q[name] = m * q + (1 - m) * v * v
                return r * v
        self.h[name], self.q[name] = m * h + (1 - m) * g, m2 * q + (1 - m2) * g * g
        return r * np.sqrt(1 - m2**t) / (1 - m**t) * self.h[name] / (np.sqrt(self.q[name]) + delta)


PLACES = {"w1": ("ip1", 0), "b1": ("ip1", 1), "m": ("mid1", 0), "w2": ("ip2", 0), "b2": ("ip2", 1), "wi": ("idle", 0)}
SHAPES = {"w1": (MID, IN), "b1": (MID,), "m": (MID, MID), "w2": (OUT, MID), "b2": (OUT,), "wi": (IDLE, MID)}


def text_of(options: dict[str, Any]) -> str:
    """A solver.prototxt of the options that are not Caffe's defaults."""
    lines = ['net: "net.prototxt"']
    for name, value in (BASE | options).items():
        for one in value if isinstance(value, tuple) else (value,):
            words = isinstance(value, str)
            if name not in ("stepsize", "gamma", "power") or name in options:
                lines.append(f'{name}: "{one}"' if words else f"{name}: {one}")
    return "\n".join(lines)


@pytest.mark.parametrize(("options", "multipliers", "weight"), CASES)
def test_a_solver_equals_its_replay(options: dict, multipliers: dict, weight: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loss, rate, weights and history; a snapshot in the middle, HDF5 or binary, goes on to the same end."""
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(1)
    data, labels = generator.normal(size=(RECORDS, IN)).astype("f4"), generator.integers(0, OUT, RECORDS).astype("f4")
    with h5py.File("data.h5", "w") as f:
        f["data"], f["label"] = data, labels
    Path("list.txt").write_text("data.h5\n")

    def written(*names: str) -> str:
        pairs = [multipliers.get(name, (1, 1)) for name in names]
        return " ".join(f"param {{ lr_mult: {lr} decay_mult: {decay} }}" for lr, decay in pairs)

    m = "lr_mult: {} decay_mult: {}".format(*multipliers["m"]) if "m" in multipliers else ""
    Path("net.prototxt").write_text(NET.format(n=N, ip1=written("w1", "b1"), ip2=written("w2", "b2"), m=m, weight=weight))
    kind = "HDF5" if options.get("type", "SGD") in ("SGD", "Adam") else "BINARYPROTO"
    Path("solver.prototxt").write_text(text_of(options) + f"\nsnapshot_format: {kind}")

    start = {name: generator.normal(size=shape).astype("f4") for name, shape in SHAPES.items()}
    start["w1"][0, 0] = 0  # sign(0) = 0
    solver = pycls.Solver("solver.prototxt")
    solver.net.load(
        {"ip1": [start["w1"], start["b1"]], "mid1": [start["m"]], "mid2": [start["m"]], "ip2": [start["w2"], start["b2"]], "idle": [start["wi"]]}
    )
    replay = Replay(start, data, labels, BASE | options, multipliers, weight)
    losses = []
    for i in range(STEPS):
        if i == STEPS // 2:
            path = solver.snapshot()
            solver = pycls.Solver("solver.prototxt", restore=path)
        rate = solver.lr
        loss, (want, wanted_rate) = solver.step(), replay.step()
        losses.append(want)
        assert loss == pytest.approx(want, rel=1e-5, abs=1e-6)
        assert rate == pytest.approx(wanted_rate, rel=1e-6, abs=1e-12)
        assert solver.smoothed_loss == pytest.approx(np.mean(losses[-replay.s["average_loss"] :]), rel=1e-5, abs=1e-6)
    rule = solver.optimizer
    for name, (layer, index) in PLACES.items():
        parameter = solver.net.params()[layer][index]
        np.testing.assert_allclose(parameter.detach().numpy(), replay.w[name], rtol=1e-4, atol=2e-6, err_msg=name)
        live = next(p for p in solver.parameters if p.data_ptr() == parameter.data_ptr())
        for key, history in zip(rule.histories, (replay.h, replay.q), strict=False):
            scale = np.abs(history[name]).max()
            np.testing.assert_allclose(
                rule.history(live, key).numpy(), history[name], rtol=1e-3, atol=1e-5 * scale + 1e-12, err_msg=f"history of {name}"
            )
    assert torch.equal(solver.net.params()["mid1"][0], solver.net.params()["mid2"][0])
