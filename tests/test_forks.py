"""Layers of forks, which the corpus has no numbers of: against torchvision, or the dumbest loop that could be right."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torchvision

import converters
from converters.modules.regions import RoiPool
from prototxt import NetError, UnsupportedLayer, parse_text


def run(layer: str, *inputs: torch.Tensor) -> torch.Tensor:
    """One layer on inputs of its own; the rule's shape is the shape."""
    fed = "".join(f'input: "x{i}" input_shape {{ {" ".join(f"dim: {d}" for d in x.shape)} }} ' for i, x in enumerate(inputs))
    bottoms = " ".join(f'bottom: "x{i}"' for i in range(len(inputs)))
    net = converters.load(parse_text(f'{fed} layer {{ name: "l" {bottoms} top: "y" {layer} }}'))
    made = net.blobs({f"x{i}": x for i, x in enumerate(inputs)})["y"]
    assert made.shape == net.graph.blob_shapes["y"]
    return made


def regions(count: int, images: int, width: float, height: float, generator: torch.Generator) -> torch.Tensor:
    """[R, 5] regions, some of them reaching out of the image."""
    corner = torch.rand(count, 2, generator=generator) * torch.tensor([width, height]) - 5
    size = torch.rand(count, 2, generator=generator) * torch.tensor([width, height])
    image = torch.randint(0, images, (count, 1), generator=generator).float()
    return torch.cat((image, corner, corner + size), 1)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(5)


def test_roi_pooling_equals_torchvision(generator: torch.Generator) -> None:
    """The net takes torchvision's operator; generated source computes the same without it."""
    x, r = torch.randn(2, 3, 11, 17, generator=generator, requires_grad=True), regions(13, 2, 270, 170, generator)
    x.data[:, :, ::2].clamp_(max=0)  # ties: the first has the gradient
    got = run('type: "ROIPooling" roi_pooling_param { pooled_h: 5 pooled_w: 3 spatial_scale: 0.0625 }', x, r)
    want = torchvision.ops.roi_pool(x, r, (5, 3), 0.0625)
    alone = RoiPool((5, 3), 0.0625).pooled(x, r[:, 0].long(), r)
    (theirs,) = torch.autograd.grad(want.square().sum(), x)
    for made in (got, alone):
        torch.testing.assert_close(made, want, rtol=0, atol=0)
        (mine,) = torch.autograd.grad(made.square().sum(), x)
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("bins", [3, 7, 11, 13, 14])
def test_bins_of_regions_are_rounded_before_they_are_moved(bins: int) -> None:
    """7 * (57 / 7) is above 57 in float32, wherever the region begins."""
    places = torch.arange(150.0)
    x = places[:, None] * 1000 + places
    corners = [(start, start + extent - 1) for extent in range(1, 60) for start in (0, 1, 7, 33, 64, 89)]
    r = torch.tensor([(0, low, high, high, low + 90) for low, high in corners]).float()
    got = RoiPool((bins, bins), 1.0).pooled(x[None, None], r[:, 0].long(), r)
    torch.testing.assert_close(got, torchvision.ops.roi_pool(x[None, None], r, bins, 1.0), rtol=0, atol=0)


@pytest.mark.parametrize("wrong", [2.0, -1.0, math.nan])
@pytest.mark.parametrize("kind", ["roi_pooling_param { pooled_h: 2 pooled_w: 2", "psroi_pooling_param { output_dim: 1 group_size: 2"])
def test_regions_of_no_image_are_refused(kind: str, wrong: float) -> None:
    name = "PSROIPooling" if kind.startswith("ps") else "ROIPooling"
    with pytest.raises(NetError, match="0 to 1"):
        run(f'type: "{name}" {kind} spatial_scale: 1 }}', torch.zeros(2, 4, 5, 6), torch.tensor([[wrong, 0, 0, 3, 3]]))


def test_position_sensitive_pooling_equals_a_loop(generator: torch.Generator) -> None:
    out, group, scale = 2, 3, 0.25
    x, r = torch.randn(2, out * group**2, 11, 17, generator=generator), regions(9, 2, 60, 40, generator)
    got = run(f'type: "PSROIPooling" psroi_pooling_param {{ spatial_scale: {scale} output_dim: {out} group_size: {group} }}', x, r)
    for n, row in enumerate(r.tolist()):
        edges = [math.floor(v + 0.5) if v >= 0 else math.ceil(v - 0.5) for v in row[1:]]
        x1, y1, x2, y2 = edges[0] * scale, edges[1] * scale, (edges[2] + 1) * scale, (edges[3] + 1) * scale
        h, w = max(y2 - y1, 0.1) / group, max(x2 - x1, 0.1) / group
        for c in range(out):
            for i in range(group):
                for j in range(group):
                    a, b = (min(max(v, 0), 11) for v in (math.floor(y1 + i * h), math.ceil(y1 + (i + 1) * h)))
                    d, e = (min(max(v, 0), 17) for v in (math.floor(x1 + j * w), math.ceil(x1 + (j + 1) * w)))
                    bin_ = x[int(row[0]), (c * group + i) * group + j, a:b, d:e]
                    want = float(bin_.mean()) if bin_.numel() else 0.0
                    assert float(got[n, c, i, j]) == pytest.approx(want, abs=1e-5)


@pytest.mark.parametrize(
    ("param", "size"),
    [
        ("height: 9 width: 4", (9, 4)),
        ("zoom_factor: 3", (13, 19)),
        ("shrink_factor: 2", (3, 4)),
        ("zoom_factor: 2 pad_beg: -1 pad_end: 0", (7, 11)),
    ],
)
def test_interp_equals_a_loop(param: str, size: tuple[int, int], generator: torch.Generator) -> None:
    x = torch.randn(2, 3, 5, 7, generator=generator)
    got = run(f'type: "Interp" interp_param {{ {param} }}', x).numpy()
    assert got.shape[2:] == size
    cut = x.numpy()[:, :, 1:, 1:] if "pad_beg" in param else x.numpy()
    rows, columns = (np.linspace(0, old - 1, new) for old, new in zip(cut.shape[2:], size, strict=True))
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            a, b = min(int(row), cut.shape[2] - 2), min(int(column), cut.shape[3] - 2)
            u, v = row - a, column - b
            want = (1 - u) * ((1 - v) * cut[:, :, a, b] + v * cut[:, :, a, b + 1]) + u * ((1 - v) * cut[:, :, a + 1, b] + v * cut[:, :, a + 1, b + 1])
            np.testing.assert_allclose(got[:, :, i, j], want, atol=1e-5)


def test_interp_takes_the_size_of_a_second_blob(generator: torch.Generator) -> None:
    assert run('type: "Interp"', torch.randn(2, 3, 5, 7, generator=generator), torch.zeros(1, 2, 8, 11)).shape == (2, 3, 8, 11)


def test_small_ones_equal_their_formulas(generator: torch.Generator) -> None:
    x = 4 * torch.randn(2, 6, 1, 7, generator=generator)
    a = x.numpy()
    shuffled = run('type: "ShuffleChannel" shuffle_channel_param { group: 3 }', x).numpy()
    np.testing.assert_array_equal(shuffled, a[:, [0, 2, 4, 1, 3, 5]])
    np.testing.assert_allclose(run('type: "HardSwish"', x).numpy(), a * np.clip(a + 3, 0, 6) / 6, rtol=1e-5, atol=1e-6)
    hard = run('type: "HardSigmoid" hard_sigmoid_param { alpha: 0.5 beta: 0.1 }', x).numpy()
    np.testing.assert_allclose(hard, np.clip(0.5 * a + 0.1, 0, 1), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(run('type: "Squeeze" squeeze_param { axis: -2 }', x).numpy(), a[:, :, 0])


@pytest.mark.parametrize(
    "layer",
    [
        'type: "ShuffleChannel" shuffle_channel_param { group: 4 }',
        'type: "Squeeze" squeeze_param { axis: 1 }',
        'type: "Squeeze"',
        'type: "Interp"  interp_param { pad_beg: 2 }',
    ],
)
def test_what_has_no_meaning_is_refused(layer: str) -> None:
    with pytest.raises(NetError):
        run(layer, torch.zeros(2, 6, 1, 7))


def test_anchors_are_those_of_faster_rcnn() -> None:
    """The nine windows that the paper's code prints."""
    from converters.modules.regions import base_anchors

    want = [
        [-84, -40, 99, 55], [-176, -88, 191, 103], [-360, -184, 375, 199],
        [-56, -56, 71, 71], [-120, -120, 135, 135], [-248, -248, 263, 263],
        [-36, -80, 51, 95], [-80, -168, 95, 183], [-168, -344, 183, 359],
    ]  # fmt: skip
    np.testing.assert_array_equal(base_anchors((8, 16, 32)).numpy(), want)


def test_proposals_equal_a_loop(generator: torch.Generator) -> None:
    a, rows, columns, stride = 9, 4, 6, 16
    score = torch.rand(1, 2 * a, rows, columns, generator=generator)
    delta = 0.2 * torch.randn(1, 4 * a, rows, columns, generator=generator)
    info = torch.tensor([[64.0, 96.0, 1.5]])
    param = 'module: "rpn.proposal_layer" layer: "ProposalLayer" param_str: "\'feat_stride\': 16"'
    fed = "".join(f'input: "x{i}" input_shape {{ {" ".join(f"dim: {d}" for d in x.shape)} }} ' for i, x in enumerate((score, delta, info)))
    net = converters.load(parse_text(fed + f'layer {{ type: "Python" bottom: "x0" bottom: "x1" bottom: "x2" top: "y" python_param {{ {param} }} }}'))
    got = net.blobs({"x0": score, "x1": delta, "x2": info})["y"].numpy()

    from converters.modules.regions import base_anchors

    boxes = []
    for i in range(rows):
        for j in range(columns):
            for k, anchor in enumerate(base_anchors((8, 16, 32)).tolist()):
                x1, y1, x2, y2 = (v + s * stride for v, s in zip(anchor, (j, i, j, i), strict=True))
                w, h = x2 - x1 + 1, y2 - y1 + 1
                dx, dy, dw, dh = delta[0, 4 * k : 4 * k + 4, i, j].tolist()
                cx, cy, w, h = x1 + w / 2 + dx * w, y1 + h / 2 + dy * h, w * math.exp(dw), h * math.exp(dh)
                box = [min(max(v, 0), limit) for v, limit in zip((cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2), (95, 63, 95, 63), strict=True)]
                if box[2] - box[0] + 1 >= 24 and box[3] - box[1] + 1 >= 24:
                    boxes.append((float(score[0, a + k, i, j]), box))
    boxes.sort(key=lambda b: -b[0])
    kept: list[list[float]] = []
    for _, box in boxes:
        overlaps = []
        for other in kept:
            w = max(min(box[2], other[2]) - max(box[0], other[0]) + 1, 0)
            h = max(min(box[3], other[3]) - max(box[1], other[1]) + 1, 0)
            areas = sum((b[2] - b[0] + 1) * (b[3] - b[1] + 1) for b in (box, other))
            overlaps.append(w * h / (areas - w * h))
        if all(o <= 0.7 for o in overlaps) and len(kept) < 300:
            kept.append(box)
    np.testing.assert_allclose(got, [[0, *box] for box in kept], atol=1e-3)


def test_an_unknown_python_layer_is_named() -> None:
    with pytest.raises(UnsupportedLayer, match=r"'Mine' of the module 'mine'.*python_layer"):
        run('type: "Python" python_param { module: "mine" layer: "Mine" }', torch.zeros(1, 2))
