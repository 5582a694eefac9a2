"""A converted net in the hands of torch: source, export, compile, DDP, state, heads; and names that try to be code."""

from __future__ import annotations

import copy
import io
import keyword
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import CORPUS
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import converters
from converters.names import identifiers
from converters.onnx_export import to_onnx
from converters.proof import import_source
from converters.samples import sample_inputs
from converters.source import to_source
from prototxt import DecantError
from prototxt.message import new

NETS = sorted((CORPUS / "nets").glob("*.prototxt"))
WHOLE = [
    "lenet-deploy",
    "alexnet-mini",
    "googlenet-two-losses",
    "resnet-mini@test",
    "unet-mini",
    "mobilenet-mini@test",
    "squeeze-excite",
    "mtcnn-heads",
]


def load(stem: str) -> converters.CaffeNet:
    path = CORPUS / f"nets/{stem}.prototxt"
    weights = path.with_suffix(".caffemodel")
    return converters.load(path, weights=weights if weights.exists() else None)


def outputs(module: nn.Module, net: converters.CaffeNet, batch: int | None = None) -> dict[str, torch.Tensor]:
    made = module(*sample_inputs(net.graph, batch).values())
    return made if isinstance(made, dict) else {net.graph.outputs[0]: made}


def assert_same(got: dict[str, torch.Tensor], want: dict[str, torch.Tensor], **tolerance: float) -> None:
    assert got.keys() == want.keys()
    for blob, value in want.items():
        torch.testing.assert_close(got[blob], value, **tolerance)  # type: ignore[arg-type]


@pytest.mark.parametrize("path", NETS, ids=lambda p: p.stem)
def test_generated_source_gives_the_same_bits(path: Path, tmp_path: Path) -> None:
    try:
        net = load(path.stem)
    except DecantError as refused:
        pytest.skip(f"refused by name: {refused}")
    (tmp_path / "net.py").write_text(to_source(net))
    net.save(tmp_path / "net.safetensors")
    generated = import_source(tmp_path / "net.py").load(str(tmp_path / "net.safetensors"))
    for seed in (1, 2):
        torch.manual_seed(seed)
        want = outputs(net.module, net)
        torch.manual_seed(seed)
        assert_same(outputs(generated, net), want, rtol=0, atol=0)


@pytest.mark.parametrize("stem", WHOLE)
def test_exports_and_compiles(stem: str) -> None:
    net = load(stem)
    inputs = tuple(sample_inputs(net.graph).values())
    want = outputs(net.module, net)
    exported = torch.export.export(net.module, inputs).module()
    assert_same(outputs(exported, net), want, rtol=1e-5, atol=1e-5)
    compiled = torch.compile(net.module, fullgraph=True, backend="aot_eager")
    assert_same(outputs(compiled, net), want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("stem", WHOLE)
def test_onnx_takes_another_batch(stem: str, tmp_path: Path) -> None:
    from converters.comparison.runners import OnnxRuntimeRunner

    net = load(stem)
    written = to_onnx(net, tmp_path / "net.onnx")
    assert written.dynamic_batch
    feed = sample_inputs(net.graph, batch=3)
    got = OnnxRuntimeRunner(written.path)({name: value.numpy() for name, value in feed.items()})
    with torch.no_grad():
        want = outputs(net.module, net, batch=3)
    assert_same({k: torch.from_numpy(v) for k, v in got.items()}, want, rtol=1e-4, atol=1e-5)


def test_onnx_keeps_blob_names(tmp_path: Path) -> None:
    import onnx

    net = load("lenet-deploy")
    model = onnx.load(to_onnx(net, tmp_path / "net.onnx").path)
    values = {name for node in model.graph.node for name in node.output}
    assert set(net.graph.blob_shapes) - values - set(net.graph.inputs) == set()
    assert "/" not in str(model.metadata_props)


def test_state_survives_pickling() -> None:
    net = load("lenet-deploy")
    file = io.BytesIO()
    torch.save(net.module.state_dict(), file)
    file.seek(0)
    other = converters.load(CORPUS / "nets/lenet-deploy.prototxt")
    other.module.load_state_dict(torch.load(file, weights_only=True))
    assert_same(outputs(other.module, other), outputs(net.module, net), rtol=0, atol=0)
    assert_same(outputs(copy.deepcopy(net.module), net), outputs(net.module, net), rtol=0, atol=0)


def test_a_head_is_swapped_by_assignment() -> None:
    net = load("lenet-deploy")
    last = next(step for step in reversed(net.graph.steps) if step.type == "InnerProduct")
    setattr(net.module, last.key, nn.Linear(last.recipe.args["in_features"], 7))
    (made,) = outputs(net.module, net).values()
    assert made.shape[1] == 7
    made.square().sum().backward()
    assert net.module.get_submodule(last.key).weight.grad is not None


def _one_of_two(rank: int, port: int, result: str) -> None:
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    net = load("resnet-mini@test")
    inputs = [x.chunk(2)[rank] for x in sample_inputs(net.graph, batch=4).values()]
    wrapped = nn.parallel.DistributedDataParallel(net.module)
    made = wrapped(*inputs)
    made["loss"].backward()
    if rank == 0:
        torch.save({name: p.grad for name, p in net.module.named_parameters()}, result)
    dist.destroy_process_group()


def test_two_processes_give_the_gradients_of_one(tmp_path: Path) -> None:
    import socket

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    result = str(tmp_path / "gradients.pt")
    torch.multiprocessing.spawn(_one_of_two, args=(port, result), nprocs=2)
    net = load("resnet-mini@test")
    made = net.module(*sample_inputs(net.graph, batch=4).values())
    made["loss"].backward()
    for name, gradient in torch.load(result, weights_only=True).items():
        torch.testing.assert_close(gradient, net.module.get_parameter(name).grad, rtol=1e-4, atol=1e-6)


# Names ----------------------------------------------------------------------------------------------------------------

HOSTILE = [
    'x"); import os; os.system("touch pwned"); ("',
    "a\nimport os",
    '"""',
    "__class__",
    "class",
    "forward",
    "self",
    "torch",
    "é",
    " ",
    "1x1",
    "a/b.c",
    "Scale",  # a class of ours that this net's source holds
    "load",
    "Tensor",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_names_cannot_become_code(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shape = new("InputParameter", shape=[new("BlobShape", dim=[2, 3, 5, 7])])
    net = converters.load(
        new(
            "NetParameter",
            name=name,
            layer=[
                new("LayerParameter", name="in", type="Input", top=[name], input_param=shape),
                new("LayerParameter", name=name, type="ReLU", bottom=[name], top=[name]),
                new("LayerParameter", name=f"{name}_", type="Scale", bottom=[name], top=[f"{name}_"]),
            ],
        )
    )
    (tmp_path / "net.py").write_text(to_source(net))
    net.save(tmp_path / "net.safetensors")
    generated = import_source(tmp_path / "net.py").load("net.safetensors")
    assert_same(outputs(generated, net), outputs(net.module, net), rtol=0, atol=0)
    assert not (tmp_path / "pwned").exists()


@settings(max_examples=300, deadline=None)
@given(st.lists(st.text(max_size=12) | st.sampled_from([*HOSTILE, "conv1", "conv1_", "a_2", "a", "A"]), max_size=12))
def test_identifiers_are_valid_and_different(names: list[str]) -> None:
    made = identifiers(names, prefix="layer")
    assert len(set(made)) == len(names)
    assert all(m.isidentifier() and m.isascii() and not keyword.iskeyword(m) for m in made)
    for name, m in zip(names, made, strict=True):
        if name in ("conv1", "A") and names.count(name) == 1:
            assert m == name


def test_modules_keep_their_mode() -> None:
    """A TEST net drops nothing; train() turns dropout on, as a torch user expects."""
    net = load("alexnet-mini")
    assert not net.module.training
    drops: list[Any] = [m for m in net.module.modules() if isinstance(m, nn.Dropout)]
    assert all(not m.training for m in drops)
