"""More layers of forks against loops and numpy; dialects that share a name are told apart, or refused with their readings."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from sklearn import metrics

import converters
from converters.net import CaffeNet
from converters.samples import sample_inputs
from prototxt import DecantError, parse_text

Array = np.ndarray[Any, Any]


def one(layer: str, *shapes: tuple[int, ...], tops: int = 1, phase: str = "TEST") -> CaffeNet:
    """A net of one layer, of inputs x0, x1, ... and tops y0, y1, ..."""
    fed = "".join(f'input: "x{i}" input_shape {{ {" ".join(f"dim: {d}" for d in shape)} }} ' for i, shape in enumerate(shapes))
    names = " ".join([f'bottom: "x{i}"' for i in range(len(shapes))] + [f'top: "y{i}"' for i in range(tops)])
    return converters.load(parse_text(f'{fed} layer {{ name: "l" {names} {layer} }}'), phase=phase)


def run(layer: str, *inputs: torch.Tensor, tops: int = 1) -> list[torch.Tensor]:
    """The tops of one layer; those of a known size have the shape that the rule tells."""
    net = one(layer, *(tuple(x.shape) for x in inputs), tops=tops)
    made = net.blobs({f"x{i}": x for i, x in enumerate(inputs)})
    return [made[f"y{i}"] for i in range(tops)]


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(8)


def normal(a: Array, mean: Array, variance: Array, eps: float) -> Array:
    """[N, C, H, W] by statistics of its channels."""
    return (a - mean[:, None, None]) / np.sqrt(variance[:, None, None] + eps)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("layer", "shapes", "want"),
    [
        ('type: "BN" bn_param { frozen: true }', [(1, 3)] * 4, lambda a, p: p[0] * normal(a, p[2], p[3], 1e-5) + p[1]),
        ('type: "BN" bn_param { slope_filler { value: 1 } eps: 0.01 }', [(1, 3)] * 4, lambda a, p: p[0] * normal(a, p[2], p[3], 0.01) + p[1]),
        ('type: "SyncBN"', [(1, 3)] * 4, lambda a, p: p[0] * normal(a, p[2], p[3], 1e-5) + p[1]),
        ('type: "BN" bn_param { bn_mode: INFERENCE }', [(1, 3, 1, 1)] * 2, lambda a, p: p[0] * a + p[1]),
        (
            'type: "BN" bn_param { bn_mode: LEARN }',
            [(1, 3, 1, 1)] * 2,
            lambda a, p: p[0] * normal(a, a.mean((0, 2, 3)), a.var((0, 2, 3)), 1e-9) + p[1],
        ),
        (
            'type: "BatchNorm" batch_norm_param { scale_bias: true eps: 0.001 }',
            [(3,), (3,), (1,), (3,), (3,)],
            lambda a, p: p[3] * normal(a, p[0].ravel() / p[2].ravel(), p[1].ravel() / p[2].ravel(), 0.001) + p[4],
        ),
    ],
)
def test_batch_norms_of_forks(layer: str, shapes: list[tuple[int, ...]], want: Callable[..., Array], generator: torch.Generator) -> None:
    net = one(layer, (2, 3, 5, 7))
    assert net.graph.param_shapes["l"] == shapes
    params = [0.5 + torch.rand(shape, generator=generator) for shape in shapes]
    net.load({"l": params})
    x = torch.randn(2, 3, 5, 7, generator=generator)
    flat = [p.reshape(-1).numpy() for p in params]
    affine = (0, 1) if len(shapes) != 5 else (3, 4)
    given = [v[:, None, None] if i in affine else v for i, v in enumerate(flat)]
    np.testing.assert_allclose(net(x).detach().numpy(), want(x.numpy(), given), atol=1e-5)


def test_training_moves_the_averages_of_a_fork(generator: torch.Generator) -> None:
    net = one('type: "BN" bn_param { slope_filler { type: "constant" value: 1 } momentum: 0.8 }', (2, 3, 5, 7), phase="TRAIN")
    x = torch.randn(2, 3, 5, 7, generator=generator)
    net.module.train()
    net(x)
    mean, variance = net.params()["l"][2:]
    np.testing.assert_allclose(mean.flatten(), 0.2 * x.mean((0, 2, 3)), atol=1e-6)
    np.testing.assert_allclose(variance.flatten(), 0.2 * x.var((0, 2, 3), correction=0), atol=1e-6)


def darknet(a: Array, s: int, forward: bool) -> Array:
    """Darknet's loop over one image [C, H, W], flat."""
    c, h, w = a.shape
    flat, made, inner = a.ravel(), np.zeros(a.size, a.dtype), c // s**2
    for k in range(c):
        for j in range(h):
            for i in range(w):
                here = i + w * (j + h * k)
                there = i * s + k // inner % s + w * s * (j * s + k // inner // s + h * s * (k % inner))
                made[there if forward else here] = flat[here if forward else there]
    return made


def test_reorg_is_darknets_and_not_torchs(generator: torch.Generator) -> None:
    x = torch.randn(2, 12, 4, 6, generator=generator)
    (packed,) = run('type: "Reorg" reorg_param { stride: 2 }', x)
    assert packed.shape == (2, 48, 2, 3)
    for image, made in zip(x.numpy(), packed.numpy(), strict=True):
        np.testing.assert_array_equal(made.ravel(), darknet(image, 2, False))
    (spread,) = run('type: "Reorg" reorg_param { stride: 2 reverse: true }', x)
    np.testing.assert_array_equal(spread[1].numpy().ravel(), darknet(x[1].numpy(), 2, True))
    assert not torch.equal(packed, F.pixel_unshuffle(x, 2))


def test_unpooling_puts_values_back(generator: torch.Generator) -> None:
    text = """input: "x" input_shape { dim: 2 dim: 3 dim: 7 dim: 10 }
    layer { name: "p" type: "Pooling" bottom: "x" top: "v" top: "m" pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
    layer { name: "u" type: "Upsample" bottom: "v" bottom: "m" top: "y" upsample_param { upsample_h: 7 upsample_w: 10 } }"""
    x = torch.randn(2, 3, 7, 10, generator=generator)
    blobs = converters.load(parse_text(text)).blobs({"x": x})
    want = np.zeros((2, 3, 70), "f")
    for n, c, i, j in np.ndindex(2, 3, 4, 5):
        want[n, c, int(blobs["m"][n, c, i, j])] = blobs["v"][n, c, i, j]
    np.testing.assert_array_equal(blobs["y"].numpy(), want.reshape(2, 3, 7, 10))
    for param, size in (("scale: 2", (8, 10)), ("scale: 2 pad_out_h: true", (7, 10)), ("scale_h: 3 scale_w: 4", (12, 20))):
        assert one(f'type: "Upsample" upsample_param {{ {param} }}', (2, 3, 4, 5), (2, 3, 4, 5)).graph.blob_shapes["y0"] == (2, 3, *size)


def test_small_ones_equal_numpy(generator: torch.Generator) -> None:
    x = torch.randn(2, 4, 3, 5, generator=generator)
    a = x.numpy()
    rows: list[tuple[str, Array]] = [
        ('type: "Upsample" upsample_param { scale: 3 }', a.repeat(3, 2).repeat(3, 3)),
        ('type: "Pad" pad_param { pad_u: 1 pad_d: 2 pad_l: 3 pad_value: 2.5 }', np.pad(a, [(0, 0), (0, 0), (1, 2), (3, 0)], constant_values=2.5)),
        ('type: "Pad" pad_param { pad_d: 2 pad_r: 4 pad_type: REFLECT }', np.pad(a, [(0, 0), (0, 0), (0, 2), (0, 4)], mode="reflect")),
        (
            f'type: "Pad" pad_param {{ {" ".join(f"paddings: {p}" for p in (0, 1, 2, 0, 1, 1, 0, 3))} }}',
            np.pad(a, [(0, 1), (2, 0), (1, 1), (0, 3)]),
        ),
        (
            'type: "PixelShuffle" pixelshuffle_param { upscale_factor: 2 }',
            a.reshape(2, 1, 2, 2, 3, 5).transpose(0, 1, 4, 2, 5, 3).reshape(2, 1, 6, 10),
        ),
        ('type: "Unsqueeze" unsqueeze_param { dim: -2 }', a[:, :, :, None]),
        ('type: "Reverse" reverse_param { axis: 1 axis: -1 }', a[:, ::-1, :, ::-1]),
        ('type: "Dropout" dropout_param { dropout_ratio: 0.3 scale_train: false }', 0.7 * a),
        ('type: "ReLU6" relu6_param { threshold: 0.5 }', a.clip(0, 0.5)),
        ('type: "HardSigmoid" hardsigmoid_param { alpha: 0.25 beta: 0.5 }', (0.25 * a + 0.5).clip(0, 1)),
    ]
    for layer, want in rows:
        (got,) = run(layer, x)
        np.testing.assert_allclose(got.numpy(), want, rtol=1e-6, err_msg=layer)
    np.testing.assert_array_equal(run('type: "Mul"', x, x)[0].numpy(), a * a)


@pytest.mark.parametrize(("size", "fields"), [((9, 3), "false height: 9 width: 3"), ((7, 20), "true out_height_scale: 1.4 out_width_scale: 2.5")])
def test_denseboxs_resize_has_zeros_behind_the_last(size: tuple[int, int], fields: str, generator: torch.Generator) -> None:
    x = torch.randn(2, 3, 5, 8, generator=generator)
    (got,) = run(f'type: "Resize" resize_param {{ is_pyramid_test: {fields} }}', x)
    want = np.zeros((2, 3, *size))
    for p, q in np.ndindex(*size):
        down, across = p * 5 / size[0], q * 8 / size[1]
        for i, j in np.ndindex(5, 8):
            want[:, :, p, q] += x[:, :, i, j].numpy() * max(0.0, 1 - abs(down - i)) * max(0.0, 1 - abs(across - j))
    np.testing.assert_allclose(got.numpy(), want, atol=1e-5)


@pytest.mark.parametrize("grid", ["align_corners: true", "half_pixel_centers: true", ""])
@pytest.mark.parametrize("kind", ["Bilinear", "NearestNeighbor"])
def test_resizing_equals_a_loop(kind: str, grid: str, generator: torch.Generator) -> None:
    x = torch.randn(2, 3, 5, 8, generator=generator)
    field = "resize_bilinear_param" if kind == "Bilinear" else "resize_nearest_neighbor_param"
    (got,) = run(f'type: "Resize{kind}" {field} {{ output_height: 9 output_width: 3 data_format: "NCHW" {grid} }}', x)

    def weights(old: int, new: int) -> Array:
        """[new, old]: what each place of the output takes of the input."""
        made = np.zeros((new, old))
        for i in range(new):
            corner, half = "corners" in grid, "half" in grid
            at = i * (old - 1) / (new - 1) if corner else (i + 0.5) * old / new - 0.5 * (kind == "Bilinear") if half else i * old / new
            at = min(max(at, 0), old - 1)
            low = math.floor(at + 0.5) if kind != "Bilinear" and corner else math.floor(at)
            share = at - low if kind == "Bilinear" else 0.0
            made[i, low] += 1 - share
            made[i, min(low + 1, old - 1)] += share
        return made

    want = np.einsum("ph,nchw,qw->ncpq", weights(5, 9), x.numpy().astype(float), weights(8, 3))
    np.testing.assert_allclose(got.numpy(), want, atol=1e-5)


NCHW = 'data_format: "NCHW"'


@pytest.mark.parametrize(
    ("layer", "count", "size"),
    [  # of [2, 3, 10, 6]
        ('type: "Interp" interp_param { height: 7 width: 9 zoom_factor: 3 }', 1, (28, 16)),
        ('type: "Interp" interp_param { height: 7 width: 9 shrink_factor: 3 }', 1, (4, 2)),
        ('type: "Interp" interp_param { height: 7 width: 9 shrink_factor: 3 zoom_factor: 2 }', 1, (7, 9)),
        ('type: "Upsample" upsample_param { scale: 2 upsample_h: 19 upsample_w: 11 pad_out_h: true }', 2, (19, 11)),
        (f'type: "ResizeBilinear" resize_bilinear_param {{ scale_height: 0.7 output_width: 3 {NCHW} }}', 1, (7, 3)),  # 6.9999999 in doubles
        (f'type: "ResizeNearestNeighbor" resize_nearest_neighbor_param {{ output_height: 4 scale_width: 1.25 {NCHW} }}', 1, (4, 7)),
        ('type: "ConvolutionDepthwise" convolution_param { kernel_size: 3 stride: 2 }', 1, (4, 2)),
    ],
)
def test_sizes_as_the_forks_tell_them(layer: str, count: int, size: tuple[int, int]) -> None:
    assert one(layer, *[(2, 3, 10, 6)] * count).graph.blob_shapes["y0"] == (2, 3, *size)


@pytest.mark.parametrize("size", [83, 95, 111, 165])
def test_the_nearest_corner_is_rounded_in_float32(size: int) -> None:
    x = torch.tensor([[[[0.0, 1]]]])
    layer = f'type: "ResizeNearestNeighbor" resize_nearest_neighbor_param {{ output_height: 1 output_width: {size} align_corners: true {NCHW} }}'
    places = np.arange(size, dtype="f") * (np.float32(1) / np.float32(size - 1))
    assert places[size // 2] < 0.5
    np.testing.assert_array_equal(run(layer, x)[0].flatten(), places >= 0.5)


def test_what_no_filler_fills_is_zero() -> None:
    for fields in ("frozen: true", "bn_mode: LEARN", "bn_mode: INFERENCE", "decay: 0.1", "momentum: 0.9"):
        weight, bias = one(f'type: "BN" bn_param {{ {fields} }}', (2, 3, 4, 5)).params()["l"][:2]
        assert not weight.any()
        assert not bias.any()


@pytest.mark.parametrize("layer", ['type: "ShuffleChannel" shuffle_channel_param { group: 2 }', 'type: "Reverse" reverse_param { axis: 1 }'])
def test_what_reads_what_it_overwrites_is_refused_in_place(layer: str) -> None:
    with pytest.raises(DecantError, match="in place"):
        converters.load(parse_text(f'input: "x" input_shape {{ dim: 1 dim: 4 dim: 2 }} layer {{ name: "l" bottom: "x" top: "x" {layer} }}'))


def test_the_forks_lstm_equals_a_loop(generator: torch.Generator) -> None:
    layer = 'type: "Lstm" lstm_param { num_output: 4 batch_size: 2 clipping_threshold: 0.01 }'
    net = one(layer, (6, 3), (6,))
    w, u, b = (torch.randn(s, generator=generator) for s in ((16, 3), (16, 4), (16,)))
    net.load({"l": [w, u, b]})
    x, clip = torch.randn(6, 3, generator=generator), torch.tensor([0.0, 0, 2, 0, 0.5, 1])  # all but 0 go on
    h, c = np.zeros((2, 4)), np.zeros((2, 4))
    want = []
    for t in range(3):
        for n in range(2):
            k = float(clip[2 * t + n] != 0)
            i, f, o, g = np.split(w.numpy() @ x[2 * t + n].numpy() + u.numpy() @ (k * h[n]) + b.numpy(), 4)
            i, f, o = (1 / (1 + np.exp(-v)) for v in (i, f, o))
            c[n] = (f if k else 0) * c[n] + i * np.tanh(g)
            h[n] = o * np.tanh(c[n])
            want.append(h[n].copy())
    made = net.blobs({"x0": x, "x1": clip})["y0"]
    np.testing.assert_allclose(made.detach().numpy(), want, atol=1e-5)
    made.sum().backward()
    assert float(net.params()["l"][2].grad.abs().max()) <= 6 * 0.01 + 1e-6  # type: ignore[union-attr]


# Losses ---------------------------------------------------------------------------------------------------------------


def test_losses_of_hard_examples_equal_loops(generator: torch.Generator) -> None:
    a, b, w = (2 * torch.randn(5, 3, generator=generator) for _ in range(3))
    loss, each = run(
        'type: "SmoothL1LossOHEM" loss_param { normalization: PRE_FIXED pre_fixed_normalizer: 7 } loss_weight: 1 loss_weight: 0', a, b, w, tops=2
    )
    cost = [[0.5 * d * d if abs(d) < 1 else abs(d) - 0.5 for d in row] for row in ((a - b) * w).tolist()]
    np.testing.assert_allclose(each.flatten(), [sum(row) for row in cost], rtol=1e-5)
    assert float(loss) == pytest.approx(sum(map(sum, cost)) / 7, rel=1e-5)

    label = torch.tensor([2.0, 0, -1, 1, 2])
    loss, probability, each = run(
        'type: "SoftmaxWithLossOHEM" loss_param { ignore_label: -1 } loss_weight: 1 loss_weight: 0 loss_weight: 0', a, label, tops=3
    )
    p = [np.exp(row) / np.exp(row).sum() for row in a.numpy()]
    want = [-math.log(p[i][int(k)]) if k >= 0 else 0.0 for i, k in enumerate(label.tolist())]
    np.testing.assert_allclose(each.flatten(), want, rtol=1e-5)
    np.testing.assert_allclose(probability[:, :, 0, 0], p, rtol=1e-5)
    assert float(loss) == pytest.approx(sum(want) / 4, rel=1e-5)


def test_gradients_of_losses_of_forks_where_they_are_no_derivatives(generator: torch.Generator) -> None:
    """R-FCN's weights scale no gradient; a label of probability 0 learns as in SoftmaxWithLoss, and one of probability 1 is done."""
    a, b, w = (2 * torch.randn(5, 3, generator=generator) for _ in range(3))
    a.requires_grad_(True)
    run('type: "SmoothL1LossOHEM" loss_param { normalization: NONE }', a, b, w)[0].backward()
    difference = ((a - b) * w).detach().numpy()
    np.testing.assert_allclose(a.grad, np.where(abs(difference) < 1, difference, np.sign(difference)), rtol=1e-5)

    label = torch.tensor([0.0, 0, 2])
    for gamma in (0.0, 0.5, 2.0):
        x = torch.tensor([[-200.0, 0, 1], [40, 0, 0], [0.5, 2, 1]], requires_grad=True)
        kind = f'FocalLoss" focal_loss_param {{ alpha: 1 gamma: {gamma} }}' if gamma else 'SoftmaxWithLossOHEM"'
        (loss,) = run(f'type: "{kind} loss_param {{ normalization: NONE }}', x, label)
        loss.backward()
        want = np.zeros((3, 3))
        for row, k, made in zip(x.detach().softmax(1).double().numpy(), (0, 0, 2), want, strict=True):
            p = row[k]  # the layer's own backward pass, but for its 0 * inf
            made[:] = (1 - p) ** gamma * (1 - gamma * p * math.log(max(p, 1.1754944e-38)) / max(1 - p, 1e-30)) * (row - np.eye(3)[k])
        np.testing.assert_allclose(x.grad, want, atol=1e-5)
        assert float(loss.detach()) > 87


@pytest.mark.parametrize("gamma", [0.0, 1.5])
def test_focal_loss_equals_a_loop(gamma: float, generator: torch.Generator) -> None:
    x, label = torch.randn(4, 3, 2, generator=generator), torch.tensor([[0.0, 2], [1, 1], [2, -1], [0, 1]])
    layer = f'type: "FocalLoss" loss_param {{ ignore_label: -1 }} focal_loss_param {{ alpha: 0.25 gamma: {gamma} }}'
    p = x.softmax(1)
    costs = [
        -0.25 * (1 - (q := float(p[n, int(label[n, s]), s]))) ** gamma * math.log(q) for n in range(4) for s in range(2) if float(label[n, s]) >= 0
    ]
    assert float(run(layer, x, label)[0]) == pytest.approx(sum(costs) / 7, rel=1e-5)


def test_center_loss_and_its_own_gradient(generator: torch.Generator) -> None:
    net = one('type: "CenterLoss" center_loss_param { num_output: 4 } loss_weight: 0.5', (5, 3), (5,), phase="TRAIN")
    centres, x = torch.randn(4, 3, generator=generator), torch.randn(5, 3, generator=generator, requires_grad=True)
    net.load({"l": [centres]})
    label = [1, 3, 1, 0, 1]
    blobs = net.blobs({"x0": x, "x1": torch.tensor(label).float()})
    distance = x.detach().numpy() - centres.numpy()[label]
    assert float(blobs["y0"].detach()) == pytest.approx((distance**2).sum() / 10, rel=1e-5)
    net.objective(blobs).backward()
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), 0.5 * distance / 5, rtol=1e-5)
    want = [-sum(d for d, k in zip(distance, label, strict=True) if k == j) / (1 + label.count(j)) if j in label else np.zeros(3) for j in range(4)]
    np.testing.assert_allclose(net.params()["l"][0].grad.numpy(), want, rtol=1e-5)  # type: ignore[union-attr]


def test_l1_loss(generator: torch.Generator) -> None:
    a, b = torch.randn(4, 3, generator=generator), torch.randn(4, 3, generator=generator)
    for fields, by in (("", 4), ("loss_param { normalization: BATCH_SIZE }", 4), ("loss_param { normalization: FULL }", 12)):
        assert float(run(f'type: "L1Loss" {fields}', a, b)[0]) == pytest.approx(float((a - b).abs().sum()) / by, rel=1e-6)
    assert "FULL" in one('type: "L1Loss"', (4, 3), (4, 3)).graph.notes[0]


def test_accuracy_of_segmentations_equals_scikit_learns(generator: torch.Generator) -> None:
    x, label = torch.randn(2, 5, 6, 7, generator=generator), torch.randint(4, (2, 1, 6, 7), generator=generator)
    x[:, 4] = -9  # a class that neither occurs nor is predicted
    label[0, 0, 0, :3] = 255
    got = run('type: "SegAccuracy" seg_accuracy_param { ignore_label: 255 ignore_label: 3 }', x, label.float())[0].flatten()
    kept = (label[:, 0] != 255) & (label[:, 0] != 3)
    true, guess = label[:, 0][kept], x.argmax(1)[kept]
    indices = [1.0 if not (u := int(((true == k) | (guess == k)).sum())) else int(((true == k) & (guess == k)).sum()) / u for k in range(5)]
    want = [metrics.accuracy_score(true, guess), metrics.recall_score(true, guess, labels=[0, 1, 2], average="macro"), float(np.mean(indices))]
    np.testing.assert_allclose(got, want, rtol=1e-5)


@pytest.mark.parametrize("outputs", ["", "output_label: 0 output_label: 3"])
def test_the_guess_of_a_segmentation_among_equal_scores(outputs: str, generator: torch.Generator) -> None:
    """DeepLab sorts pairs of score and class, the larger first; the PSPNet that has output_label looks for a larger score. 0 / 0 is NaN there."""
    x, label = torch.randint(3, (2, 4, 6, 7), generator=generator).float(), torch.randint(3, (2, 1, 6, 7), generator=generator)
    x[:, 0] = -1  # never the guess
    confusion = np.zeros((4, 4))
    for n, i, j in np.ndindex(2, 6, 7):
        scores = x[n, :, i, j].tolist()
        guess = scores.index(max(scores)) if outputs else max((score, k) for k, score in enumerate(scores))[1]
        confusion[int(label[n, 0, i, j]), guess] += 1
    made = run(f'type: "SegAccuracy" seg_accuracy_param {{ {outputs} }}', x, label.float(), tops=3 if outputs else 1)
    hit, occurs, guessed = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    with np.errstate(invalid="ignore"):
        recall, index = hit / occurs, hit / (occurs + guessed - hit)
        each = [(hit[k] / guessed[k], recall[k], index[k]) for k in (0, 3)]
    want = [(hit.sum() / confusion.sum(), np.nanmean(recall), np.where(occurs + guessed == 0, 1, index).mean()), *each]
    for got, numbers in zip(made, want, strict=False):
        np.testing.assert_allclose(got.flatten(), numbers, rtol=1e-5)


@pytest.mark.parametrize("wrong", [-1.0, 4.0, 255.0])
def test_a_label_of_a_segmentation_is_a_class_or_ignored(wrong: float) -> None:
    x, label = torch.zeros(1, 4, 2, 2), torch.tensor([[[[0, 3], [wrong, 1]]]])
    assert run(f'type: "SegAccuracy" seg_accuracy_param {{ ignore_label: {wrong:.0f} }}', x, label)[0].isfinite().all()
    with pytest.raises(DecantError, match=f"sample 0: label {wrong:.0f} is none of 4 classes"):
        run('type: "SegAccuracy"', x, label)


# Detection ------------------------------------------------------------------------------------------------------------


def test_hardest_regions_equal_a_loop(generator: torch.Generator) -> None:
    image = torch.tensor([0.0, 1, 0, 1, 0, 1, 0])
    region = torch.cat((image[:, None], torch.rand(7, 4, generator=generator)), 1)
    loss, label, weight = (torch.rand(7, *s, generator=generator) for s in ((1, 1, 1), (), (8,)))
    labels, weights = run('type: "BoxAnnotatorOHEM" box_annotator_ohem_param { roi_per_img: 2 }', region, loss, label, weight, tops=2)
    for i in range(7):
        harder = sum(float(loss[j]) > float(loss[i]) and image[j] == image[i] for j in range(7))
        assert labels[i].item() == pytest.approx(label[i].item() if harder < 2 else -1)
        np.testing.assert_allclose(weights[i].flatten(), weight[i] if harder < 2 else np.zeros(8))


def test_weights_of_other_places_are_refused() -> None:
    with pytest.raises(DecantError, match="weights of as many"):
        one('type: "BoxAnnotatorOHEM" box_annotator_ohem_param { roi_per_img: 2 }', (3, 5, 2, 2), (3, 1, 2, 2), (3, 1, 2, 2), (3, 8, 1, 1), tops=2)


ROI_TARGETS = 'type: "Python" python_param { module: "rpn.proposal_target_layer" layer: "ProposalTargetLayer" param_str: "{num_classes: 4}" }'
READERS: list[tuple[str, list[tuple[int, ...]], int]] = [
    ('type: "ROIPooling" roi_pooling_param { pooled_h: 2 pooled_w: 2 }', [(1, 4, 5, 6), (7, 5)], 1),
    ('type: "PSROIPooling" psroi_pooling_param { spatial_scale: 1 output_dim: 1 group_size: 2 }', [(1, 4, 5, 6), (7, 5, 1, 1)], 1),
    ('type: "SegAccuracy"', [(2, 4, 5, 6), (2, 1, 5, 6)], 1),
    (ROI_TARGETS, [(30, 5), (2, 5)], 5),
    ('type: "MultiBoxLoss" multibox_loss_param { num_classes: 2 background_label_id: 1 }', [(1, 8), (1, 4), (1, 2, 8), (1, 1, 3, 8)], 1),
    ('type: "DetectionEvaluate" detection_evaluate_param { num_classes: 2 overlap_threshold: 0.5 }', [(1, 1, 2, 7), (1, 1, 3, 8)], 1),
]


@pytest.mark.parametrize(("layer", "shapes", "tops"), READERS, ids=lambda v: v.split('"')[1] if isinstance(v, str) else "")
def test_samples_are_what_a_layer_takes(layer: str, shapes: list[tuple[int, ...]], tops: int) -> None:
    net = one(layer, *shapes, tops=tops)
    assert "y0" in net.blobs(sample_inputs(net.graph))


def test_anchor_targets_follow_their_rules(generator: torch.Generator) -> None:
    net = one(
        'type: "Python" python_param { module: "rpn.anchor_target_layer" layer: "AnchorTargetLayer" param_str: "\'feat_stride\': 16" }',
        (1, 18, 30, 40),
        (3, 5),
        (1, 3),
        (1, 3, 480, 640),
        tops=4,
    )
    boxes = torch.tensor([[30.0, 40, 200, 260, 1], [300, 100, 420, 400, 2], [500, 300, 600, 380, 3]])
    blobs = net.blobs({"x0": torch.zeros(1, 18, 30, 40), "x1": boxes, "x2": torch.tensor([[480.0, 640, 1]]), "x3": torch.zeros(1, 3, 480, 640)})
    label, target, inside, outside = (blobs[f"y{i}"][0] for i in range(4))
    flat = label.reshape(9, 30, 40).permute(1, 2, 0).flatten()
    from converters.modules.regions import all_anchors, base_anchors, moved

    anchor = all_anchors(base_anchors((8, 16, 32)), 30, 40, 16)
    within = (anchor[:, 0] >= 0) & (anchor[:, 1] >= 0) & (anchor[:, 2] < 640) & (anchor[:, 3] < 480)
    overlap = torchvision.ops.box_iou(anchor + torch.tensor([0, 0, 1, 1]), boxes[:, :4] + torch.tensor([0, 0, 1, 1]))
    best = within[:, None] & (overlap == torch.where(within[:, None], overlap, 0).amax(0))
    may_be = within & ((overlap.amax(1) >= 0.7) | best.any(1))
    assert int((flat >= 0).sum()) == 256
    assert torch.equal(flat == 1, may_be) or int(may_be.sum()) > 128
    assert not ((flat == 0) & ((overlap.amax(1) >= 0.3) | ~within)).any()
    moves = target.reshape(9, 4, 30, 40).permute(2, 3, 0, 1).reshape(-1, 4)
    back = moved(anchor[may_be], moves[may_be])  # both ends inside: the way back is one wider
    np.testing.assert_allclose(back - torch.tensor([0, 0, 1, 1]), boxes[overlap[may_be].argmax(1), :4], atol=1e-2)
    assert float(outside.max()) == pytest.approx(1 / 256)
    assert float(inside.sum()) == 4 * int((flat == 1).sum())


def test_drawn_regions_have_the_targets_of_their_class(generator: torch.Generator) -> None:
    net = one(
        'type: "Python" python_param { module: "rpn.proposal_target_layer" layer: "ProposalTargetLayer" param_str: "\'num_classes\': 4" }',
        (300, 5),
        (2, 5),
        tops=5,
    )
    boxes = torch.tensor([[30.0, 40, 200, 260, 1], [300, 100, 420, 400, 3]])
    jitter = 60 * torch.randn(300, 4, generator=generator)
    regions = F.pad(boxes[torch.randint(2, (300,), generator=generator), :4] + jitter, (1, 0))
    blobs = net.blobs({"x0": regions, "x1": boxes})
    region, label, target, inside, outside = (blobs[f"y{i}"] for i in range(5))
    assert len(region) == len(label) <= 128
    assert int((label > 0).sum()) <= 32
    overlap = torchvision.ops.box_iou(region[:, 1:] + torch.tensor([0, 0, 1, 1]), boxes[:, :4] + torch.tensor([0, 0, 1, 1]))
    assert torch.equal(label > 0, overlap.amax(1) >= 0.5)
    for i, k in enumerate(label.int().tolist()):
        own = torch.zeros(16)
        own[4 * k : 4 * k + 4] = float(k > 0)
        assert torch.equal(inside[i], own)
        assert not target[i][own == 0].any()
    assert torch.equal(inside, outside)


@pytest.mark.parametrize("info", [[90.0, 120, 1.3], [90.0, 120, 2, 0.5]])
def test_native_proposals_equal_a_loop(info: list[float], generator: torch.Generator) -> None:
    """Anchors in float32, where 25 * 0.7 is 17.5 and rounds up; a scale for each side, if there are four numbers; the smallest have score 0."""
    f, ratios, scales = np.float32, (0.7, 1.9), (0.3, 2.0)
    score, delta = torch.rand(1, 8, 5, 7, generator=generator), 0.3 * torch.randn(1, 16, 5, 7, generator=generator)
    fields = "ratio: 0.7 ratio: 1.9 scale: 0.3 scale: 2 base_size: 21 min_size: 9 feat_stride: 16 nms_thresh: 0.4 pre_nms_topn: 120 post_nms_topn: 90"
    regions, scores = run(f'type: "Proposal" proposal_param {{ {fields} }}', score, delta, torch.tensor([info]), tops=2)
    base = []
    for ratio in ratios:
        w = np.floor(np.sqrt(f(441) / f(ratio)) + f(0.5))
        h = np.floor(w * f(ratio) + f(0.5))
        base += [[10 - 0.5 * (w * f(s) - 1), 10 - 0.5 * (h * f(s) - 1), 10 + 0.5 * (w * f(s) - 1), 10 + 0.5 * (h * f(s) - 1)] for s in scales]
    assert base[1][3] - base[1][1] + 1 == 36
    found = []
    for i, j, k in np.ndindex(5, 7, 4):
        x1, y1, x2, y2 = (v + 16 * s for v, s in zip(base[k], (j, i, j, i), strict=True))
        w, h = x2 - x1 + 1, y2 - y1 + 1
        dx, dy, dw, dh = delta[0, 4 * k : 4 * k + 4, i, j].tolist()
        cx, cy, w, h = x1 + w / 2 + dx * w, y1 + h / 2 + dy * h, w * math.exp(dw), h * math.exp(dh)
        box = [min(max(v, 0), limit) for v, limit in zip((cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2), (119, 89, 119, 89), strict=True)]
        large = box[2] - box[0] + 1 >= 9 * info[-1] and box[3] - box[1] + 1 >= 9 * info[2]
        found.append((score[0, 4 + k, i, j].item() * large, box))
    found = sorted(found, key=lambda each: -each[0])[:120]
    left, kept = [torch.tensor(box) + torch.tensor([0, 0, 1, 1]) for _, box in found], list[int]()
    for i, box in enumerate(left):
        if not kept or float(torchvision.ops.box_iou(box[None], torch.stack([left[k] for k in kept])).max()) <= 0.4:
            kept.append(i)
    assert 0 < sum(found[i][0] == 0 for i in kept[:90]) < 90
    np.testing.assert_allclose(regions.numpy(), [[0, *found[i][1]] for i in kept[:90]], atol=1e-3)
    np.testing.assert_allclose(scores, [found[i][0] for i in kept[:90]], rtol=1e-6)


def test_overlaps_decide_in_double_precision(generator: torch.Generator) -> None:
    """As numpy's do: single precision makes one half of what is a little less."""
    from converters.modules.regions import ProposalTargets

    wide = (50 + 40 * torch.rand(99, generator=generator)).numpy()
    high = np.float32(5000) / wide
    regions = np.stack((0 * wide, 0 * wide, 0 * wide, wide - 1, high - 1), 1)
    area = (regions[:, 3].astype(float) + 1) * (regions[:, 4].astype(float) + 1)
    assert 9 < ((area < 5000) & (area.astype("f") == 5000)).sum() < 90
    box = torch.tensor([[0.0, 0, 99, 99, 1]])
    region, label, *_ = ProposalTargets(2, count=10**6, share=1.0)(torch.from_numpy(regions).float(), box)
    w, h = (region[:, 3:].double() + 1).T
    assert torch.equal(label == 1, w * h / 10000 >= 0.5)
    assert 9 < int((label == 0).sum()) < 90


def test_regions_of_a_second_image_are_refused() -> None:
    with pytest.raises(DecantError, match="of one image"):
        run(ROI_TARGETS, torch.tensor([[1.0, 0, 0, 9, 9]]), torch.tensor([[0.0, 0, 9, 9, 1]]), tops=5)


@pytest.mark.parametrize("version", [2, 3])
def test_yolo_equals_a_loop(version: int, generator: torch.Generator) -> None:
    biases = (1.5, 2.0, 3.0, 1.0) if version == 2 else (20.0, 30.0, 50.0, 40.0)
    common = "num_classes: 3 num_box: 2 confidence_threshold: 0.2 nms_threshold: 0.4 " + " ".join(f"biases: {b}" for b in biases)
    more = "mask: 1 mask: 0 mask_group_num: 1 anchors_scale: 32"
    name = "YoloDetectionOutput" if version == 2 else "Yolov3DetectionOutput"
    field = "yolo_detection_output_param" if version == 2 else "yolov3_detection_output_param"
    x = 2 * torch.randn(1, 16, 4, 4, generator=generator)
    (got,) = run(f'type: "{name}" {field} {{ {common} {more if version == 3 else ""} }}', x)

    def sigmoid(v: float) -> float:
        return 1 / (1 + math.exp(-v))

    found = []
    for j in range(4):
        for i in range(4):
            for n in range(2):
                v = x[0, 8 * n : 8 * n + 8, j, i].tolist()
                k, extent = (n, 4) if version == 2 else (1 - n, 128)
                w, h = (math.exp(v[2 + d]) * biases[2 * k + d] / extent for d in range(2))
                cx, cy = (i + sigmoid(v[0])) / 4, (j + sigmoid(v[1])) / 4
                total = sum(map(math.exp, v[5:]))
                for c in range(3):
                    score = sigmoid(v[4]) * (math.exp(v[5 + c]) / total if version == 2 else sigmoid(v[5 + c]))
                    if score > 0.2 and (version == 3 or v[5 + c] == max(v[5:])):
                        found.append((score, c, [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]))
    found.sort(key=lambda f: -f[0])
    kept: list[tuple[float, int, list[float]]] = []
    for score, c, box in found:
        boxes = torch.tensor([box] + [k[2] for k in kept], dtype=torch.float64)
        if not kept or float(torchvision.ops.box_iou(boxes[:1], boxes[1:]).max()) < 0.4:
            kept.append((score, c, box))
    assert kept
    np.testing.assert_allclose(got[0, 0].numpy(), [[0, c + 1, score, *box] for score, c, box in kept], atol=1e-4)


@pytest.mark.parametrize(
    ("layer", "shapes"),
    [
        ('type: "Proposal" proposal_param { ratio: 1 scale: 8 }', [(1, 2, 4, 6), (1, 4, 4, 6), (1, 3)]),
        ('type: "YoloDetectionOutput" yolo_detection_output_param { num_classes: 3 num_box: 1 biases: 1 biases: 2 }', [(1, 8, 4, 4)]),
    ],
)
def test_sizes_that_depend_on_values_are_no_program(layer: str, shapes: list[tuple[int, ...]]) -> None:
    net = one(layer, *shapes)
    inputs = tuple(torch.rand(shape) for shape in shapes)
    with pytest.raises(NotImplementedError, match=r"depends on the values: torch\.export and compile"):
        torch.export.export(net.module.eval(), inputs, strict=False)


def test_native_proposals_keep_what_python_drops() -> None:
    """Nothing but boxes too small: the Python layer gives none, mini-caffe's one of score 0 for each that is not suppressed."""
    shrink = torch.tensor([0.0, 0, -4, -4]).repeat(9)[None, :, None, None].expand(1, 36, 2, 2)
    blobs = torch.rand(1, 18, 2, 2), shrink, torch.tensor([[32.0, 32, 9]])
    native = 'type: "Proposal" proposal_param { ratio: 0.5 ratio: 1 ratio: 2 scale: 8 scale: 16 scale: 32 post_nms_topn: 3 }'
    regions, scores = run(native, *blobs, tops=2)
    assert regions.shape == (3, 5)
    assert scores.tolist() == [0, 0, 0]
    python = 'type: "Python" python_param { module: "rpn.proposal_layer" layer: "ProposalLayer" param_str: "\'feat_stride\': 16" }'
    assert run(python, *blobs)[0].shape == (0, 5)


@pytest.mark.parametrize(("text", "weighed", "share"), [("", True, 1 / 8), ("NONE", False, 1.0), ("BATCH_SIZE", False, 1 / 4)])
def test_triplets_of_forks(text: str, weighed: bool, share: float, generator: torch.Generator) -> None:
    """By the published formulas: of the loss, and of its gradient, n - p, p - a and a - n where the margin is not kept."""
    blobs = [torch.randn(4, 3, generator=generator).requires_grad_(True) for _ in range(3)]
    weight = torch.tensor([0.5, 2.0, 1.0, 0.0])
    divisor = f"loss_param {{ normalization: {text} }}" if text else ""
    (loss,) = run(f'type: "TripletLoss" triplet_loss_param {{ margin: 0.7 }} {divisor}', *blobs, *([weight] if weighed else []))
    loss.backward()
    a, p, n = (blob.detach().numpy().astype(float) for blob in blobs)
    w = weight.numpy() if weighed else np.ones(4)
    cost = 0.7 + ((a - p) ** 2).sum(1) - ((a - n) ** 2).sum(1)
    assert (cost > 0).any()
    assert (cost < 0).any()
    assert loss.item() == pytest.approx(share * (w * cost.clip(0)).sum(), rel=1e-5)
    for blob, want in zip(blobs, (n - p, p - a, a - n), strict=True):
        np.testing.assert_allclose(blob.grad.numpy(), 2 * share * want * (w * (cost > 0))[:, None], atol=1e-5)


FIELDS = [  # of messages that no schema here has
    ("CropCenter", "crop_center_param", "crop_size", [(1, 4, 4, 4)]), ("MaxUnpool", "max_unpool_param", "dst_h", [(1, 2, 3, 4)] * 2),
    ("PixelShuffle", "pixelshuffle_param", "upscale_factor", [(1, 4, 4, 4)]), ("Lstm", "lstm_param", "num_output", [(4, 3)]),
    ("FocalLoss", "focal_loss_param", "alpha: 1 gamma", [(2, 3), (2,)]),
    ("TripletLoss", "triplet_loss_param", "margin", [(2, 3), (2, 3), (2, 3), (2,)]), ("Unsqueeze", "unsqueeze_param", "dim", [(2, 3)]),
    ("YoloDetectionOutput", "yolo_detection_output_param", "biases", [(1, 8, 4, 4)]),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "message", "field", "shapes"), FIELDS, ids=lambda v: v if isinstance(v, str) else "")
def test_fields_that_no_schema_has_are_checked(kind: str, message: str, field: str, shapes: list[tuple[int, ...]]) -> None:
    for value in (": abc", ': "s"', " { a: 1 }", ": true", ": nan"):
        with pytest.raises(DecantError):
            one(f'type: "{kind}" {message} {{ {field}{value} }}', *shapes)
    for text in (f"{message}: 3", f"{message} {{ weird: 3 {field}: 2 }}"):
        with pytest.raises(DecantError):
            one(f'type: "{kind}" {text}', *shapes)


# Refused --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "shapes", "words"),
    [
        ('type: "YoloDetectionOutput" yolo_detection_output_param { num_box: 1 biases: 1 biases: 2 }', [(1, 25, 4, 4)], "num_classes is missing"),
        ('type: "PSROIPooling" psroi_pooling_param { output_dim: 1 group_size: 2 }', [(1, 4, 5, 5), (2, 5)], "spatial_scale is missing"),
        (
            'type: "MultiBoxLoss" multibox_loss_param { num_classes: 3 map_object_to_agnostic: true }',
            [(1, 8), (1, 6), (1, 2, 8), (1, 1, 1, 8)],
            "num_classes must be 2",
        ),
        (
            'type: "MultiBoxLoss" multibox_loss_param { num_classes: 3 mining_type: HARD_EXAMPLE sample_size: 0 }',
            [(1, 8), (1, 6), (1, 2, 8), (1, 1, 1, 8)],
            "sample_size 0",
        ),
        ('type: "BN"', [(2, 3, 4, 5)], "bn_mode: LEARN.*slope_filler"),
        ('type: "BN" bn_param { bn_mode: LEARN momentum: 0.9 }', [(2, 3, 4, 5)], "several dialects"),
        ('type: "BatchNorm" param { lr_mult: 1 } batch_norm_param { scale_bias: true }', [(2, 3, 4, 5)], "older ones had scale and bias first"),
        ('type: "Upsample" upsample_param { upsample_h: 4 upsample_w: 5 }', [(2, 3, 4, 5)], "pooling mask as second bottom"),
        ('type: "Proposal"', [(1, 18, 4, 5), (1, 36, 4, 5), (1, 3)], "Synopsys's.*write ratio and scale"),
        ('type: "TripletLoss"', [(2, 3), (2, 3), (2, 3), (2,)], "1 or 2 bottoms .features, labels. draw triplets"),
        ('type: "TripletLoss" triplet_loss_param { margin: 1 losstype: 1 }', [(2, 3), (2, 3), (2, 3)], "divide by distances"),
        ('type: "TripletLoss" triplet_loss_param { margin: 1 }', [(2, 3), (2, 3), (2, 3)], "N-th part in another, and half of that in a third"),
        ('type: "FocalLoss"', [(2, 3), (2,)], "alpha 1 .CaffeMex., 0.25 or 0.75"),
        ('type: "FocalLoss" focal_loss_param { alpha: 0.25 gamma: 2 }', [(2, 3), (2, 3)], "over a sigmoid, is another fork's"),
        ('type: "Resize" resize_param { height: 3 width: 3 }', [(2, 3, 4, 5)], "half pixels or corners on corners"),
        ('type: "Resize" resize_param { is_pyramid_test: true out_height_scale: 1e300 out_width_scale: 1 }', [(2, 3, 4, 5)], "cannot become"),
        ('type: "ResizeBilinear" resize_bilinear_param { output_height: 3 output_width: 3 }', [(2, 3, 4, 5)], "NHWC"),
        ('type: "L2Norm"', [(2, 3)], "only with norm_param"),
        ('type: "Mul"', [(2, 3), (2, 1)], "Scale broadcasts"),
        ('type: "Reorg" reorg_param { stride: 2 }', [(2, 6, 4, 4)], "channels of 2"),
        ('type: "Lstm" lstm_param { num_output: 4 }', [(5, 1, 3)], "another fork's Lstm"),
        ('type: "Interp"', [(2, 3, 4, 5)], "give height and width"),
        ('type: "Interp" interp_param { height: 7 }', [(2, 3, 4, 5)], "give height and width"),
        ('type: "Interp" interp_param { zoom_factor: 2 }', [(2, 3, 4, 5)] * 2, "fields that name another"),
        ('type: "Upsample"', [(2, 3, 4, 5)], "1 or 2; write"),
        ('type: "Upsample" upsample_param { scale_h: 3 }', [(2, 3, 4, 5)] * 2, "or scale_h and scale_w"),
        ('type: "ConvolutionDepthwise" convolution_param { num_output: 6 kernel_size: 1 }', [(2, 3, 4, 5)], "write Convolution for the second"),
        ('type: "L1Loss" loss_param { normalization: VALID }', [(2, 3), (2, 3)], "BATCH_SIZE. or by the number of values"),
        ('type: "FocalLoss" focal_loss_param { alpha: 0 gamma: 2 }', [(2, 3), (2,)], "above 0"),
        ('type: "ResizeBilinear" resize_bilinear_param { output_height: 3 data_format: "NCHW" }', [(2, 3, 4, 5)], "output_width or scale_width"),
    ],
)
def test_what_has_several_meanings_is_refused(layer: str, shapes: list[tuple[int, ...]], words: str) -> None:
    with pytest.raises(DecantError, match=f"(?s){words}"):
        one(layer, *shapes)


def test_data_of_forks_become_inputs_of_given_shapes() -> None:
    text = 'layer { name: "d" type: "DenseImageData" top: "x" top: "l" dense_image_data_param { batch_size: 2 } }'
    text += 'layer { name: "r" type: "ReLU" bottom: "x" top: "y" }'
    with pytest.raises(DecantError, match="--shape x="):
        converters.resolve(parse_text(text))
    graph = converters.resolve(parse_text(text), shapes={"x": (2, 3, 5, 7), "l": (2, 1, 5, 7)})
    assert graph.blob_shapes["y"] == (2, 3, 5, 7)


def test_other_spellings_of_known_layers(generator: torch.Generator) -> None:
    x = torch.randn(2, 4, 9, 8, generator=generator)
    filled = 'kernel_size: 3 bias_term: false weight_filler { type: "constant" value: 0.5 }'
    (dilated,) = run(f'type: "Convolution" convolution_param {{ num_output: 3 dilation: 2 {filled} }}', x)
    for kind in ("HoleConvolution", "Convolution"):
        assert torch.equal(run(f'type: "{kind}" convolution_param {{ num_output: 3 hole: 2 {filled} }}', x)[0], dilated)
    (depthwise,) = run(f'type: "DepthwiseConvolution" convolution_param {{ num_output: 4 {filled} }}', x)
    assert torch.equal(depthwise, run(f'type: "Convolution" convolution_param {{ num_output: 4 group: 4 {filled} }}', x)[0])
    a, b, w, v = (torch.randn(3, 4, generator=generator) for _ in range(4))
    for weights in ((), (w,), (w, v)):
        cost = F.smooth_l1_loss(a * (w if weights else 1), b * (w if weights else 1), reduction="none", beta=1 / 4)
        want = (cost * (v if len(weights) == 2 else 1)).sum() / 3
        (got,) = run('type: "SmoothL1Loss" smooth_l1_loss_param { sigma: 2 }', a, b, *weights)
        assert float(got) == pytest.approx(float(want), rel=1e-5)


def test_how_to_run_is_passed_over_and_quantization_noted() -> None:
    text = 'input: "x" input_shape { dim: 2 dim: 3 } layer { name: "l" type: "InnerProduct" bottom: "x" top: "y" engine: "MKLDNN" '
    text += "quantization_param { bw_layer_in: 8 } inner_product_param { num_output: 2 } }"
    assert [note for note in converters.resolve(parse_text(text)).notes if "computes in float" in note]


def test_a_missing_blob_is_named_with_the_nearest() -> None:
    """As in a published AttentionNeXt-92, whose classifier reads what no layer makes."""
    text = 'input: "ave_pool" input_shape { dim: 2 dim: 3 } layer { name: "classifier" type: "InnerProduct" bottom: "ave_pool_gather" top: "c" }'
    with pytest.raises(DecantError, match=r"'classifier'.*'ave_pool_gather'.*did you mean 'ave_pool'"):
        converters.resolve(parse_text(text))


def test_a_sink_to_a_file_writes_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    net = one('type: "HDF5Output" hdf5_output_param { file_name: "out.h5" }', (2, 3), (2,), tops=0)
    assert not net.graph.outputs
    assert not list(tmp_path.iterdir())
