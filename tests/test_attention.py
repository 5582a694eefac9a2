"""Residual Attention Network: the published counts, the native form against the converted one, options, masks, ONNX, compile."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT
from torch import Tensor, nn

import converters
from prototxt import NetError
from pycls.models import attention
from pycls.models.attention import FUSIONS, MASKS, Mask, ResidualAttentionNet, attention_small, caffe_blobs, masks_kept

COUNTS = {"attention56": (31_810_728, 6.271, 110, 56), "attention92": (52_466_344, 10.534, 179, 92)}
NETS = ROOT / "prototxt/nets"


def shaken(model: nn.Module) -> nn.Module:
    """The model with statistics and shifts that are not the initial ones, in eval mode."""
    torch.manual_seed(7)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1)
            nn.init.normal_(module.bias, 0, 0.1)
    return model.eval()


@pytest.mark.parametrize("name", COUNTS)
def test_counts_are_the_authors(name: str) -> None:
    parameters, giga, convolutions, depth = COUNTS[name]
    steps = converters.resolve(NETS / f"{name}.prototxt").steps
    weighed = [s for s in steps if s.type in ("Convolution", "InnerProduct")]
    assert round(sum(s.recipe.macs for s in weighed) / 1e9, 3) == giga
    assert sum(s.type == "Convolution" for s in weighed) == convolutions
    trunk = [s for s in weighed if not any(part in s.name for part in ("mask", "projection"))]
    assert len(trunk) == depth
    with torch.device("meta"):
        model = getattr(attention, name)()
    assert sum(p.numel() for p in model.parameters()) == parameters


@pytest.mark.parametrize(("name", "size"), [("attention56", 96), ("attention92", 65)])
def test_native_equals_converted(name: str, size: int) -> None:
    """One set of weights, both forms, also at an odd size; each mask too. In float64: untrained depth amplifies rounding."""
    model = shaken(getattr(attention, name)())
    net = converters.load(NETS / f"{name}.prototxt")
    net.load(caffe_blobs(model))
    model.double(), net.module.double()
    image = torch.randn(2, 3, size, size + 8, generator=torch.Generator().manual_seed(1)).double()
    with torch.no_grad(), masks_kept(model) as masks:
        want, blobs = model(image), net.blobs({"data": image})
    torch.testing.assert_close(blobs["classifier"].flatten(1), want)
    assert len(masks) == {"attention56": 3, "attention92": 6}[name]
    for path, mask in masks.items():
        torch.testing.assert_close(blobs[path.replace(".", "/")], mask)


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("fusion", FUSIONS)
def test_options_train_a_step(fusion: str, mask: str) -> None:
    torch.manual_seed(0)
    model = attention_small(5, width=4, fusion=fusion, mask=mask, channels=1)
    images, classes = torch.randn(6, 1, 20, 24), torch.randint(0, 5, (6,))
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    losses = []
    for _ in range(4):
        loss = F.cross_entropy(model(images), classes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert any(isinstance(m, Mask) for m in model.modules()) is (fusion != "none" and mask in MASKS[:3])


def test_fusions_are_their_formulas() -> None:
    x = torch.randn(2, 8, 9, 13, generator=torch.Generator().manual_seed(2))
    seen: dict[str, Tensor] = {}
    torch.manual_seed(1)
    weights = attention.AttentionModule(8, 2, "residual", "mixed").state_dict()
    for fusion in FUSIONS:
        module = attention.AttentionModule(8, 2, fusion, "mixed").eval()
        module.load_state_dict({k: v for k, v in weights.items() if k in module.state_dict()})
        module.last = nn.Identity()
        with torch.no_grad():
            seen[fusion] = module(x)
    torch.testing.assert_close(seen["residual"], seen["naive"] + seen["none"])
    assert (seen["naive"].abs() <= seen["none"].abs()).all()
    assert not seen["naive"].allclose(seen["none"])


def test_kinds_of_masks() -> None:
    torch.manual_seed(0)
    y = torch.randn(2, 6, 5, 7)
    kind = {k: Mask(6 * 4, 2, k).activation(y) for k in MASKS[:3]}
    torch.testing.assert_close(kind["mixed"], y.sigmoid())
    torch.testing.assert_close(kind["channel"].norm(dim=1), torch.ones(2, 5, 7))
    means, stds = y.mean((2, 3), keepdim=True), y.std((2, 3), keepdim=True, correction=0)
    torch.testing.assert_close(kind["spatial"], ((y - means) / stds).sigmoid(), rtol=1e-4, atol=1e-4)


def test_unknown_options_are_named() -> None:
    with pytest.raises(NetError, match="fusion is one of residual, naive, none, not 'plus'"):
        attention_small(fusion="plus")
    with pytest.raises(NetError, match="mask is one of"):
        attention_small(mask="both")


def test_exports_with_a_free_batch(tmp_path: Path) -> None:
    import numpy as np
    import onnxruntime

    model = shaken(attention_small(5, width=4))
    batch = torch.export.Dim("batch", min=1)
    example = torch.randn(2, 3, 20, 28)
    torch.onnx.export(model, (example,), tmp_path / "net.onnx", dynamic_shapes={"x": {0: batch}}, verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
    image = torch.randn(3, 3, 20, 28)
    (got,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(got, model(image).numpy(), rtol=1e-4, atol=1e-4)


def test_compiles_without_a_break() -> None:
    model: ResidualAttentionNet = attention_small(5, width=4)
    shaken(model)
    image = torch.randn(2, 3, 20, 28)
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(model, fullgraph=True, backend="aot_eager")(image), model(image))
