"""Runners, what they give, and how a comparison of two is measured, saved, told and resumed."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import CORPUS, ROOT, SHARED, Decant
from torch import nn

import converters
from converters.comparison import many, sources
from converters.comparison.command import Comparison, run
from converters.comparison.engine import compare
from converters.comparison.gradients import driven
from converters.comparison.results import Report, Tolerance
from converters.comparison.runners import Runner, TorchRunner, Unavailable, base
from converters.comparison.runners.pytorch import NetRunner, exported
from converters.comparison.runners.saved import Sampled, save_run
from converters.comparison.statistics import TOLERANCES, Facts, compare_blob
from prototxt import DecantError, NetError, parse_text

LENET, WEIGHTS = CORPUS / "nets/lenet-deploy.prototxt", CORPUS / "nets/lenet-deploy.caffemodel"
SMALL = """
name: "small" input: "data" input_shape { dim: 2 dim: 4 }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 3 weight_filler { type: "gaussian" std: 1 } } }
layer { name: "relu" type: "ReLU" bottom: "ip" top: "ip" }
"""
TOLERANCE = TOLERANCES["float32"]


# Numbers --------------------------------------------------------------------------------------------------------------


def test_statistics_are_those_of_plain_numpy() -> None:
    generator = np.random.default_rng(4)
    b = generator.standard_normal((3, 5, 7, 11)).astype(np.float32)
    a = b + generator.standard_normal(b.shape).astype(np.float32) * 0.01
    found = compare_blob(Facts("x", "l", "T", output=True), a, b, TOLERANCE, preview=True)
    d = np.abs(a.astype(np.float64) - b)
    assert found.index == np.unravel_index(d.argmax(), d.shape)
    assert found.worst_abs == pytest.approx(d.max(), rel=1e-5)
    assert found.worst_rel == pytest.approx(d.max() / np.abs(b).max(), rel=1e-5)
    assert found.mean == pytest.approx(d.mean(), rel=1e-4)
    for q, value in found.quantiles:
        assert value == pytest.approx(np.quantile(d, q), rel=0.02)
    assert found.cosine == pytest.approx(np.vdot(a, b) / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-6)
    assert found.preview is not None
    assert sum(found.preview.histogram_a) == sum(found.preview.histogram_b) == d.size
    assert np.shape(found.preview.error_map) == (7, 11)
    assert np.max(found.preview.error_map) == pytest.approx(d.max(), rel=1e-2)
    # the smallest tolerance that would pass does, and one a little smaller does not
    for needed, of in ((found.needs_atol, "atol"), (found.needs_rtol, "rtol")):
        for factor, ok in ((1.001, True), (0.999, False)):
            tolerance = Tolerance(**{"atol": 0.0, "rtol": 0.0, of: needed * factor})
            assert compare_blob(Facts("x"), a, b, tolerance).ok is ok


def test_what_cannot_be_compared_fails_with_the_reason() -> None:
    zeros = np.zeros((2, 3), np.float32)
    nan, inf = zeros.copy(), zeros.copy()
    nan[1, 2], inf[0, 1] = np.nan, -np.inf
    for a, b, word in ((zeros, zeros[:, :2], "shapes differ"), (zeros[:0], zeros[:0], "empty"), (nan, zeros, "NaN"), (inf, nan, "NaN")):
        found = compare_blob(Facts("x"), a, b, Tolerance(1e9, 1e9))
        assert not found.ok
        assert word in found.problem
        assert math.isinf(found.needs_rtol)
    same = compare_blob(Facts("x"), nan, nan.copy(), TOLERANCE)
    assert same.ok
    assert (same.nan_a, same.nan_b) == (1, 1)


def test_wide_and_unsigned_values_are_subtracted_in_a_wider_format() -> None:
    found = compare_blob(Facts("x"), np.array([[0, 7]], np.uint8), np.array([[1, 7]], np.uint8), Tolerance(1.0, 1.0))
    assert found.worst_abs == 1
    assert not found.ok, "whole numbers are equal or they are not"


def test_the_largest_values_have_a_preview() -> None:
    values = np.array([[3e38, -3e38], [1, 2]], np.float32)
    found = compare_blob(Facts("x"), values, -values, TOLERANCE, preview=True)
    assert not found.ok
    assert found.preview is not None
    assert sum(found.preview.histogram_a) == 4


def test_classes_agree_by_rank() -> None:
    b = np.arange(21, dtype=np.float32).reshape(3, 7)
    a = b.copy()
    a[1, 5], a[1, 6] = 100.0, 1.0  # another winner in one row, the same five
    assert dict(compare_blob(Facts("x", output=True), a, b, TOLERANCE).top) == {1: pytest.approx(2 / 3), 5: pytest.approx(2 / 3)}


def test_part_of_a_blob_is_compared_at_its_places() -> None:
    whole = np.random.default_rng(0).standard_normal((4, 5)).astype(np.float32)
    index = np.array([3, 11, 19])
    part = Sampled(whole.reshape(-1)[index] + np.array([0, 0.5, 0], np.float32), index, (4, 5))
    found = compare_blob(Facts("x"), whole, part, TOLERANCE)
    assert found.index == (2, 1)
    assert "shapes differ" in compare_blob(Facts("x"), whole[:3], part, TOLERANCE).problem


# Runners --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["torch", "source", "exported", "onnxruntime", "opencv", "torch@fp64", "torch@bf16", "torch@fp16"])
def test_runners_agree_on_lenet(text: str) -> None:
    report = compare(text, f"{LENET}+{WEIGHTS}")
    assert report, report.text()
    outputs = {blob.name for blob in report.blobs if blob.output}
    assert outputs == {"prob"}
    if text != "exported":
        assert [blob.name for blob in report.blobs] == ["conv1", "pool1", "conv2", "pool2", "ip1", "ip2", "prob"], "every blob"
        asked = compare(text, f"{LENET}+{WEIGHTS}", blobs=["ip1@0", "ip1"])
        assert [blob.name for blob in asked.blobs] == ["ip1@0", "ip1"], "and what is written over, where it is asked for"


def test_half_precision_is_past_the_tolerance_of_float32() -> None:
    report = compare(f"{LENET}+{WEIGHTS}@bf16", "torch", tolerance=TOLERANCE)
    assert report.divergence is not None
    assert report.divergence.cause == "half precision"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("torch@cuda", "CUDA"), ("torch@tf32", "TF32"), ("openvino", "pip install openvino"), ("opencv-caffe", "no longer reads Caffe"),
        ("caffe", "--caffe-python"), ("onnxruntime@bf16", "number formats"), ("source@cuda", "knows no device"), ("source@bf16", "number formats"),
        ("opencv@cuda", "knows no device"), ("caffe@fp16", "number formats"),
    ],
)  # fmt: skip
def test_what_is_not_here_says_so(text: str, reason: str) -> None:
    import cv2

    if (text == "torch@cuda" and torch.cuda.is_available()) or (text == "opencv-caffe" and hasattr(cv2.dnn, "readNetFromCaffe")):
        pytest.skip("it is here")
    if text == "openvino" and shutil.which("ovc"):
        pytest.skip("it is here")
    with pytest.raises(Unavailable, match=reason):
        compare(text, LENET, weights=WEIGHTS)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("onnxruntme:x.onnx", "did you mean onnxruntime"), ("net.txt", "is no side"), ("absent.prototxt", "no such file"),
        (f"{LENET}@gpu", "neither a device"), ("no.such.module:f", "cannot be made"), ("empty.py", "no source that Decant has generated"),
        ("wrong.py", "wrong.py: no source.*SyntaxError"), ("net.py", "net.safetensors: not the weights of net.py"),
        ("cut.npz", "cut.npz: no .npz"), ("crc.npz", "crc.npz: blob/ip2 cannot be read"), ("far.npz", "blob_index/ip2 shall hold 2 whole numbers"),
        ("half.npz", "blob_index/ip2 cannot be read"), ("words.npz", "blob/ip2 does not hold real numbers"), ("nothing.prototxt", "no layer is left"),
    ],
)  # fmt: skip
def test_a_side_that_is_none_is_refused(text: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty.py").touch(), Path("empty.safetensors").touch()
    Path("wrong.py").write_text("def"), Path("wrong.safetensors").touch()
    Path("net.py").write_text("def load(path): raise KeyError(path)"), Path("net.safetensors").touch()
    Path("nothing.prototxt").write_text('name: "nothing"')
    places = {"input/data": np.zeros((2, 1, 28, 28)), "blob_at/ip2": np.ones(2, np.float32), "blob_shape/ip2": [2, 10]}
    np.savez("far.npz", **places, **{"blob_index/ip2": [0, 20]})
    np.savez("half.npz", **places)
    np.savez("words.npz", **{"blob/ip2": ["a", "b"]})
    whole = LENET.with_suffix(".npz").read_bytes()
    Path("cut.npz").write_bytes(whole[:-100])
    np.savez("crc.npz", **{"blob/ip2": np.full(20, 7, np.float32)})
    Path("crc.npz").write_bytes(Path("crc.npz").read_bytes().replace(np.full(20, 7, np.float32).tobytes(), bytes(80)))
    with pytest.raises(DecantError, match=told):
        compare(text, LENET, weights=WEIGHTS)


def test_a_mean_without_an_image_is_refused() -> None:
    with pytest.raises(DecantError, match="--mean and --scale prepare an image"):
        run(Comparison(str(LENET), "onnxruntime", weights=WEIGHTS, mean=(26.0,)))


def test_sides_are_taken_apart() -> None:
    source = sources.parse(f"opencv:{LENET}+{WEIGHTS}@cuda:1,fp16")
    assert (source.runner, source.path, source.weights) == ("opencv", str(LENET), str(WEIGHTS))
    assert (source.device, source.precision) == ("cuda:1", "float16")
    assert sources.parse(str(WEIGHTS)).runner == "torch"  # it carries its net
    odd = CORPUS / "nets/cifar-full-sigmoid-bn@test.prototxt"  # a name with the separator in it
    assert sources.parse(str(odd)).path == str(odd)


@pytest.fixture
def caffe(tmp_path: Path) -> str:
    """An interpreter that has a module caffe."""
    shutil.copy(Path(__file__).parent / "fake_caffe.py", tmp_path / "caffe.py")
    script = tmp_path / "python-with-caffe"
    script.write_text(f'#!/bin/sh\nPYTHONPATH="{tmp_path}:{ROOT}" exec "{sys.executable}" "$@"\n')
    script.chmod(0o755)
    return str(script)


def small(folder: Path) -> tuple[Path, Path]:
    """A net of two layers as files."""
    net, weights = folder / "small.prototxt", folder / "small.caffemodel"
    net.write_text(SMALL)
    torch.manual_seed(2)
    converters.load(net).save(weights)
    return net, weights


def test_real_caffe_in_another_interpreter(caffe: str, tmp_path: Path) -> None:
    net, weights = small(tmp_path)
    report = run(Comparison(str(net), "caffe", weights=weights, caffe_python=caffe, gradients=True))
    assert report, report and report.text()
    assert report.b.version == "fake 1.0"
    assert [blob.name for blob in report.blobs] == ["ip"]
    assert [g.name for g in report.gradients] == ["ip/0", "ip/1"]


class Port(nn.Module):
    """A port of SMALL by hand, under names of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.act = nn.Linear(4, 3), nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.first(x))


def test_a_module_of_the_users_is_matched_by_order_type_and_shape() -> None:
    net = converters.load(parse_text(SMALL))
    port = Port()
    with torch.no_grad():
        for mine, theirs in zip(port.first.parameters(), net.params()["ip"], strict=True):
            mine.copy_(theirs)
    report = compare(port, net)
    assert report, report.text()
    assert [blob.name for blob in report.blobs] == ["ip"]
    named = compare(port, net, names={"ip@0": "first"})
    assert [blob.name for blob in named.blobs] == ["ip"]
    with torch.no_grad():
        port.first.bias.add_(1)
    assert [(blob.name, blob.ok) for blob in compare(port, net).blobs] == [("ip@0", False), ("ip", False)], "which layer is it?"
    with pytest.raises(DecantError, match=r"which .* has not"):
        compare(port, net, names={"ip": "second"})


def test_runners_stream_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small budget: several passes, the same values; and never more blobs at a time than fit."""
    pieces: list[int] = []
    report = compare("onnxruntime", f"{LENET}+{WEIGHTS}")
    from converters.comparison.runners.onnx_files import OnnxRuntimeRunner

    plain = OnnxRuntimeRunner.some
    monkeypatch.setattr(OnnxRuntimeRunner, "some", lambda self, feed, wanted: pieces.append(len(wanted)) or plain(self, feed, wanted))
    monkeypatch.setattr(base, "BUDGET", 4_000)
    again = compare("onnxruntime", f"{LENET}+{WEIGHTS}")
    assert [(blob.name, blob.value_a) for blob in again.blobs] == [(blob.name, blob.value_a) for blob in report.blobs]
    assert len(pieces) > 2


def test_a_streamed_net_lets_blobs_go() -> None:
    """At the end of a long chain the first blobs are gone: what is alive at any time is a few, not all."""
    layers = "".join(f'layer {{ name: "l{i}" type: "AbsVal" bottom: "{f"b{i - 1}" if i else "data"}" top: "b{i}" }}' for i in range(40))
    net = converters.load(parse_text(f'input: "data" input_shape {{ dim: 1 dim: 2 dim: 30 dim: 40 }} {layers}'))
    import weakref

    alive: list[weakref.ref[np.ndarray]] = []
    most = 0
    runner = NetRunner(net)
    for _, value in runner.stream({"data": np.ones((1, 2, 30, 40), np.float32)}, runner.inner):
        alive.append(weakref.ref(value))
        del value
        most = max(most, sum(ref() is not None for ref in alive))
    assert len(alive) == 40
    assert most <= 3


# The comparison -------------------------------------------------------------------------------------------------------


class Fixed(Runner):
    """A runner with given blobs."""

    def __init__(self, outputs: list[str], **blobs: list[float]) -> None:
        from converters.comparison.results import Side

        self.side, self.outputs, self.inner = Side("fixed"), tuple(outputs), tuple(blobs)
        self.inputs, self.blobs = ("data",), {name: np.array([value], np.float32) for name, value in blobs.items()}

    def some(self, feed: object, wanted: object) -> dict[str, np.ndarray]:
        return {name: self.blobs[name] for name in wanted}  # type: ignore[attr-defined]


FEED = {"data": np.zeros((1, 1), np.float32)}


def test_a_comparison_leaves_no_mode_behind() -> None:
    """Two streams of one net in turns, one of them left half-way: gradients, and the net's own mode, are as they were."""
    net = converters.load(LENET, weights=WEIGHTS)
    net.module.train()
    net.module.get_submodule("pool1").eval()
    assert compare(net, NetRunner(net))
    assert compare(TorchRunner(net.module, ["data"], ["prob"]), exported(net))
    assert not net.module.get_submodule("pool1").training
    half = NetRunner(net).stream({"data": np.zeros(net.graph.blob_shapes["data"], np.float32)}, ["conv1", "prob"])
    next(half)
    assert torch.is_grad_enabled()
    assert net.module.training


def test_a_context_is_left_as_it_was() -> None:
    context = sources.Context()
    assert compare(LENET, "source", weights=WEIGHTS, context=context)
    assert (context.weights, context.names, context.shapes) == (None, {}, {})
    nets = context.with_(seed=1)
    assert nets.net(str(LENET), str(WEIGHTS)) is context.net(str(LENET), str(WEIGHTS)), "what is loaded is shared"


def test_missing_extra_and_nothing_fail() -> None:
    full = Fixed(["x", "y"], i=[1], x=[2], y=[3])
    assert compare(full, Fixed(["x", "y"], x=[2], y=[3]), FEED).unmatched == ("i",), "an inner blob may be shown by one side alone"
    assert compare(full, Fixed(["x", "y"], x=[2], y=[3]), FEED)
    less, more = compare(Fixed(["x"], x=[2]), full, FEED), compare(full, Fixed(["x"], x=[2]), FEED)
    assert (less.missing, bool(less)) == (("y",), False)
    assert (more.extra, bool(more)) == (("y",), False)
    nothing = compare(Fixed(["x"], x=[2]), Fixed(["z"], z=[2]), FEED)
    assert not nothing
    assert "nothing was compared" in nothing.text()
    with pytest.raises(DecantError, match="neither side has a blob 'nope'"):
        compare(full, full, FEED, blobs=["nope"])
    assert [blob.name for blob in compare(full, full, FEED, blobs=["i"]).blobs] == ["i"]


def test_blobs_of_other_names_are_paired_by_a_map() -> None:
    a, b = Fixed(["out"], hidden=[1], out=[2]), Fixed(["y"], x=[1], y=[2])
    assert not compare(a, b, FEED)
    report = compare(a, b, FEED, names={"x": "hidden", "y": "out"})
    assert report, report.text()
    assert {blob.name for blob in report.blobs} == {"x", "y"}
    with pytest.raises(DecantError, match="has no blob 'nope'"):
        compare(a, b, FEED, names={"x": "nope"})
    with pytest.raises(DecantError, match="--map OTHER=out"):
        compare(a, b, FEED, names={"out": "hidden"})


def test_the_first_nan_is_told() -> None:
    report = compare(Fixed(["y"], x=[1, 2], y=[np.nan, 1]), Fixed(["y"], x=[1, 2], y=[1, 1]), FEED)
    assert report.nonfinite is not None
    assert (report.nonfinite.blob, report.nonfinite.side) == ("y", "a")


def test_a_run_is_saved_and_compared_on_another_day(decant: Decant, tmp_path: Path) -> None:
    done = decant("compare", LENET, "-w", WEIGHTS, "--save", "run.npz", "--gradients")
    assert done.returncode == 0, done.stderr
    told = json.loads((tmp_path / "run.json").read_text())
    assert told["runner"]["name"] == "PyTorch on cpu"
    report = run(Comparison(f"source:{LENET}", str(tmp_path / "run.npz"), weights=WEIGHTS))
    assert report
    again = run(Comparison(f"torch:{LENET}", str(tmp_path / "run.npz"), weights=WEIGHTS, gradients=True))
    assert again
    assert len(again.gradients) == 8
    assert max(g.worst_abs for g in again.gradients) == 0


def test_gradients_are_real_caffes() -> None:
    """Against its recordings, of nets with losses."""
    compared = 0
    for path in sorted((CORPUS / "nets").glob("*.npz")):
        with np.load(path) as z:
            if "loss" not in z.files or str(z["phase"]) != "TEST" or not any(key.startswith("grad_param/") for key in z.files):
                continue
            if any(key.startswith("grad_output/") for key in z.files):
                continue  # more than the losses was driven backward
            recorded = {key[11:] for key in z.files if key.startswith("grad_param/")}
        net = path.with_suffix(".prototxt")
        if recorded != set(driven(converters.resolve(net))):
            continue
        report = compare(str(net), str(path), weights=net.with_suffix(".caffemodel"), gradients=True)
        assert report, report.text()
        compared += len(report.gradients)
    assert compared > 20


def test_wrong_gradients_are_told() -> None:
    class Doubled(NetRunner):
        def gradients(self, feed):  # type: ignore[no-untyped-def]
            return {name: value * (2 if name == "ip/0" else 1) for name, value in super().gradients(feed).items()}

    net = converters.load(parse_text(SMALL))
    report = compare(Doubled(net), net, gradients=True)
    assert not report
    assert [g.name for g in report.gradients if not g.ok] == ["ip/0"]


def test_a_report_comes_back_from_json() -> None:
    net = converters.load(parse_text(SMALL))
    port = Port()
    report = compare(port, net, gradients=False)
    assert not report
    assert Report.from_dict(json.loads(json.dumps(report.to_dict(), allow_nan=False))) == report
    with pytest.raises(DecantError, match="no report"):
        Report.from_dict({"net": 3, "surprise": []})


def test_outputs_that_only_a_module_gives() -> None:
    net = converters.load(parse_text(SMALL))
    assert compare(TorchRunner(net.module, ["data"], ["ip"]), net)


def test_a_detectors_rows_are_a_set() -> None:
    rows = np.random.default_rng(1).random((1, 1, 9, 7)).astype(np.float32)
    assert compare_blob(Facts("x"), rows[:, :, ::-1], rows, TOLERANCE).ok
    assert not compare_blob(Facts("x"), rows[:, :, :8], rows, TOLERANCE).ok
    other = rows[:, :, ::-1].copy()
    other[0, 0, 6, 3] += np.float32(0.01)  # the row that is row 2 of the others
    found = compare_blob(Facts("x"), other, rows, TOLERANCE)
    assert (found.ok, found.index, found.value_b) == (False, (0, 0, 2, 3), rows[0, 0, 2, 3])
    other[0, 0, 6, 3] = np.nan
    assert compare_blob(Facts("x"), other, rows, TOLERANCE).nan_a == 1


# The command, and many at once ----------------------------------------------------------------------------------------


def test_the_command_tells_where_and_why(decant: Decant, tmp_path: Path) -> None:
    with np.load(LENET.with_suffix(".npz")) as z:
        wrong = {key: z[key] for key in z.files}
    wrong["blob/ip2"] = wrong["blob/ip2"] * np.float32(1.5)
    np.savez(tmp_path / "wrong.npz", **wrong)
    done = decant("compare", LENET, "wrong.npz", "-w", WEIGHTS, "--report", "out")
    assert done.returncode == 1, done.stderr
    assert "they part at blob 'ip2'" in done.stdout
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"report.json", "report.txt", "report.html"}
    with pytest.raises(DecantError, match="--save"):
        run(Comparison(str(LENET)))


def test_solver_steps_agree_with_real_caffes_trace(decant: Decant) -> None:
    folder = CORPUS / "solvers/adam"
    done = decant("compare", "solver.prototxt", "trace.npz", "--steps", "10", "-w", "start.caffemodel", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    from pycls.comparison import compare_training

    worse = compare_training(folder / "solver.prototxt", folder / "trace.npz", 5)
    assert not worse
    assert "the losses part at step 0" in worse.text()


def test_a_broken_model_is_a_row_and_the_rest_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zoo = tmp_path / "zoo"
    for name in ("good", "unknown", "damaged"):
        (zoo / name).mkdir(parents=True)
        small(zoo / name)
    (zoo / "unknown/small.prototxt").write_text('layer { name: "x" type: "Nonesuch" top: "y" }')
    (zoo / "damaged/small.caffemodel").write_bytes(b"\xff" * 50)
    rows: list[many.Row] = []
    (zoo / "outside").mkdir()
    shutil.copy(zoo / "good/small.caffemodel", zoo / "outside")
    (zoo / "outside/small.prototxt").write_text(
        f'layer {{ name: "d" type: "ImageData" top: "data" top: "label" image_data_param {{ source: "{LENET}" batch_size: 1 }} }}'
        'layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 3 } }'
    )
    asked = Comparison("", report=tmp_path / "out", shapes={"data": (3, 4)})
    with pytest.raises(DecantError, match="--input, --scale cannot be the same"):
        many.compare_all(zoo, (), Comparison("", input=LENET, scale=2.0), 1, rows.append)
    monkeypatch.setattr(many, "confined_to", zoo.resolve)
    found = many.compare_all(zoo, ("torch",), asked, 3, rows.append)
    by_name = {row.name: row for row in found}
    assert bool(by_name["good"])
    assert by_name["good"].blobs == 2
    assert json.loads((tmp_path / "out/good/torch/report.json").read_text())["blobs"][0]["shape"] == [3, 3]
    assert "leads out of" in by_name["outside"].problem
    assert many.Row("x", False, worst=math.inf).to_dict()["worst"] == "Infinity"
    assert "Nonesuch" in by_name["unknown"].problem
    assert "small.caffemodel" in by_name["damaged"].problem
    assert (tmp_path / "out/index.html").is_file()
    # what is done is not done again; what was broken, or has changed, is
    started: list[str] = []
    monkeypatch.setattr(many.subprocess, "run", lambda *_, **given: started.append(json.loads(given["input"])["name"]) or done)
    done = subprocess.CompletedProcess([], -11, "", "")
    again = many.compare_all(zoo, ("torch",), asked, 1, rows.append)
    assert started == ["damaged", "outside", "unknown"]
    assert [row.problem for row in again if row.name == "unknown"] == ["its process was killed by signal 11"]


def test_a_shape_of_no_input_is_refused() -> None:
    """A typing mistake in --shape; what is fed to the other side alone is none."""
    for asked in (converters.resolve, converters.load):
        with pytest.raises(NetError, match="'dta', which is no input of the net: data"):
            asked(LENET, shapes={"dta": (2, 1, 28, 28)})
    with pytest.raises(DecantError, match="'dta', which is no input of either side: data"):
        compare(LENET, "exported", context=sources.Context(shapes={"dta": (2, 1, 28, 28)}))


def test_models_are_found_with_their_recordings(tmp_path: Path) -> None:
    (tmp_path / "one/deep").mkdir(parents=True)
    for path in ("one/deploy.prototxt", "one/x.caffemodel", "one/golden.npz", "one/deep/a.prototxt", "one/deep/a.caffemodel", "one/deep/b.prototxt",
                 "one/deep/b.caffemodel", "one/deep/b.npz", "one/deep/solver.prototxt"):  # fmt: skip
        (tmp_path / path).touch()
    found = {m.name: (m.prototxt.name, [p.name for p in m.recordings]) for m in many.found_in(tmp_path)}
    assert found == {"one": ("deploy.prototxt", ["golden.npz"]), "one/deep/a": ("a.prototxt", []), "one/deep/b": ("b.prototxt", ["b.npz"])}
    (tmp_path / "one/deep/a").mkdir()
    for path in ("one/deep/a/net.prototxt", "one/deep/a/net.caffemodel", "one/deep/b.caffemodel.h5"):
        (tmp_path / path).touch()
    names = {"one", "one/deep/a.caffemodel", "one/deep/a/net", "one/deep/b.caffemodel", "one/deep/b.caffemodel.h5"}
    assert {model.name for model in many.found_in(tmp_path)} == names
    with pytest.raises(DecantError, match="no model in it"):
        many.found_in(tmp_path / "one/deep/..").clear() or many.found_in(Path(sys.prefix) / "include")


PLUGIN = """
def test_agrees(decant_parity):
    reports = decant_parity({net!r}, {weights!r}, against=["torch", "source"])
    assert len(reports) == 2

def test_differs(decant_parity):
    decant_parity({net!r}, {weights!r}, against=[{wrong!r}])

def test_is_not_here(decant_parity):
    decant_parity({net!r}, {weights!r}, against=["torch@tf32"])

def test_may_be_absent(decant_parity):
    decant_parity({net!r}, {weights!r}, against=["torch@tf32"], optional=True)
"""


def test_the_pytest_plugin(tmp_path: Path) -> None:
    net, weights = small(tmp_path)
    save_run(tmp_path / "wrong", NetRunner(converters.load(net)), {"data": np.ones((2, 4), np.float32)})
    (tmp_path / "test_parity.py").write_text(PLUGIN.format(net=str(net), weights=str(weights), wrong=str(tmp_path / "wrong.npz")))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_parity.py"]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert "2 failed, 1 passed, 1 skipped" in done.stdout, done.stdout + done.stderr
    assert "they part at blob 'ip@0'" in done.stdout


MODELS = sorted(p.parent for p in (SHARED / "models").glob("*/golden.npz"))
ABSENT = [pytest.param(None, marks=pytest.mark.skip(reason="the public models are not beside this checkout"))]


@pytest.mark.parametrize("folder", MODELS or ABSENT, ids=lambda p: p.name if p else "none")
def test_every_runner_agrees_with_real_caffe_on_public_models(folder: Path) -> None:
    """Each recording; one export a model, so a photo of another size is for PyTorch alone."""
    context = sources.Context(weights=next(folder.glob("*.caffemodel")))
    first: dict[str, tuple[int, ...]] = {}
    for recording in sorted(folder.glob("golden*.npz")):
        with np.load(recording) as z:
            context.shapes = {key[6:]: z[key].shape for key in z.files if key.startswith("input/")}
        first = first or dict(context.shapes)
        for name in ("torch", "source", *(("onnxruntime", "opencv") if context.shapes == first else ())):
            report = compare(f"{name}:{folder}/deploy.prototxt", str(recording), context=context)
            assert report, f"{name}: {report.text()}"
