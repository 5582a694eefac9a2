"""Every layer type that has a meaning at inference: torch.export and ONNX Runtime give what the module gives, or ONNX is refused by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import CORPUS

import converters
from converters.comparison.errors import blob_error
from converters.comparison.runners import OnnxRuntimeRunner
from converters.onnx_export import output_names, to_onnx
from prototxt import NetError, parse_text


def chosen() -> list[Path]:
    """The first and the last TEST case of each type."""
    found = []
    for folder in sorted((CORPUS / "layers").iterdir()):
        cases = [p for p in sorted(folder.glob("*.prototxt")) if p.with_suffix(".npz").exists() and "in-place" not in p.stem]
        found += [cases[0], cases[-1]] if len(cases) > 1 else cases
    return [*found, CORPUS / "nets/ssd-mini-test.prototxt", CORPUS / "nets/awkward-names.prototxt", CORPUS / "nets/share-permissive.prototxt"]


@pytest.mark.parametrize("path", chosen(), ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_onnx_runtime_agrees(path: Path, tmp_path: Path) -> None:
    with np.load(path.with_suffix(".npz")) as z:
        feed = {key[6:]: z[key] for key in z.files if key.startswith("input/")}
    weights = path.with_suffix(".caffemodel")
    net = converters.load(path, weights=weights if weights.exists() else None, phase="TEST")
    refused = [step.name for step in net.graph.steps if step.rule.onnx or step.recipe.onnx]
    if refused or not net.graph.outputs:
        with pytest.raises(NetError, match=r"ONNX cannot express|no output"):
            to_onnx(net, tmp_path / "net.onnx")
        return
    if not net.graph.inputs:
        pytest.skip("a net without inputs has nothing to feed")
    with torch.no_grad():
        blobs = net.blobs({name: torch.from_numpy(value) for name, value in feed.items()})
    got = OnnxRuntimeRunner(to_onnx(net, tmp_path / "net.onnx").path, output_names(net.graph))({name: feed[name] for name in net.graph.inputs})
    for name in net.graph.outputs:
        assert blob_error(got[name], blobs[name].numpy()) <= 1e-4, name


REGIONS = "0 0 0 40 20  1 10 5 60 50  0 -3 8 30 90"
FORKS = [
    ('type: "ROIPooling" roi_pooling_param { pooled_h: 5 pooled_w: 3 spatial_scale: 0.25 }', [(2, 3, 11, 17), REGIONS]),
    ('type: "PSROIPooling" psroi_pooling_param { spatial_scale: 0.25 output_dim: 2 group_size: 3 }', [(2, 18, 11, 17), REGIONS]),
    ('type: "Reorg" reorg_param { stride: 2 }', [(2, 8, 4, 6)]),
    ('type: "Upsample" upsample_param { scale: 3 }', [(2, 3, 4, 6)]),
    ('type: "Interp" interp_param { height: 9 width: 4 }', [(2, 3, 5, 7)]),
    ('type: "ResizeBilinear" resize_bilinear_param { output_height: 7 output_width: 5 data_format: "NCHW" }', [(2, 3, 4, 6)]),
    ('type: "Resize" resize_param { is_pyramid_test: false height: 7 width: 5 }', [(2, 3, 4, 6)]),
    ('type: "Pad" pad_param { pad_u: 1 pad_d: 2 pad_l: 3 pad_type: REFLECT }', [(2, 3, 4, 6)]),
    ('type: "PixelShuffle" pixelshuffle_param { upscale_factor: 2 }', [(2, 8, 3, 5)]),
    ('type: "ShuffleChannel" shuffle_channel_param { group: 3 }', [(2, 6, 4, 5)]),
    ('type: "BN" bn_param { frozen: true }', [(2, 3, 4, 5)]),
    ('type: "BN" bn_param { bn_mode: LEARN }', [(2, 3, 4, 5)]),
    ('type: "BatchNorm" batch_norm_param { scale_bias: true }', [(2, 3, 4, 5)]),
    ('type: "Reverse" reverse_param { axis: 2 }', [(2, 3, 4, 5)]),
    ('type: "Lstm" lstm_param { num_output: 5 }', [(6, 3)]),
    ('type: "Dropout" dropout_param { scale_train: false }', [(2, 7)]),
    ('type: "Axpy"', [(2, 3), (2, 3, 4, 5), (2, 3, 4, 5)]),
    ('type: "HardSwish"', [(2, 3, 4, 5)]),
]
PROPOSAL = (
    'type: "Proposal" proposal_param { ratio: 0.5 ratio: 1 ratio: 2 scale: 8 scale: 16 scale: 32 post_nms_topn: 7 }',
    [(1, 18, 4, 6), (1, 36, 4, 6), "64 96 1.5"],
)


@pytest.mark.parametrize(("layer", "inputs"), [*FORKS, PROPOSAL], ids=lambda v: v.split('"')[1] if isinstance(v, str) else "")
def test_onnx_of_layers_of_forks(layer: str, inputs: list[tuple[int, ...] | str], tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(3)
    values = [
        torch.tensor([float(v) for v in i.split()]).reshape(-1, 5 if len(i) > 20 else 3) if isinstance(i, str) else torch.rand(i, generator=generator)
        for i in inputs
    ]
    fed = "".join(f'input: "x{i}" input_shape {{ {" ".join(f"dim: {d}" for d in x.shape)} }} ' for i, x in enumerate(values))
    net = converters.load(
        parse_text(f'{fed} layer {{ name: "l" {" ".join(f"bottom: {chr(34)}x{i}{chr(34)}" for i in range(len(values)))} top: "y" {layer} }}')
    )
    for name, value in net.module.state_dict().items():
        if "factor" not in name:
            value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
    feed = {f"x{i}": x for i, x in enumerate(values)}
    with torch.no_grad():
        want = net.blobs(feed)["y"]
    got = OnnxRuntimeRunner(to_onnx(net, tmp_path / "net.onnx").path, output_names(net.graph))({k: v.numpy() for k, v in feed.items()})
    assert got["y"].shape == want.shape
    assert blob_error(got["y"], want.numpy()) <= 1e-4
    if "Proposal" not in layer:
        torch._dynamo.reset()
        compiled = torch.compile(net.module, fullgraph=True, backend="eager")
        with torch.no_grad():
            assert blob_error(compiled(*values).numpy() if len(values) == 1 else compiled(*values)["y"].numpy(), want.numpy()) <= 1e-5


@pytest.mark.parametrize("path", chosen()[::2], ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_a_full_graph_compiles(path: Path) -> None:
    """Dynamo traces each type without a break, but for those whose sizes depend on the values."""
    net = converters.load(path, phase="TEST")
    if any(step.rule.onnx or step.recipe.onnx for step in net.graph.steps) or not net.graph.outputs or not net.graph.inputs:
        pytest.skip("its sizes depend on the values, or it has nothing to compute")
    with np.load(path.with_suffix(".npz")) as z:
        values = [torch.from_numpy(z[f"input/{name}"]) for name in net.graph.inputs]
    torch._dynamo.reset()
    with torch.no_grad():
        made = torch.compile(net.module, fullgraph=True, backend="eager")(*values)
        want = net.module(*values)
    for a, b in zip(made.values() if isinstance(made, dict) else [made], want.values() if isinstance(want, dict) else [want], strict=True):
        torch.testing.assert_close(a, b, equal_nan=True)
