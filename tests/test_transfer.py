"""Files of weights and solver states from one format to another; a .caffemodel alone; what a copy by name did."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import CORPUS, SHARED, Decant
from safetensors.torch import load_file

import converters
import prototxt
import pycls
from converters.summary import fit
from converters.transfer import Options, transfer
from prototxt import FileProblem, WeightsError
from prototxt.binary import encode, read_definition
from prototxt.message import new
from prototxt.models import Model, ModelLayer, read_model, write_model
from prototxt.schema import caffe_pb2
from prototxt.states import SolverState, read_state, write_state
from prototxt.weights import read_weights
from prototxt.wire import Blob

NETS = CORPUS / "nets"
LENET = NETS / "lenet-deploy"


def values(path: Path) -> dict[str, list[np.ndarray]]:
    return {layer.name: [blob.values for blob in layer.blobs] for layer in read_weights(path) if layer.blobs}


def assert_same(a: dict[str, list[np.ndarray]], b: dict[str, list[np.ndarray]]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        for mine, theirs in zip(a[name], b[name], strict=True):
            np.testing.assert_array_equal(mine, theirs, err_msg=name)


# From format to format ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", [".h5", ".h5 .caffemodel .h5", ".safetensors", ".pt .h5", ".h5 .safetensors .pt", ".caffemodel .pth"])
@pytest.mark.parametrize("stem", ["lenet-deploy", "resnet-mini@test", "share-strict", "awkward-names"])
def test_weights_survive_every_way(stem: str, way: str, tmp_path: Path) -> None:
    source, net = NETS / f"{stem}.caffemodel", NETS / f"{stem}.prototxt"
    here = source
    for n, suffix in enumerate([*way.split(), ".caffemodel"]):
        there = tmp_path / f"{n}{suffix}"
        assert transfer(here, there, Options(net=net))
        here = there
    assert_same(values(here), values(source))


def test_caffes_formats_need_no_net(tmp_path: Path) -> None:
    transfer(LENET.with_suffix(".caffemodel"), tmp_path / "w.h5", Options())
    transfer(tmp_path / "w.h5", tmp_path / "w.caffemodel", Options())
    assert_same(values(tmp_path / "w.caffemodel"), values(LENET.with_suffix(".caffemodel")))
    with pytest.raises(WeightsError, match=r"give the prototxt|by --net"):
        transfer(tmp_path / "w.h5", tmp_path / "w.safetensors", Options())
    with pytest.raises(WeightsError, match=r"written as \.caffemodel, \.h5"):
        transfer(tmp_path / "w.h5", tmp_path / "w.npz", Options())


def test_what_real_caffe_wrote_of_a_v1_file(tmp_path: Path, models: Path) -> None:
    """cifar10_quick has V1 layers and 4-D blobs: our .h5 holds what Caffe's does, shape by shape."""
    source = models / "cifar10_quick_v1/cifar10_quick_v1.caffemodel"
    transfer(source, tmp_path / "w.h5", Options())
    assert_same(values(tmp_path / "w.h5"), values(models / "extra/cifar10_quick_v1.caffemodel.h5"))
    transfer(source, tmp_path / "w.caffemodel", Options(net=models / "cifar10_quick_v1/deploy.prototxt"))
    assert_same(values(tmp_path / "w.caffemodel"), values(models / "extra/cifar10_quick_v1_resaved.caffemodel"))


def test_an_upgraded_binary_is_caffes(decant: Decant, tmp_path: Path) -> None:
    """formats/weights_upgrade_binary: message for message what upgrade_net_proto_binary wrote, values included."""
    folder = CORPUS / "formats/weights_upgrade_binary"
    assert decant("upgrade", folder / "input.caffemodel", "new.caffemodel").returncode == 0
    got, want = (caffe_pb2.NetParameter.FromString(p.read_bytes()) for p in (tmp_path / "new.caffemodel", folder / "expected.caffemodel"))
    assert got == want


def test_state_dicts_that_run_code_are_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (Path(tmp_path / "ran"),)  # type: ignore[return-value]

    net = converters.load(LENET.with_suffix(".prototxt"))
    torch.save({"conv1.weight": Evil()}, tmp_path / "evil.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "evil.pt").read_bytes()[:-60])
    for name in ("evil", "list", "cut"):
        with pytest.raises(WeightsError, match=rf"{name}\.pt"):
            net.load(tmp_path / f"{name}.pt")
    assert not (tmp_path / "ran").exists()


# A .caffemodel alone --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(NETS.glob("*.caffemodel"))[::9] + sorted((SHARED / "models").glob("*/*.caffemodel")), ids=lambda p: p.stem)
def test_a_definition_reads_as_protobuf_reads_it(path: Path) -> None:
    """And is written so that protobuf reads the same again; as text, too."""
    message = read_definition(path)
    theirs = caffe_pb2.NetParameter.FromString(path.read_bytes())
    for layer in theirs.layer:
        del layer.blobs[:]
    for old in theirs.layers:
        del old.blobs[:]
        if old.HasField("layer"):
            del old.layer.blobs[:]
    theirs.DiscardUnknownFields()
    assert caffe_pb2.NetParameter.FromString(encode(message)) == theirs
    assert prototxt.parse_text(prototxt.to_text(message)) == message


def test_what_we_write_carries_its_net(tmp_path: Path, decant: Decant) -> None:
    net = converters.load(LENET.with_suffix(".prototxt"), weights=LENET.with_suffix(".caffemodel"))
    net.save(tmp_path / "alone.caffemodel")
    again = converters.load(tmp_path / "alone.caffemodel")
    x = torch.rand(3, 1, 28, 28)
    assert again(x).equal(net(x))
    told = [decant("inspect", path, "--json").stdout for path in (LENET.with_suffix(".prototxt"), "alone.caffemodel")]
    assert json.loads(told[0]) == json.loads(told[1])
    assert decant("convert", "alone.caffemodel", "--no-onnx", "-o", "out").returncode == 0
    assert decant("upgrade", "alone.caffemodel", "net.prototxt").returncode == 0
    assert converters.load(tmp_path / "net.prototxt", weights=tmp_path / "alone.caffemodel")(x).equal(net(x))


def test_a_snapshot_is_read_without_its_rules(models: Path, decant: Decant) -> None:
    """Caffe writes `include { phase: TRAIN }` and its phase into a snapshot; the data have to be told, or the weights are listed."""
    path = models / "lenet_v2/lenet_v2.caffemodel"
    listed = decant("inspect", path)
    assert listed.returncode == 0
    assert "431,080" in listed.stdout
    assert "--shape data=N,C,H,W" in listed.stdout
    done = decant("inspect", path, "--shape", "data=2,1,28,28", "--json")
    assert json.loads(done.stdout)["inputs"] == {"data": [2, 1, 28, 28], "label": [2]}


# What a copy did ------------------------------------------------------------------------------------------------------

FINE = """input: "data" input_shape { dim: 1 dim: 3 dim: 6 dim: 5 }
layer { name: "conv" type: "Convolution" bottom: "data" top: "c" convolution_param { num_output: 4 kernel_size: 3 } }
layer { name: "fc_OWN" type: "InnerProduct" bottom: "c" top: "f" inner_product_param { num_output: OUT } }
layer { name: "fresh" type: "InnerProduct" bottom: "f" top: "g" inner_product_param { num_output: 2 bias_term: false } }
"""


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A caffemodel of conv, fc_base with 7 outputs, and a layer that the new net has not."""
    rng = np.random.default_rng(0)
    shapes = {"conv": [(4, 3, 3, 3), (4,)], "fc_base": [(7, 48), (7,)], "gone": [(2, 7)]}
    layers = [
        ModelLayer(new("LayerParameter", name=name), tuple(Blob(s, False, rng.standard_normal(int(np.prod(s))).astype(np.float32)) for s in listed))
        for name, listed in shapes.items()
    ]
    write_model(tmp_path / "base.caffemodel", Model(tmp_path, new("NetParameter"), tuple(layers)))
    return tmp_path / "base.caffemodel"


def test_the_table_of_a_copy(base: Path, tmp_path: Path, decant: Decant) -> None:
    (tmp_path / "net.prototxt").write_text(FINE.replace("OWN", "new").replace("OUT", "5"))
    done = decant("weights", base, "out.caffemodel", "--net", "net.prototxt")
    assert done.returncode == 1  # layers were left
    rows = {line.split()[0]: line for line in done.stdout.splitlines() if line and not line.startswith(" ")}
    assert "copied" in rows["conv"]
    assert "4x3x3x3 4" in rows["conv"]
    assert "left as its fillers make it; in the file fc_base 7x48 7 stands there" in rows["fc_new"]
    assert "in the file gone 2x7 stands there" in rows["fresh"]
    assert values(tmp_path / "out.caffemodel").keys() == {"conv"}
    assert json.loads(decant("inspect", "net.prototxt", "-w", base, "--json").stdout)["weights"] == {
        "loaded": ["conv"], "kept": ["fc_new", "fresh"], "unused": ["fc_base", "gone"], "wrong": [],
        "renamed": {"fc_new": "fc_base", "fresh": "gone"},
    }  # fmt: skip


def test_a_layer_is_copied_under_another_name(base: Path, tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(FINE.replace("OWN", "new").replace("OUT", "7"))
    done = transfer(base, tmp_path / "out.h5", Options(net=tmp_path / "net.prototxt", rename={"fc_base": "fc_new"}))
    assert done.fit
    assert done.fit.loaded == ("conv", "fc_new")
    np.testing.assert_array_equal(values(tmp_path / "out.h5")["fc_new"][0], values(base)["fc_base"][0])
    for rename, says in (("fc_bass", r"no layer 'fc_bass' to rename; it has 'conv', 'fc_base'"), ("gone", "would make two layers 'conv'")):
        with pytest.raises(WeightsError, match=says):
            transfer(base, tmp_path / "twice.h5", Options(rename={rename: "conv"}))
    assert not (tmp_path / "twice.h5").exists()


def test_layers_without_weights_are_never_filled_in_silence(tmp_path: Path) -> None:
    """A module's formats hold all layers: those that the file lacks are refused, or with the prototxt, named, and the same in every run."""
    path, net = net_of(IP + IP.replace('"ip"', '"ip2"').replace('"t"', '"t2"'), tmp_path), tmp_path / "net.prototxt"
    model = read_model(path)
    bare = [replace(layer, blobs=()) if layer.name == "ip2" else layer for layer in model.layers]
    write_model(tmp_path / "part.caffemodel", replace(model, layers=tuple(bare)))
    with pytest.raises(WeightsError, match="no weights for 'ip2'"):
        transfer(tmp_path / "part.caffemodel", tmp_path / "w.safetensors", Options())
    assert not (tmp_path / "w.safetensors").exists()
    net.write_text(f'input: "data" input_shape {{ dim: 2 dim: 3 dim: 7 dim: 6 }} {IP}' + IP.replace('"ip"', '"ip2"').replace('"t"', '"t2"'))
    for seed, name in enumerate(("a", "b")):
        torch.manual_seed(seed)
        done = transfer(tmp_path / "part.caffemodel", tmp_path / f"{name}.safetensors", Options(net=net))
        assert (bool(done), done.blobs, done.layers, done.values) == (False, 4, 2, 2 * 5 * 127)
    a, b = (load_file(tmp_path / f"{name}.safetensors") for name in ("a", "b"))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".h5", ".caffemodel"])
def test_a_folder_that_is_not_there(suffix: str, tmp_path: Path) -> None:
    with pytest.raises(FileProblem, match="cannot be written"):
        transfer(LENET.with_suffix(".caffemodel"), tmp_path / f"none/w{suffix}", Options(net=LENET.with_suffix(".prototxt")))


def test_shapes_that_differ_are_both_named(base: Path, tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(FINE.replace("OWN", "base").replace("OUT", "5"))
    says = r"'fc_base': blob 0 is \[7, 48\] in the file, \[5, 48\] in the net"
    with pytest.raises(WeightsError, match=says):
        transfer(base, tmp_path / "out.h5", Options(net=tmp_path / "net.prototxt"))
    assert not (tmp_path / "out.h5").exists()
    with pytest.raises(WeightsError, match=r"'fc_base': blob 0 \(weight\) has shape \[7, 48\], in the net \[5, 48\]"):
        converters.load(tmp_path / "net.prototxt", weights=base)


def test_a_safetensors_fits_too(tmp_path: Path) -> None:
    net = converters.load(LENET.with_suffix(".prototxt"), weights=LENET.with_suffix(".caffemodel"))
    net.save(tmp_path / "w.safetensors")
    fitted = fit(net.graph, tmp_path / "w.safetensors")
    assert (fitted.loaded, fitted.kept, fitted.unused) == (tuple(net.params()), (), ())
    assert fitted.stored == fitted.shapes


# Channels and means ---------------------------------------------------------------------------------------------------


def net_of(first: str, tmp_path: Path) -> Path:
    """A net whose first layers read images, with random weights, as a caffemodel that carries it."""
    text = f'input: "data" input_shape {{ dim: 2 dim: 3 dim: 7 dim: 6 }} {first} layer {{ name: "end" type: "ReLU" bottom: "t" top: "t" }}'
    torch.manual_seed(0)
    net = converters.load(prototxt.parse_text(text))
    for tensors in net.params().values():
        for tensor in tensors:
            tensor.detach().normal_()
    net.save(tmp_path / "net.caffemodel")
    return tmp_path / "net.caffemodel"


CONV = 'layer { name: "c" type: "Convolution" bottom: "data" top: "t" convolution_param { num_output: 4 kernel_size: 3 EXTRA } }'
IP = 'layer { name: "ip" type: "InnerProduct" bottom: "data" top: "t" inner_product_param { num_output: 5 } }'
POOLED = (
    'layer { name: "p" type: "Pooling" bottom: "data" top: "q" pooling_param { kernel_size: 2 stride: 2 } } ' + CONV.replace('"data"', '"q"')
    + ' layer { name: "d" type: "InnerProduct" bottom: "data" top: "u" inner_product_param { num_output: 3 } }'
)  # fmt: skip


@pytest.mark.parametrize("first", [CONV, CONV.replace("EXTRA", "pad: 1 stride: 2"), IP, POOLED], ids=["conv", "padded", "ip", "pooled, two"])
def test_rgb_for_bgr(first: str, tmp_path: Path) -> None:
    path = net_of(first.replace("EXTRA", ""), tmp_path)
    transfer(path, tmp_path / "rgb.caffemodel", Options(rgb=True))
    x = torch.randn(2, 3, 7, 6)
    want, got = (converters.load(p).blobs({"data": d}) for p, d in ((path, x), (tmp_path / "rgb.caffemodel", x.flip(1))))
    for blob in got.keys() - {"data", "q"}:
        torch.testing.assert_close(got[blob], want[blob])
    transfer(tmp_path / "rgb.caffemodel", tmp_path / "back.caffemodel", Options(rgb=True))
    assert_same(values(tmp_path / "back.caffemodel"), values(path))


@pytest.mark.parametrize("mean", [(104.0, 117.0, 123.0), (100.0,)])
@pytest.mark.parametrize("first", [CONV.replace("EXTRA", "stride: 2"), IP], ids=["conv", "ip"])
def test_mean_and_scale_go_into_the_first_layer(first: str, mean: tuple[float, ...], tmp_path: Path) -> None:
    path = net_of(first, tmp_path)
    transfer(path, tmp_path / "raw.caffemodel", Options(mean=mean, scale=0.02))
    pixels = torch.rand(2, 3, 7, 6) * 255
    prepared = (pixels - torch.tensor(mean).view(1, -1, 1, 1)) * 0.02
    want, got = converters.load(path)(prepared), converters.load(tmp_path / "raw.caffemodel")(pixels)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("first", "says"),
    [
        (CONV.replace("EXTRA", "pad: 1"), "pads the image with zeros"),
        (CONV.replace("EXTRA", "bias_term: false"), "has no bias to take the mean up"),
        (CONV.replace("EXTRA", "group: 3").replace("num_output: 4", "num_output: 6"), "not those of an image"),
        ('layer { name: "b" type: "BatchNorm" bottom: "data" top: "s" } ' + CONV.replace('"data"', '"s"').replace("EXTRA", ""), "only Convolution"),
        (POOLED.replace("EXTRA", ""), "reads the image"),
    ],
    ids=["padding", "no bias", "groups", "between", "pooled"],
)
def test_a_mean_that_cannot_be_taken_up_is_refused(first: str, says: str, tmp_path: Path) -> None:
    path = net_of(first, tmp_path)
    with pytest.raises(WeightsError, match=says):
        transfer(path, tmp_path / "raw.caffemodel", Options(mean=(104.0, 117.0, 123.0)))
    with pytest.raises(WeightsError, match="must be finite"):
        transfer(path, tmp_path / "raw.caffemodel", Options(scale=math.nan))
    assert not (tmp_path / "raw.caffemodel").exists()


# Solver states --------------------------------------------------------------------------------------------------------

STATES = sorted((CORPUS / "formats").glob("state_*/*.solverstate*"))


@pytest.mark.parametrize("path", STATES, ids=lambda p: p.parent.name)
def test_states_hold_what_caffe_says(path: Path, tmp_path: Path) -> None:
    state = read_state(path)
    with np.load(path.parent / "expected.npz") as z:
        assert (state.iter, state.current_step, state.learned_net) == (int(z["iter"]), int(z["current_step"]), str(z["learned_net"]))
        assert len(state.history) == sum(key.startswith("history/") for key in z.files)
        for i, array in enumerate(state.history):
            np.testing.assert_array_equal(array, z[f"history/{i}"])
    write_state(tmp_path / path.name, state)
    assert _equal(read_state(tmp_path / path.name), state)
    if path.suffix == ".solverstate":
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()  # HDF5 stores times and free space, so not there


def _equal(a: SolverState, b: SolverState) -> bool:
    same = (a.iter, a.current_step, a.learned_net, len(a.history)) == (b.iter, b.current_step, b.learned_net, len(b.history))
    return same and all(np.array_equal(x, y) for x, y in zip(a.history, b.history, strict=True))


@pytest.mark.parametrize("name", ["cifar10_quick_v1", "cifar10_full_sigmoid", "lenet_v2"])
def test_real_states_are_those_recorded(name: str, models: Path, tmp_path: Path) -> None:
    path = models / f"extra/{name}.solverstate"
    want, state = json.loads((models / "extra/expected.json").read_text())[path.name], read_state(path)
    assert (state.iter, state.learned_net, state.current_step) == (want["iter"], want["learned_net"], want["current_step"] or 0)
    for array, recorded in zip(state.history, want["history"], strict=True):
        assert list(array.shape) == recorded["shape"]
        assert float(np.abs(array.astype(np.float64)).sum()) == pytest.approx(recorded["abs_sum"], rel=1e-6)
        np.testing.assert_allclose(array.reshape(-1)[: len(recorded["first"])], recorded["first"], rtol=1e-6)
    transfer(path, tmp_path / "s.solverstate.h5", Options())
    transfer(tmp_path / "s.solverstate.h5", tmp_path / "s.solverstate", Options())
    again = read_state(tmp_path / "s.solverstate")
    assert _equal(again, state)
    write_state(tmp_path / "t.solverstate", state)
    assert (tmp_path / "t.solverstate").read_bytes() == path.read_bytes()


SNAPSHOTS = sorted((CORPUS / "solvers").glob("*/snap_iter_10.solverstate*"))


@pytest.mark.parametrize("path", SNAPSHOTS, ids=lambda p: p.parent.name)
def test_a_state_becomes_an_optimizers_and_back(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Restored into a solver and written again at once: the bytes that Caffe wrote, or the same contents in HDF5; weights too."""
    work = shutil.copytree(path.parent, tmp_path / path.parent.name)
    monkeypatch.chdir(work)
    before, weights = read_state(path.name), values(Path(read_state(path.name).learned_net))
    solver = pycls.Solver("solver.prototxt", restore=path.name)
    written = solver.snapshot()
    assert written.name == path.name
    if path.suffix == ".solverstate":
        assert written.read_bytes() == path.read_bytes()
    assert _equal(read_state(written), before)
    assert_same(values(Path(before.learned_net)), weights)


def test_weights_and_states_do_not_mix(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="is the state of a solver"):
        transfer(STATES[0], tmp_path / "w.caffemodel", Options())
    with pytest.raises(WeightsError):
        transfer(LENET.with_suffix(".caffemodel"), tmp_path / "w.solverstate", Options())


def test_a_blob_that_hdf5_keeps_elsewhere_needs_the_net(tmp_path: Path) -> None:
    folder = CORPUS / "formats/weights_shared_hdf5"
    (source,) = folder.glob("*.h5")
    with pytest.raises(WeightsError, match="stored under the layer that shares it"):
        read_model(source)
    done = transfer(source, tmp_path / "w.caffemodel", Options(net=next(folder.glob("*.prototxt"))))
    assert done.blobs > sum(len(layer) for layer in values(source).values()) - 1
    a, b = (converters.load(next(folder.glob("*.prototxt")), weights=p) for p in (source, tmp_path / "w.caffemodel"))
    for name, tensors in a.params().items():
        assert all(x.equal(y) for x, y in zip(tensors, b.params()[name], strict=True))
