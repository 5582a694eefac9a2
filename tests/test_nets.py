"""The nets that ship: published parameter counts, golden complexity, and torchvision's own where it has the same architecture."""

from __future__ import annotations

import json
from collections.abc import Iterator
from math import prod
from pathlib import Path

import pytest
import torch
import torchvision
from conftest import ROOT
from torch import nn

import converters
from converters.samples import sample_inputs

NETS = sorted((ROOT / "prototxt/nets").glob("*.prototxt"))
PUBLISHED = {  # learned parameters
    "lenet": 431_080,
    "cifar10_quick": 145_578,
    "alexnet": 60_965_224,
    "vgg16": 138_357_544,
    "googlenet": 6_998_552,
    "resnet20": 272_474,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "squeezenet_v1.1": 1_235_496,
    "mobilenet_v1": 4_231_976,
    "attention56": 31_810_728,
    "attention92": 52_466_344,
}
LARGE = ("alexnet", "attention92", "vgg16", "resnet101", "resnet152")  # built in one test below, or not at all


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_parameter_counts(name: str) -> None:
    graph = converters.resolve(ROOT / f"prototxt/nets/{name}.prototxt")
    learned = sum(prod(p.blob.shape) for step in graph.steps for p in step.params if p.owner is None and p.blob.learned)
    assert learned == PUBLISHED[name]


def test_complexity_is_golden() -> None:
    golden = json.loads((ROOT / "tests/golden/complexity.json").read_text())
    assert {path.stem for path in NETS} == set(golden)
    for path in NETS:
        graph = converters.resolve(path)
        outputs = {blob: list(graph.blob_shapes[blob]) for blob in graph.outputs}
        now = {"layers": len(graph.steps), "parameters": graph.parameters, "macs": graph.macs, "outputs": outputs}
        assert now == golden[path.stem], f"{path.stem}: if this is meant, run python scripts/golden.py --update"


@pytest.mark.parametrize("path", [p for p in NETS if p.stem not in LARGE], ids=lambda p: p.stem)
def test_every_net_runs_with_another_batch(path: Path) -> None:
    torch.manual_seed(0)
    net = converters.load(path, phase="TRAIN")  # fresh BatchNorm statistics are 0, and a TEST pass would divide by them
    with torch.no_grad():
        blobs = net.blobs(sample_inputs(net.graph, batch=2))
    for blob in net.graph.outputs:
        shape = net.graph.blob_shapes[blob]
        assert blobs[blob].shape == ((2, *shape[1:]) if shape else shape)
        assert blobs[blob].isfinite().all()


@pytest.mark.parametrize("name", ["multi_label", "multi_task"])
def test_examples_deploy_by_stage(name: str) -> None:
    net = converters.load(ROOT / f"prototxt/nets/{name}.prototxt", stages=("deploy",))
    assert net.graph.inputs == ("data",)
    assert len(net.graph.outputs) == (1 if name == "multi_label" else 4)


# Beside torchvision ---------------------------------------------------------------------------------------------------


def learned(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Convolutions, BatchNorms and linear layers in the order of their definition."""
    return ((n, m) for n, m in module.named_modules() if isinstance(m, (nn.Conv2d, nn.BatchNorm2d, nn.Linear)))


def blobs_of(module: nn.Module) -> list[list[torch.Tensor]]:
    """What one module of torchvision holds, as Caffe's layers hold it: BatchNorm becomes BatchNorm and Scale."""
    if isinstance(module, nn.BatchNorm2d):
        statistics = [module.running_mean, module.running_var, torch.ones(1)]
        return [statistics, [module.weight, module.bias]]
    return [[module.weight] if module.bias is None else [module.weight, module.bias]]


def randomised(module: nn.Module) -> nn.Module:
    """The module in eval mode with statistics and shifts that are not the initial ones."""
    torch.manual_seed(7)
    for m in module.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.normal_(0, 0.1)
            m.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(m.weight, 0.5, 1)
            nn.init.normal_(m.bias, 0, 0.1)
    return module.eval()


def resnet(name: str) -> nn.Module:
    """torchvision's net as the paper's Caffe models have it: the stride in the first 1 x 1 convolution, pooling rounded up."""
    module = getattr(torchvision.models, name)(weights=None)
    module.maxpool = nn.MaxPool2d(3, 2, ceil_mode=True)
    for block in module.modules():
        if isinstance(block, torchvision.models.resnet.Bottleneck):
            block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride
    return module


def resnet_order(module: nn.Module) -> list[nn.Module]:
    """torchvision registers a block's shortcut last, the prototxts name it first."""

    def key(item: tuple[str, nn.Module]) -> tuple[object, ...]:
        parts = item[0].split(".")
        if not parts[0].startswith("layer"):
            return (0 if parts[0] in ("conv1", "bn1") else 9,)
        return (int(parts[0][5:]), int(parts[1]), 0 if parts[2] == "downsample" else 1)

    return [m for _, m in sorted(learned(module), key=key)]


@pytest.mark.parametrize(
    ("name", "logits", "make", "order", "size"),
    [
        ("resnet50", "fc1000", lambda: resnet("resnet50"), resnet_order, 224),
        ("resnet101", "fc1000", lambda: resnet("resnet101"), resnet_order, 64),
        ("resnet152", "fc1000", lambda: resnet("resnet152"), resnet_order, 64),
        ("squeezenet_v1.1", "pool10", lambda: torchvision.models.squeezenet1_1(weights=None), lambda m: [x for _, x in learned(m)], 227),
        ("vgg16", "fc8", lambda: torchvision.models.vgg16(weights=None), lambda m: [x for _, x in learned(m)], 224),
    ],
    ids=lambda v: v if isinstance(v, str) else None,
)
def test_equals_torchvision(name: str, logits: str, make, order, size: int) -> None:
    """The same random weights in both; the outputs before the softmax agree."""
    theirs = randomised(make())
    ours = converters.load(ROOT / f"prototxt/nets/{name}.prototxt")
    theirs_blobs = [blobs for m in order(theirs) for blobs in blobs_of(m)]
    layers = list(ours.params())
    assert len(layers) == len(theirs_blobs)
    ours.load(dict(zip(layers, theirs_blobs, strict=True)))
    image = torch.randn(1, 3, size, size)
    with torch.no_grad():
        want = theirs(image)
        got = ours.blobs({"data": image})[logits].flatten(1)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4 * float(want.abs().max()))
