"""to_caffe: what is written converts back to the same outputs; what BVLC Caffe cannot say is refused with its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from conftest import CORPUS, ROOT, Decant
from torch import Tensor, nn

import converters
from converters.samples import sample_inputs
from prototxt import DecantError, FileProblem, NetError
from prototxt.net import read_net

BVLC = {p.name for p in (CORPUS / "layers").iterdir()} | {"Input", "Silence"}
FORKS = {"Permute", "PriorBox", "DetectionOutput", "DetectionEvaluate", "MultiBoxLoss", "SmoothL1Loss", "Normalize"}


def written(module: nn.Module, path: Path, *example: Tensor) -> Any:
    """Write, check that only BVLC's layers are there, and that what is read back is equal on other values and another batch size."""
    for name, value in module.state_dict().items():
        if "running_var" in name:
            value.uniform_(0.5, 2)
        elif "running_mean" in name:
            value.normal_(0, 0.1)
    files = converters.to_caffe(module, example, path)
    assert files, files.error
    types = [layer.type for layer in read_net(files.prototxt).layers]
    assert set(types) <= BVLC - FORKS
    net = converters.load(files.prototxt, weights=files.caffemodel)
    other = [torch.randn(2 * x.shape[0], *x.shape[1:]) for x in example]
    with torch.no_grad():
        want = module.eval()(*other)
        got = net.blobs(dict(zip([t for layer in net.graph.data_layers for t in layer.tops], other, strict=True)))
    flat = want if isinstance(want, (tuple, list)) else [want]
    for name, tensor in zip(files.outputs, flat, strict=True):
        torch.testing.assert_close(got[name], tensor, rtol=1e-4, atol=1e-5 * float(tensor.abs().max()))
    return types


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(4)


@pytest.mark.parametrize(
    ("name", "size"),
    [("resnet18", 161), ("resnet50", 65), ("mobilenet_v2", 97), ("squeezenet1_0", 97), ("mobilenet_v3_small", 65), ("densenet121", 65)],
)
def test_models_of_torchvision(name: str, size: int, tmp_path: Path) -> None:
    written(getattr(torchvision.models, name)(weights=None), tmp_path / "net", torch.randn(1, 3, size, size))


def test_a_vgg_and_a_googlenet(tmp_path: Path) -> None:
    features = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["A"], batch_norm=True)
    written(nn.Sequential(features, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(2048, 10)), tmp_path / "vgg", torch.randn(1, 3, 64, 64))
    written(torchvision.models.googlenet(weights=None, init_weights=False, num_classes=11), tmp_path / "google", torch.randn(1, 3, 65, 65))


class Arithmetic(nn.Module):
    """Sums and products of every kind."""

    def __init__(self) -> None:
        super().__init__()
        self.gain, self.offset = nn.Parameter(torch.rand(1, 4, 1, 1)), nn.Parameter(torch.rand(5, 6))
        self.squeeze = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        gate = self.squeeze(x.mean((2, 3))).sigmoid().view(-1, 4, 1, 1)
        a, b = x.chunk(2, 1)
        return (
            x * gate + 1.5 * x - x / 3,
            2 - x,
            x * self.gain + self.offset,
            x - gate,
            x / gate,
            torch.maximum(a, -b),
            (x.abs() + 1).log().exp().sqrt() ** 3,
            x[:, 1:3, :, 2:],
            x.sum((1, 2, 3)),
            x.mean(-1, keepdim=True),
            torch.cat((a, b, a), 2),
            F.softmax(x, 1),
            F.log_softmax(x, -1),
            F.hardswish(x) + F.hardsigmoid(x) + F.relu6(3 * x) + F.elu(x) + F.silu(x) + F.leaky_relu(x, 0.2) + x.clamp(-0.5, 0.25) + x.clamp(min=0),
            F.interpolate(x, scale_factor=2),
            torch.add(input=torch.relu(input=x), other=torch.clamp(input=x, min=-1.0, max=0.5), alpha=1) / torch.tensor(2.0),
            x.sum(axis=-1),
        )


def test_arithmetic(tmp_path: Path) -> None:
    written(Arithmetic(), tmp_path / "net", torch.randn(2, 4, 5, 6))


LAYERS = [
    nn.Sequential(nn.Conv2d(6, 4, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2), groups=2, bias=False), nn.PReLU(4), nn.PReLU()),
    nn.Sequential(nn.ConvTranspose2d(6, 4, (3, 2), stride=2, padding=(1, 0), groups=2), nn.BatchNorm2d(4, affine=False), nn.Softplus()),
    nn.Sequential(nn.Conv2d(6, 4, 3, padding="same"), nn.LocalResponseNorm(3), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(4, 5), nn.Softmax(1)),
    nn.Sequential(nn.AdaptiveAvgPool2d((3, 4)), nn.Dropout(), nn.LeakyReLU(0.3), nn.Linear(4, 7), nn.Tanh()),
    nn.Sequential(nn.Upsample(scale_factor=(2, 3)), nn.Hardtanh(-1, 0.5), nn.BatchNorm2d(6, eps=0.01)),
]


@pytest.mark.parametrize("module", LAYERS, ids=lambda m: type(m[0]).__name__)
def test_layers(module: nn.Module, tmp_path: Path) -> None:
    written(module, tmp_path / "net", torch.randn(2, 6, 9, 8))


@pytest.mark.parametrize("method", ["max", "avg"])
def test_pooling_of_every_rounding(method: str, tmp_path: Path) -> None:
    """Every kernel, stride and padding, on sizes that round both ways: nothing but what torch gives."""
    cls: Any = nn.MaxPool2d if method == "max" else nn.AvgPool2d
    for kernel, stride, pad in [(2, 2, 0), (3, 2, 0), (3, 2, 1), (2, 3, 0), (3, 3, 1), (1, 2, 0), (5, 2, 2), ((3, 2), (2, 1), (1, 0))]:
        for ceil in (False, True):
            for size in ((7, 8), (9, 6)):
                module = cls(kernel, stride, pad, ceil_mode=ceil)
                files = converters.to_caffe(module, torch.randn(1, 2, *size), tmp_path / "net")
                assert files, (kernel, stride, pad, ceil, size)
    files = converters.to_caffe(cls(3, 2, 1), torch.randn(1, 2, 8, 8), tmp_path / "net")
    types = [layer.type for layer in read_net(files.prototxt).layers]
    assert types == ["Input", "Pooling", "Slice", "Silence", "Slice", "Silence"], "the window too many is cut off again, on both axes"


@pytest.mark.parametrize("name", ["lenet", "multi_label", "multi_task", "squeezenet_v1.1"])
def test_nets_that_ship_go_back(name: str, tmp_path: Path) -> None:
    net = converters.load(ROOT / f"prototxt/nets/{name}.prototxt")
    assert converters.to_caffe(net.module, list(sample_inputs(net.graph).values()), tmp_path / "net")


@pytest.mark.parametrize("name", ["lenet-deploy", "awkward-names", "v1-classifier"])
def test_converted_nets_go_back(name: str, tmp_path: Path) -> None:
    net = converters.load(CORPUS / f"nets/{name}.prototxt", weights=CORPUS / f"nets/{name}.caffemodel")
    with np.load(CORPUS / f"nets/{name}.npz") as z:
        example = [torch.from_numpy(z[f"input/{blob}"]) for blob in net.graph.inputs]
    assert converters.to_caffe(net.module, example, tmp_path / "net")


def test_every_layer_of_the_corpus_goes_back_or_is_refused(tmp_path: Path) -> None:
    """The first and the last case of each type."""
    kept, refused = set(), set()
    for folder in sorted((CORPUS / "layers").iterdir()):
        cases = [p for p in sorted(folder.glob("*.prototxt")) if p.with_suffix(".npz").exists()]
        for path in {cases[0], cases[-1]} if cases else ():
            weights = path.with_suffix(".caffemodel")
            try:
                net = converters.load(path, weights=weights if weights.exists() else None)
            except DecantError:
                continue  # a defect of Caffe's, refused
            with np.load(path.with_suffix(".npz")) as z:
                example = [torch.from_numpy(z[f"input/{blob}"]) for blob in net.graph.inputs]
            if not net.graph.outputs or not example:
                continue
            try:
                assert converters.to_caffe(net.module, example, tmp_path / "net"), path
                kept.add(folder.name)
            except NetError:
                refused.add(folder.name)
    losses = {name for name in refused if name.endswith("Loss")}
    assert refused - losses - FORKS == {"BatchReindex", "DummyData", "Filter", "Parameter"} & refused  # of constants, or of a size that values tell
    assert losses <= {"InfogainLoss", "MultiBoxLoss", "SmoothL1Loss"}
    assert len(kept) >= 48


class Attention(nn.Module):
    """Two things that Caffe has no layers for, inside of a part with a name."""

    def __init__(self) -> None:
        super().__init__()
        self.act = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(x) @ x.transpose(1, 2)


def test_all_that_cannot_be_said_is_named_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(NetError) as caught:
        converters.to_caffe(nn.Sequential(nn.Conv1d(3, 3, 1), Attention()), torch.randn(1, 3, 4), tmp_path / "net")
    text = str(caught.value)
    assert "1.act (GELU): BVLC Caffe has ReLU" in text
    assert "transpose in 1)" in text
    assert "matmul" in text
    assert not list(tmp_path.iterdir())


class Forward(nn.Module):
    """A forward of one expression."""

    def __init__(self, forward: Any) -> None:
        super().__init__()
        self.expression = forward

    def forward(self, x: Tensor) -> Any:
        return self.expression(x)


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (nn.AvgPool2d(3, 2, 1, count_include_pad=False), "set it to True"),
        (nn.Upsample(scale_factor=2, mode="bilinear"), "differs at the borders"),
        (nn.AdaptiveAvgPool2d(4), "a multiple"),
        (nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect"), "pads with zeros"),
        (nn.LayerNorm(6), "use BatchNorm2d"),
        (nn.LocalResponseNorm(4), "odd size"),
        (nn.BatchNorm2d(3, track_running_stats=False), "running"),
        (Forward(lambda x: torch.relu(x) + x.mT), r"getattr_1 \(mT\): BVLC Caffe cannot reorder axes"),
        (Forward(lambda x: x.relu().data + x.real), r"\(data\)(.|\n)*\(real\)"),
        (Forward(lambda x: x / 0), "divides by zero"),
        (Forward(lambda x: torch.clamp(x, min=x.abs())), "takes a blob where"),
        (Forward(lambda x: None), "no output"),
        (Forward(lambda x: x.abs().neg().log()), "'log' has no finite value"),
    ],
    ids=lambda v: type(v).__name__,
)
def test_the_way_out_is_told(module: nn.Module, words: str, tmp_path: Path) -> None:
    with pytest.raises(NetError, match=words):
        converters.to_caffe(module, torch.randn(1, 3, 6, 6), tmp_path / "net")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("example", [torch.randn(2, 3, 4, 4), torch.ones(2, 3, 4, 4)])
def test_what_is_a_constant_of_the_example_shows(example: Tensor, tmp_path: Path) -> None:
    """Numbers drawn in the forward are constants of the trace; other values of the input, and another draw, tell."""
    module = Forward(lambda x: x.mul(torch.rand(4, 4)))
    assert not converters.to_caffe(module, example, tmp_path / "net")


def test_both_files_are_written_or_none(tmp_path: Path) -> None:
    (tmp_path / "net.caffemodel").mkdir()
    with pytest.raises(FileProblem, match="is a folder"):
        converters.to_caffe(nn.ReLU(), torch.randn(2, 3), tmp_path / "net")
    assert not (tmp_path / "net.prototxt").exists()


def test_outputs_that_are_inputs_or_read_too_are_outputs(tmp_path: Path) -> None:
    class Taps(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            return x.relu(), x, x.relu().sum(1)

    files = converters.to_caffe(Taps(), torch.randn(2, 3), tmp_path / "net")
    assert files
    assert set(converters.resolve(files.prototxt).outputs) == set(files.outputs)


def test_what_is_overwritten_is_read_as_it_is_then(tmp_path: Path) -> None:
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.relu = nn.Conv2d(3, 3, 1), nn.ReLU(inplace=True)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            z = self.relu(y) * 2
            z += x
            return y + z + z.relu_()

    assert converters.to_caffe(InPlace(), torch.randn(2, 3, 4, 5), tmp_path / "net.prototxt")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.caffemodel", "net.prototxt"]


def test_a_converted_net_keeps_the_names_of_its_layers(tmp_path: Path) -> None:
    net = converters.load(CORPUS / "nets/awkward-names.prototxt")
    files = converters.to_caffe(net, list(sample_inputs(net.graph).values()), tmp_path / "net")
    kept = {layer.name for layer in read_net(files.prototxt).layers}
    assert {step.name for step in net.graph.steps if step.params} <= kept


CROSSED = """name: "Crossed" input: "data" input_shape { dim: 2 dim: 3 dim: 8 dim: 8 }
layer { name: "a/b.c" type: "Convolution" bottom: "data" top: "a/b.c"
  convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "r" type: "ReLU" bottom: "a/b.c" top: "a/b.c" }
layer { name: "ip" type: "InnerProduct" bottom: "a/b.c" top: "class" inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }
layer { name: "class" type: "Softmax" bottom: "class" top: "lambda" }
layer { name: "drop" type: "Dropout" bottom: "lambda" top: "dropped" }
layer { name: "s" type: "Sigmoid" bottom: "a/b.c" top: "s" } layer { name: "t" type: "TanH" bottom: "s" top: "s" }
"""


def test_a_prototxt_keeps_the_names_of_its_outputs_and_of_the_net(tmp_path: Path) -> None:
    from converters.caffe_export.source import named

    (tmp_path / "deploy.prototxt").write_text(CROSSED)
    net, example = named(str(tmp_path / "deploy.prototxt"), None, {})
    files = converters.to_caffe(net, example, tmp_path / "again")
    assert files
    assert set(files.outputs) == set(converters.resolve(files.prototxt).outputs) == {"dropped", "s"}
    again = read_net(files.prototxt)
    assert again.name == "Crossed"
    layers = {layer.name: tuple(layer.spec.top) for layer in again.layers}
    assert layers == {"input": ("data",), "a/b.c": ("a/b.c",), "r": ("r",), "ip": ("class",), "class": ("lambda",), "dropped": ("dropped",)} | {
        "s": ("s_2",), "t": ("s",)
    }  # fmt: skip


def test_a_forward_that_branches_cannot_be_traced(tmp_path: Path) -> None:
    class Branches(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(NetError, match="must not branch"):
        converters.to_caffe(Branches(), torch.randn(1, 3), tmp_path / "net")


def test_the_mode_of_each_part_is_left_as_it_was(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2))
    module[1].eval()
    converters.to_caffe(module, torch.randn(1, 3, 4, 4), tmp_path / "net")
    assert [m.training for m in module.modules()] == [True, True, False]


def test_the_command(decant: Decant, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("from torch import nn\ndef net():\n    return nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU())\n")
    done = decant("to-caffe", "mine:net", "out", "--shape", "x=1,3,8,8", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["error"] <= 1e-5
    assert "Convolution" in (tmp_path / "out.prototxt").read_text()


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("no_such_module:net", "No module"),
        ("torch.nn:Nothing", "Nothing"),
        ("torch.nn:ReLU", "--shape x="),
        ("mine", "module:callable"),
        ("builtins:dict", "dict"),
        (":x", "module name"),
        ("torch.nn:Linear", "TypeError"),
        ("os:environ.popitem.__self__.nothing", "nothing"),
        ("torch.nn.functional:relu", "relu"),
        ("empty.prototxt", "the file is empty"),
    ],
)
def test_a_source_that_is_none(source: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from converters.caffe_export.source import named

    monkeypatch.chdir(tmp_path)
    Path("empty.prototxt").touch()
    with pytest.raises(DecantError, match=words):
        named(source, None, {})
    with pytest.raises(NetError, match="x=-1,3: each of an input's sizes"):
        named("torch.nn:ReLU", None, {"x": (-1, 3)})
