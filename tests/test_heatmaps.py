"""Masks over images: of a native net, of a converted one, by the command."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import converters
from prototxt import NetError, parse_text
from pycls.commands import app
from pycls.heatmaps import draw, draw_net, heat, masks_of, masks_of_net
from pycls.models.attention import attention_small

GATED = """name: "Gated" input: "data" input_shape { dim: 1 dim: 3 dim: 12 dim: 20 }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 5 kernel_size: 3 weight_filler { type: "msra" } } }
layer { name: "mask" type: "Sigmoid" bottom: "conv" top: "mask" }
layer { name: "out" type: "Eltwise" bottom: "conv" bottom: "mask" top: "out" eltwise_param { operation: PROD } }
"""


def test_a_mask_is_stretched_over_its_image() -> None:
    mask = torch.zeros(4, 3, 5)
    mask[:, 1, 2] = 0.8
    values, low, high = heat(mask, (7, 21))
    assert (low, high) == (0, pytest.approx(0.8))
    assert values.shape == (7, 21)
    assert divmod(int(values.argmax()), 21) == (3, 10), "corners lie on corners"
    assert (values.min(), values.max()) == (0, 1)
    assert not heat(torch.ones(2, 3, 5), (7, 9))[0].any(), "a flat mask has no scale"


def test_masks_of_a_native_net(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = attention_small(5, width=4, channels=1).train()
    images = torch.rand(2, 1, 16, 20)
    masks = masks_of(model, images)
    assert {name: tuple(m.shape) for name, m in masks.items()} == {
        "stages.0.1.mask": (2, 16, 16, 20),
        "stages.1.1.mask": (2, 32, 8, 10),
        "stages.2.1.mask": (2, 64, 4, 5),
    }
    assert model.training
    assert model.bn1.num_batches_tracked == 0
    draw(images, masks, tmp_path / "masks.png")
    with Image.open(tmp_path / "masks.png") as picture:
        assert picture.width > 3 * picture.height / 2
        assert len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)) > 100
    with pytest.raises(NetError, match="no mask branches"):
        masks_of(attention_small(5, width=4, channels=1, mask="se"), images)


def test_masks_of_a_converted_net() -> None:
    net = converters.load(parse_text(GATED))
    images = torch.rand(2, 3, 12, 20)
    assert {n: tuple(m.shape) for n, m in masks_of_net(net, images).items()} == {"mask": (2, 5, 10, 18)}
    assert list(masks_of_net(net, images, ["conv", "mask"])) == ["conv", "mask"]
    with pytest.raises(NetError, match=r"no blob 'mass'; blobs of 4 axes: data, conv, mask, out"):
        masks_of_net(net, images, ["mass"])
    with pytest.raises(NetError, match="no Sigmoid"):
        masks_of_net(converters.load(parse_text(GATED.replace("Sigmoid", "TanH"))), images)


def test_images_are_prepared_as_caffe_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "net.prototxt").write_text(GATED)
    Image.fromarray(np.full((12, 20, 3), 200, np.uint8)).save(tmp_path / "grey.png")
    fed = []
    monkeypatch.setattr("pycls.heatmaps.masks_of_net", lambda net, images, blobs: fed.append(images) or {"mask": images})
    draw_net(tmp_path / "net.prototxt", None, [tmp_path / "grey.png"], tmp_path / "out.png", mean=(104.0, 117.0, 123.0), scale=0.5)
    assert fed[0][0, :, 0, 0].tolist() == [48.0, 41.5, 38.5]  # (pixel - mean) * scale


def test_the_command_draws(tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(GATED)
    pixels = np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "cat.png")
    arguments = ["masks", tmp_path / "net.prototxt", tmp_path / "cat.png", "--mean", "104,117,123", "-o", tmp_path / "out.png"]
    done = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert done.exit_code == 0
    assert done.output.endswith("out.png: mask\n")
    with Image.open(tmp_path / "out.png") as picture:
        assert picture.width > picture.height
