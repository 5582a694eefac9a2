"""Faults that people make when they port a net, planted one at a time: the report names each, and names none where nets agree."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import CORPUS
from torch import Tensor, nn

import converters
from converters.comparison.engine import compare
from converters.comparison.replay import apart
from converters.comparison.runners.user import user_runner
from converters.net import CaffeNet
from prototxt import parse_text

# In-place layers as most nets have them, so that a blob is often made by several layers; every axis of another size.
NET = """
name: "planted" input: "data" input_shape { dim: 2 dim: 3 dim: 21 dim: 24 }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1" convolution_param { num_output: 8 kernel_size: 3 } }
layer { name: "bn1" type: "BatchNorm" bottom: "conv1" top: "conv1" batch_norm_param { eps: 1e-5 use_global_stats: true } }
layer { name: "scale1" type: "Scale" bottom: "conv1" top: "conv1" scale_param { bias_term: true } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "relu1" }
layer { name: "sum" type: "Eltwise" bottom: "conv1" bottom: "relu1" top: "sum" }
layer { name: "pool1" type: "Pooling" bottom: "sum" top: "pool1" pooling_param { kernel_size: 3 stride: 2 } }
layer { name: "norm1" type: "LRN" bottom: "pool1" top: "norm1" lrn_param { local_size: 5 alpha: 0.05 beta: 0.75 } }
layer { name: "conv2" type: "Convolution" bottom: "norm1" top: "conv2" convolution_param { num_output: 12 kernel_size: 3 group: 2 } }
layer { name: "relu2" type: "ReLU" bottom: "conv2" top: "conv2" }
layer { name: "pool2" type: "Pooling" bottom: "conv2" top: "pool2" pooling_param { pool: AVE kernel_size: 3 stride: 3 pad: 1 } }
layer { name: "map" type: "Softmax" bottom: "pool2" top: "map" }
layer { name: "depth" type: "DepthwiseConvolution" bottom: "pool2" top: "depth" convolution_param { num_output: 12 kernel_size: 1 } }
layer { name: "up" type: "Deconvolution" bottom: "pool2" top: "up" convolution_param { num_output: 2 kernel_size: 2 } }
layer { name: "bns" type: "BatchNorm" bottom: "pool2" top: "bns" batch_norm_param { eps: 1e-5 scale_bias: true } }
layer { name: "fc1" type: "InnerProduct" bottom: "pool2" top: "fc1" inner_product_param { num_output: 10 } }
layer { name: "fc2" type: "InnerProduct" bottom: "fc1" top: "fc2" inner_product_param { num_output: 10 } }
layer { name: "drop" type: "Dropout" bottom: "fc2" top: "fc2" }
layer { name: "fc3" type: "InnerProduct" bottom: "fc2" top: "fc3" inner_product_param { num_output: 7 } }
"""


def planted() -> CaffeNet:
    """The net with seeded weights that matter: no layer is nearly the identity."""
    net = converters.load(parse_text(NET))
    generator = torch.Generator().manual_seed(5)
    for name, blobs in net.params().items():
        for i, blob in enumerate(blobs):
            with torch.no_grad():
                blob.copy_(torch.randn(blob.shape, generator=generator) * 0.3)
                if name == "bn1":
                    blob.copy_([blob * 40, blob.abs() * 4e2 + 1e-3, torch.full((1,), 37.0)][i])
                if name == "bns":
                    blob.copy_([blob, blob.abs() + 1e-3, torch.ones(1), blob, blob][i])
    net.module.eval()
    return net


def function(run: Callable[[Tensor], Tensor]) -> nn.Module:
    """A module of a function."""

    class Function(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return run(x)

    return Function()


def batch_norm(eps: float, by: float) -> Callable[[nn.Module], nn.Module]:
    def made(old: nn.Module) -> nn.Module:
        new = nn.BatchNorm2d(8, eps=eps, affine=False)
        new.running_mean, new.running_var = old.mean / by, old.variance / by
        return new.eval()

    return made


def by_hand_lrn(old: nn.Module) -> nn.Module:
    """alpha times the sum, not the mean."""

    def run(x: Tensor) -> Tensor:
        y = torch.empty_like(x)
        for c in range(x.shape[1]):
            window = x[:, max(0, c - 2) : c + 3]
            y[:, c] = x[:, c] / (1 + 0.05 * window.square().sum(1)) ** 0.75
        return y

    return function(run)


def striped_groups(old: nn.Conv2d) -> nn.Module:
    """Filter o reads the channels of group o % 2, as if groups were interleaved."""

    def run(x: Tensor) -> Tensor:
        halves = x.chunk(2, 1)
        return torch.cat([F.conv2d(halves[o % 2], old.weight[o : o + 1], old.bias[o : o + 1]) for o in range(12)], 1)

    return function(run)


def tf32(old: nn.Conv2d) -> nn.Module:
    """A convolution of factors with 10 bits."""

    def cut(t: Tensor) -> Tensor:
        mantissa, exponent = np.frexp(t.detach().numpy())
        return torch.from_numpy(np.ldexp(np.round(mantissa * 2048) / 2048, exponent).astype(np.float32))

    return function(lambda x: F.conv2d(cut(x), cut(old.weight), old.bias, groups=old.groups))


def half(kind: torch.dtype) -> Callable[[nn.Module], nn.Module]:
    def made(old: nn.Module) -> nn.Module:
        low = nn.Conv2d(8, 12, 3, groups=2).to(kind)
        low.load_state_dict(old.state_dict())
        return function(lambda x: low(x.to(kind)).float())

    return made


def transposed(square: bool) -> Callable[[nn.Linear], nn.Module]:
    def made(old: nn.Linear) -> nn.Module:
        out, fan_in = old.weight.shape
        wrong = old.weight.detach().reshape(fan_in, out)  # read as [in, out]
        return function(lambda x: x.flatten(1) @ wrong + old.bias)

    return made


MODULES: dict[str, tuple[str, str, Callable[..., nn.Module]]] = {  # what is planted: the layer, the cause to be named, the module in its place
    "pooling rounds down": ("pool1", "pooling rounding", lambda old: nn.MaxPool2d(3, 2)),
    "an average without its padding": ("pool2", "average divisor", lambda old: nn.AvgPool2d(3, 3, 1, ceil_mode=True, count_include_pad=False)),
    "an average that rounds down": ("pool2", "pooling rounding", lambda old: nn.AvgPool2d(3, 3, 1)),
    "BatchNorm without its third blob": ("bn1", "BatchNorm factor blob", batch_norm(1e-5, 1.0)),
    "BatchNorm with Keras's eps": ("bn1", "BatchNorm eps", batch_norm(1e-3, 37.0)),
    "BatchNorm left training": ("bn1", "BatchNorm in training mode", lambda old: function(lambda x: F.batch_norm(x, None, None, training=True))),
    "no Scale": ("scale1", "missing Scale", lambda old: nn.Identity()),
    "LRN with AlexNet's k": ("norm1", "LRN k", lambda old: nn.LocalResponseNorm(5, 0.05, 0.75, k=2.0)),
    "LRN by the sum": ("norm1", "LRN alpha/n", by_hand_lrn),
    "dropout at test time": ("drop", "dropout left on", lambda old: function(lambda x: F.dropout(x, 0.5, training=True))),
    "a square weight transposed": ("fc2", "transposed InnerProduct", transposed(True)),
    "a weight read as [in, out]": ("fc3", "transposed InnerProduct", transposed(False)),
    "a map flattened as H, W, C": ("fc1", "InnerProduct flattening order",
                                  lambda old: function(lambda x: F.linear(x.permute(0, 2, 3, 1).flatten(1), old.weight, old.bias))),
    "striped groups": ("conv2", "grouped weights", striped_groups),
    "float16": ("conv2", "half precision", half(torch.float16)),
    "bfloat16": ("conv2", "half precision", half(torch.bfloat16)),
    "TF32": ("conv2", "TF32", tf32),
    "softmax over the columns": ("map", "softmax axis", lambda old: nn.Softmax(-1)),
    "a fused BatchNorm with Keras's eps": ("bns", "BatchNorm eps",
                                           lambda old: function(lambda x: F.batch_norm(x, old.mean, old.variance, old.weight, old.bias, eps=1e-3))),
    "a depthwise convolution without bias": ("depth", "bias lost", lambda old: function(lambda x: F.conv2d(x, old.weight, groups=12))),
    "a deconvolution without bias": ("up", "bias lost", lambda old: function(lambda x: F.conv_transpose2d(x, old.weight))),
    "no bias": ("fc1", "bias lost", lambda old: function(lambda x: F.linear(x.flatten(1), old.weight))),
}  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_a_planted_fault_is_named(name: str) -> None:
    layer, cause, make = MODULES[name]
    right, wrong = planted(), planted()
    wrong.module.set_submodule(layer, make(wrong.module.get_submodule(layer)))
    report = compare(wrong, right, {"data": torch.randn(2, 3, 21, 24, generator=torch.Generator().manual_seed(1)).numpy()})
    assert not report
    assert report.divergence is not None
    assert (report.divergence.cause, report.divergence.layer, report.divergence.side) == (cause, layer, "a"), report.text()
    assert report.divergence.fix
    other = compare(right, wrong, None)  # the reference may be the one at fault
    assert (other.divergence.cause, other.divergence.side) == (cause, "b"), other.text()


FRONTS: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {  # what the port does to its input
    "RGB": ("BGR order", lambda x: x[:, [2, 1, 0]]),
    "the mean is not subtracted": ("mean lost", lambda x: x + torch.tensor([104.0, 117.0, 123.0]).view(1, 3, 1, 1)),
    "0..1 for 0..255": ("scale lost", lambda x: x / 255),
    "mean and scale": ("mean and scale lost", lambda x: (x - 127.5) * 0.0078125),
    "RGB without its mean": ("BGR order and mean lost", lambda x: x[:, [2, 1, 0]] + 128),
}


class Front(nn.Module):
    """A port of the net with something in front."""

    def __init__(self, net: CaffeNet, front: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.net, self.front = net.module, front

    def forward(self, x: Tensor) -> Tensor:
        return self.net(self.front(x))


@pytest.mark.parametrize("seen", ["conv1", "pool1"])
@pytest.mark.parametrize("name", FRONTS)
def test_what_happened_to_the_input_is_named(name: str, seen: str) -> None:
    """Also where the first blob that both show lies behind layers that are not linear: then from the values in common use."""
    cause, front = FRONTS[name]
    if seen == "pool1" and "BGR order and" in cause:
        pytest.skip("two causes at once, behind a maximum")
    net = planted()
    ours = {"conv1": "net.scale1", "sum": "net.sum", "pool1": "net.pool1"}
    runner = user_runner(Front(net, front), net.graph, {blob: path for blob, path in ours.items() if blob >= seen and blob != "sum"})
    images = np.random.default_rng(2).integers(0, 256, (2, 3, 21, 24)).astype(np.float32)
    report = compare(runner, planted(), {"data": images})
    assert report.divergence is not None
    assert report.divergence.cause == cause, report.text()


class Aliased(nn.Module):
    """A port whose ReLU writes over what the sum reads."""

    def __init__(self, net: CaffeNet) -> None:
        super().__init__()
        for key in ("conv1", "bn1", "scale1"):
            self.add_module(key, net.module.get_submodule(key))
        self.add = function(lambda pair: pair[0] + pair[1])

    def forward(self, x: Tensor) -> Tensor:
        x = self.scale1(self.bn1(self.conv1(x)))
        return self.add([x, F.relu_(x)])


def test_in_place_aliasing_is_named() -> None:
    net = planted()
    runner = user_runner(Aliased(net), net.graph, {"conv1@0": "conv1", "conv1@1": "bn1", "conv1": "scale1", "sum": "add"})
    report = compare(runner, net)
    assert report.divergence is not None
    assert (report.divergence.cause, report.divergence.blob) == ("in-place aliasing", "sum"), report.text()


NETS = sorted((CORPUS / "nets").glob("*@test.prototxt")) + [p for p in sorted((CORPUS / "nets").glob("*.prototxt")) if "@" not in p.stem]


def test_no_cause_is_named_where_nets_agree() -> None:
    """Real Caffe's recordings of whole nets: all agree, and nothing is suspected."""
    agreed = 0
    for path in NETS:
        recording = path.with_suffix(".npz")
        if not recording.exists() or not path.with_suffix(".caffemodel").exists():
            continue
        with np.load(recording) as z:
            phase = str(z["phase"])
        if phase != "TEST":
            continue
        report = compare(str(path), str(recording), weights=path.with_suffix(".caffemodel"))
        assert report, report.text()
        assert report.divergence is None
        agreed += 1
    assert agreed >= 50


def test_noise_gets_no_cause() -> None:
    """A difference that none of the causes makes stays without one."""
    right, wrong = planted(), planted()
    generator = torch.Generator().manual_seed(3)
    old = wrong.module.get_submodule("conv2")
    wrong.module.set_submodule("conv2", function(lambda x: old(x) + 0.05 * torch.randn(old(x).shape, generator=generator)))
    report = compare(wrong, right)
    assert report.divergence is not None
    assert report.divergence.cause == "", report.text()
    assert report.divergence.tried


@pytest.mark.parametrize(("got", "want"), [([1.0], [float("inf")]), ([float("inf")], [1.0]), ([float("nan")], [1.0]), ([1.0], [1.0, 2.0])])
def test_what_is_not_finite_is_infinitely_far(got: list[float], want: list[float]) -> None:
    assert apart(torch.tensor(got), torch.tensor(want)) == float("inf")
