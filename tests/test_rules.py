"""Caffe's rules where no recorded case looks: from its source, by hand, and over all numbers of axes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import converters
from converters import to_onnx
from converters.comparison.runners.onnx_files import OnnxRuntimeRunner
from converters.net import CaffeNet
from converters.registry import rules
from converters.samples import sample_inputs
from prototxt import DataError, DecantError, NetError, parse_text

Array = np.ndarray[Any, Any]


def net_of(layers: str, *shapes: tuple[int, ...], phase: str = "TEST") -> CaffeNet:
    """A net of inputs x0, x1, ... and the given layers."""
    fed = "".join(f'input: "x{i}" input_shape {{ {" ".join(f"dim: {d}" for d in shape)} }} ' for i, shape in enumerate(shapes))
    return converters.load(parse_text(fed + layers), phase=phase)


@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (6, 3)])
@pytest.mark.parametrize("fields", ["use_global_stats: false", "use_global_stats: true", ""])
def test_batch_norm_in_a_file(fields: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    net = net_of(f'layer {{ name: "n" type: "BatchNorm" bottom: "x0" top: "y" batch_norm_param {{ {fields} }} }}', shape)
    net.load({"n": [torch.tensor([1.0, 2, 3]), torch.tensor([4.0, 5, 6]), torch.tensor([2.0])]})
    x = 100 * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    made = OnnxRuntimeRunner(to_onnx(net, tmp_path / "n.onnx").path)({"x0": x.numpy()})["y"]
    torch.testing.assert_close(torch.from_numpy(made), net.blobs({"x0": x})["y"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("fields", ["var_eps: 1e-5 moving_average: false", "bn_mode: LEARN"])
def test_batch_statistics_of_forks_in_a_file(fields: str, tmp_path: Path) -> None:
    net = net_of(f'layer {{ name: "n" type: "BN" bottom: "x0" top: "y" bn_param {{ {fields} }} }}', (2, 3, 4, 5))
    net.load({"n": [torch.linspace(1, 2, 3).reshape(p.shape) for p in net.params()["n"]]})
    x = 10 * torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    made = OnnxRuntimeRunner(to_onnx(net, tmp_path / "n.onnx").path)({"x0": x.numpy()})["y"]
    torch.testing.assert_close(torch.from_numpy(made), net.blobs({"x0": x})["y"], rtol=1e-5, atol=1e-5)


LOSS = 'layer { name: "l" type: "EuclideanLoss" bottom: "x0" bottom: "x1" top: "loss" %s } layer { name: "s" type: "Silence" bottom: "loss" }'


@pytest.mark.parametrize(("weight", "counted"), [("", 1.0), ("loss_weight: 3", 4.0)])
def test_only_a_written_loss_weight_moves_to_the_split(weight: str, counted: float) -> None:
    net = net_of(LOSS % weight + 'layer { name: "p" type: "Power" bottom: "loss" top: "p" }', (2, 3), (2, 3))
    assert [w for _, w in net.graph.losses] == [counted]


def test_a_batch_that_does_not_fall_into_equal_parts_is_refused() -> None:
    net = net_of('layer { name: "s" type: "Slice" bottom: "x0" top: "a" top: "b" slice_param { axis: 0 } }', (4, 3))
    assert net.blobs({"x0": torch.zeros(6, 3)})["b"].shape == (3, 3)
    with pytest.raises(NetError, match="7 does not fall into 2 equal parts"):
        net.blobs({"x0": torch.zeros(7, 3)})


@pytest.mark.parametrize("axis", [None, 1, -1])
@pytest.mark.parametrize("top", [1, 3])
@pytest.mark.parametrize("valued", [False, True])
def test_of_equal_values_the_last_is_the_largest(axis: int | None, top: int, valued: bool) -> None:
    """Caffe sorts pairs of value and index, the larger first."""
    x = torch.randint(0, 3, (2, 7, 5), generator=torch.Generator().manual_seed(0)).float()
    fields = f"{'' if axis is None else f'axis: {axis}'} top_k: {top} out_max_val: {str(valued).lower()}"
    made = net_of(f'layer {{ name: "m" type: "ArgMax" bottom: "x0" top: "y" argmax_param {{ {fields} }} }}', x.shape).blobs({"x0": x})["y"]
    rows = x.flatten(1) if axis is None else x.movedim(axis, -1)
    best = [sorted(((v, i) for i, v in enumerate(row)), reverse=True)[:top] for row in rows.reshape(-1, rows.shape[-1]).tolist()]
    value, place = torch.tensor(best).unbind(2)
    if axis is None:
        want = torch.stack((place, value), 1) if valued else place[:, None]
    else:
        want = (value if valued else place).reshape(*rows.shape[:-1], top).movedim(-1, axis)
    torch.testing.assert_close(made, want, rtol=0, atol=0)


@pytest.mark.parametrize("view", ["Flatten", "Reshape", "Concat", "Slice"])
def test_memory_is_shared_as_caffe_shares_it(view: str) -> None:
    """A ReLU in place on the view is seen through the blob that it views, whatever the view's first axis."""
    field = {"Flatten": "flatten_param { axis: 0 }", "Reshape": "reshape_param { shape { dim: 3 dim: 2 } }"}.get(view, "")
    net = net_of(
        f"""layer {{ name: "a" type: "Power" bottom: "x0" top: "a" }} layer {{ name: "v" type: "{view}" bottom: "a" top: "v" {field} }}
        layer {{ name: "r" type: "ReLU" bottom: "v" top: "v" }} layer {{ name: "z" type: "Power" bottom: "a" top: "z" }}""",
        (2, 3),
    )
    x = torch.tensor([[-1.0, 2, -3], [4, -5, 6]])
    torch.testing.assert_close(net.blobs({"x0": x})["z"], x.clamp(min=0))


def pooled(x: Tensor, kernel: tuple[int, int], stride: int, pad: tuple[int, int]) -> Tensor:
    """Caffe's MAX pooling of one plane, window by window; padding on one axis clips the windows of both."""
    size = [math.ceil((d + 2 * q - k) / stride) + 1 for d, k, q in zip(x.shape, kernel, pad, strict=True)]
    if any(pad):
        size = [n - ((n - 1) * stride >= d + q) for n, d, q in zip(size, x.shape, pad, strict=True)]
    made = torch.empty(*size)
    for i in range(size[0]):
        for j in range(size[1]):
            top, left = i * stride - pad[0], j * stride - pad[1]
            made[i, j] = x[max(top, 0) : top + kernel[0], max(left, 0) : left + kernel[1]].max()
    return made


@pytest.mark.parametrize(("kernel", "stride", "pad"), [((2, 1), 2, (1, 0)), ((3, 1), 2, (2, 0)), ((1, 4), 2, (0, 3)), ((3, 2), 2, (1, 0))])
def test_padding_on_one_axis_clips_both(kernel: tuple[int, int], stride: int, pad: tuple[int, int]) -> None:
    x = torch.randn(1, 1, 6, 8, generator=torch.Generator().manual_seed(1))
    field = f"kernel_h: {kernel[0]} kernel_w: {kernel[1]} stride: {stride} pad_h: {pad[0]} pad_w: {pad[1]}"
    net = net_of(f'layer {{ name: "p" type: "Pooling" bottom: "x0" top: "y" pooling_param {{ {field} }} }}', (1, 1, 6, 8))
    torch.testing.assert_close(net.blobs({"x0": x})["y"][0, 0], pooled(x[0, 0], kernel, stride, pad))


def test_flattening_no_axis_adds_one() -> None:
    """Caffe joins the axes from `axis` to `end_axis`; of none the count is 1."""
    net = net_of('layer { name: "f" type: "Flatten" bottom: "x0" top: "y" flatten_param { axis: 2 end_axis: 1 } }', (2, 3, 5))
    assert net.blobs({"x0": torch.zeros(2, 3, 5)})["y"].shape == net.graph.blob_shapes["y"] == (2, 3, 1, 5)


@pytest.mark.parametrize(
    "loss",
    [
        '"FocalLoss" focal_loss_param { alpha: 1 gamma: 2 } loss_param { ignore_label: 9 }',
        '"SoftmaxWithLossOHEM" loss_param { ignore_label: 9 }',
        '"CenterLoss" center_loss_param { num_output: 5 }',
    ],
)
def test_labels_of_forks_losses_are_classes(loss: str) -> None:
    net = net_of(f'layer {{ name: "l" type: {loss} bottom: "x0" bottom: "x1" top: "y" }}', (40, 5), (40,))
    drawn = sample_inputs(net.graph)["x1"]
    assert set(drawn.tolist()) == {0, 1, 2, 3, 4}
    drawn[7] = 5
    with pytest.raises(DataError, match="sample 7: label 5 is none of 5 classes"):
        net.blobs({"x0": torch.zeros(40, 5), "x1": drawn})


def test_a_zero_copies_an_axis_behind_those_that_are_reshaped() -> None:
    net = net_of('layer { type: "Reshape" bottom: "x0" top: "y" reshape_param { axis: 1 num_axes: 1 shape { dim: 6 dim: 0 } } }', (2, 6, 1, 5))
    assert net.blobs({"x0": torch.zeros(2, 6, 1, 5)})["y"].shape == (2, 6, 1, 1, 5)


def test_made_up_data_are_filled_by_every_filler() -> None:
    """Bounds and moments of the fillers' definitions, fan in = count / axis 0."""
    texts = [
        'type: "xavier"',
        'type: "msra" variance_norm: FAN_OUT',
        'type: "positive_unitball"',
        'type: "gaussian" std: 2 sparse: 30',
        'type: "bilinear"',
    ]
    fillers = " ".join(f"data_filler {{ {text} }}" for text in texts)
    tops = " ".join(f'top: "t{i}"' for i in range(5))
    net = net_of(f'layer {{ name: "d" type: "DummyData" {tops} dummy_data_param {{ {fillers} shape {{ dim: 60 dim: 40 dim: 4 dim: 4 }} }} }}')
    torch.manual_seed(0)
    xavier, msra, ball, sparse, bilinear = (net.blobs({})[f"t{i}"] for i in range(5))
    assert xavier.abs().max() == pytest.approx(math.sqrt(3 / 640), rel=1e-2)
    assert msra.std() == pytest.approx(math.sqrt(2 / 960), rel=2e-2)
    torch.testing.assert_close(ball.flatten(1).sum(1), torch.ones(60))
    assert (sparse != 0).float().mean() == pytest.approx(0.5, abs=0.02)
    assert sparse[sparse != 0].std() == pytest.approx(2, rel=2e-2)
    torch.testing.assert_close(bilinear[3, 7, 0], torch.tensor([0.0625, 0.1875, 0.1875, 0.0625]))


# Detection ------------------------------------------------------------------------------------------------------------


def overlapping(a: Array, b: Array) -> np.float32:
    """Jaccard overlap of two boxes of float32, as Caffe computes it."""
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    areas = [(t[2] - t[0]) * (t[3] - t[1]) for t in (a, b)]
    return w * h / (areas[0] + areas[1] - w * h) if w > 0 and h > 0 else np.float32(0)  # type: ignore[no-any-return]


def chosen(boxes: Array, truth: Array, cost: Array, ratio: float, far: float, nms: float, top: int, inside: bool) -> set[int]:
    """The boxes that take part in MultiBoxLoss: those of a truth box, and the negatives that are mined."""
    places = [i for i, b in enumerate(boxes) if not inside or (b.min() >= 0 and b.max() <= 1)]
    table = {(i, j): o for i in places for j, t in enumerate(truth) if (o := overlapping(boxes[i], t)) > 1e-6}
    matches, left = set[int](), dict(table)
    while left:
        best = max(left, key=lambda pair: (left[pair], -pair[0], -pair[1]))
        matches.add(best[0])
        left = {pair: o for pair, o in left.items() if pair[0] != best[0] and pair[1] != best[1]}
    matches |= {i for (i, _), o in table.items() if o >= np.float32(0.5)}
    most = {i: max([o for pair, o in table.items() if pair[0] == i], default=0) for i in places}
    order = sorted((i for i in places if i not in matches and most[i] < np.float32(far)), key=lambda i: -cost[i])
    count, kept = min(int(np.float32(len(matches)) * np.float32(ratio)), len(order)), list[int]()
    for i in order[:top]:
        small = float((boxes[i][2] - boxes[i][0]) * (boxes[i][3] - boxes[i][1])) < 1e-5
        if not small and all(overlapping(boxes[i], boxes[k]) <= np.float32(nms) for k in kept):
            kept.append(i)
    return matches | set((kept if nms else order)[:count])


@pytest.mark.parametrize("predicted", [False, True])
@pytest.mark.parametrize(("nms", "top", "ratio"), [(0.0, 0, 2.3), (0.7, 30, 4.0), (0.35, 99, 9.0)])
def test_mining_equals_a_loop(nms: float, top: int, ratio: float, predicted: bool) -> None:
    """Overlaps at the thresholds, in float32; boxes of no size; predictions that reach out of the image."""
    generator, p, seen = torch.Generator().manual_seed(2), 50, set[int]()
    fields = "num_classes: 3 mining_type: MAX_NEGATIVE neg_overlap: 0.35 code_type: CORNER loc_loss_type: L2 ignore_cross_boundary_bbox: "
    fields += f"{str(predicted).lower()} use_prior_for_matching: {str(not predicted).lower()} neg_pos_ratio: {ratio} encode_variance_in_target: true "
    fields += f"nms_param {{ nms_threshold: {nms} top_k: {top} }}" if nms else ""
    bottoms = " ".join(f'bottom: "x{i}"' for i in range(4))
    net = net_of(
        f'layer {{ name: "l" type: "MultiBoxLoss" {bottoms} top: "y" multibox_loss_param {{ {fields} }} }}',
        (1, 4 * p), (1, 3 * p), (1, 2, 4 * p), (1, 1, 4, 8), phase="TRAIN",
    )  # fmt: skip
    for _ in range(12):
        low = torch.randint(0, 5, (p + 4, 2), generator=generator) / 8
        box = torch.cat((low, low + torch.randint(1, 5, (p + 4, 2), generator=generator) / 8), 1)
        boxes, truth = box[:p], torch.cat((torch.tensor([[0.0, 1, 0]]).expand(4, -1), box[p:], torch.zeros(4, 1)), 1)
        boxes[::9, 2:] = boxes[::9, :2] + 0.001
        boxes[1::7] += 0.5 if predicted else 0
        prior = boxes - 0.25 if predicted else boxes
        location = (boxes - prior).reshape(1, -1)
        confidence = torch.randn(1, 3 * p, generator=generator).requires_grad_(True)
        priors = torch.stack((prior.flatten(), torch.ones(4 * p)))[None]
        net.objective(net.blobs({"x0": location, "x1": confidence, "x2": priors, "x3": truth[None, None]})).backward()
        rows = confidence.detach().view(p, 3)
        want = chosen(boxes.numpy(), truth[:, 3:7].numpy(), -rows.log_softmax(1)[:, 0].numpy(), ratio, 0.35, nms, top or p, predicted)
        assert confidence.grad is not None
        assert set(confidence.grad.view(p, 3).abs().sum(1).nonzero().flatten().tolist()) == want
        seen.add(len(want))
    assert len(seen) > 1


def test_a_threshold_is_a_float_and_sizes_go_on_from_batch_to_batch(tmp_path: Path) -> None:
    """7 / 10 is 0.7 in float32, not in Python. Each image that has a row takes the next size, whatever its number in the batch."""
    (tmp_path / "sizes.txt").write_text("a 10 10\nb 1000 10\nc 10 1000\n")
    found = torch.tensor([[0, 1, 0.9, 0, 0, 0.7, 1.0], [1, 1, 0.8, 0, 0, 0.7, 1.0]])
    truth = torch.tensor([[i, 1, 0, 0, 0, 1, 1, 0] for i in range(2)]).float()
    layer = 'layer {{ name: "e" type: "DetectionEvaluate" bottom: "x0" bottom: "x1" top: "y" detection_evaluate_param {{ num_classes: 2 {} }} }}'
    net = net_of(layer.format("overlap_threshold: 0.7"), (1, 1, 2, 7), (1, 1, 2, 8))
    made = net.blobs({"x0": found[None, None], "x1": truth[None, None]})["y"][0, 0]
    assert made[1:, 3].tolist() == [1, 1]
    fields = f'overlap_threshold: 0.72 name_size_file: "{tmp_path / "sizes.txt"}"'
    net = net_of(layer.format(fields), (1, 1, 2, 7), (1, 1, 2, 8))
    hits = [net.blobs({"x0": found[None, None], "x1": truth[None, None]})["y"][0, 0, 1:, 3].tolist() for _ in range(3)]
    by_size = [(int(0.7 * w) + 1) / (w + 1) >= 0.72 for w in (10, 10, 1000)]  # both ends are inside
    assert [bool(h) for batch in hits for h in batch] == by_size * 2
    with pytest.raises(NetError, match="label 0 of the background"):
        net.blobs({"x0": found[None, None] * torch.tensor([1, 0, 1, 1, 1, 1, 1]), "x1": truth[None, None]})


@pytest.mark.parametrize("top", [-1, 0, 5])
@pytest.mark.parametrize("keep", [-1, 4, 9])
def test_of_equal_detections_the_first_are_kept(top: int, keep: int, tmp_path: Path) -> None:
    """In a file too. A written top_k of 0 means none."""
    generator, p = torch.Generator().manual_seed(3), 14
    fields = "num_classes: 3 confidence_threshold: 0.1 nms_param { nms_threshold: 1" + (f" top_k: {top} }}" if top >= 0 else " }")
    fields += f" keep_top_k: {keep}" if keep >= 0 else ""
    bottoms = " ".join(f'bottom: "x{i}"' for i in range(3))
    net = net_of(
        f'layer {{ name: "d" type: "DetectionOutput" {bottoms} top: "y" detection_output_param {{ {fields} }} }}',
        (2, 4 * p), (2, 3 * p), (1, 2, 4 * p),
    )  # fmt: skip
    score = torch.randint(0, 4, (2, p, 3), generator=generator) / 4
    location = torch.arange(8.0 * p).reshape(2, -1)
    want = []
    for n in range(2):
        rows = [
            sorted(([n, c, *score[n, i, c : c + 1].tolist(), i] for i in range(p) if score[n, i, c] > 0.1), key=lambda r: -r[2])[
                : top if top >= 0 else p
            ]
            for c in (1, 2)
        ]
        found = [row for listed in rows for row in listed]
        kept = sorted(found, key=lambda r: -r[2])[: keep if keep >= 0 else len(found)]
        want += [[*row[:3], *location[n].view(p, 4)[row[3]].tolist()] for row in found if row in kept]
    want = want or [[n, *[-1] * 6] for n in range(2)]
    feed = {"x0": location, "x1": score.reshape(2, -1), "x2": torch.stack((torch.zeros(4 * p), torch.ones(4 * p)))[None]}
    torch.testing.assert_close(net.blobs(feed)["y"][0, 0], torch.tensor(want).float(), rtol=0, atol=0)
    made = OnnxRuntimeRunner(to_onnx(net, tmp_path / "d.onnx").path)({name: x.numpy() for name, x in feed.items()})["y"]
    np.testing.assert_array_equal(made[0, 0], np.array(want, "f"))


REFUSED = {  # as Caffe refuses them, or because what it computes is rubbish
    'type: "Tile" bottom: "x0" top: "x0" tile_param { tiles: 2 }': "in place, and makes",
    'type: "SoftmaxWithLoss" bottom: "x0" bottom: "x1" top: "x0"': "in place, and makes",
    'type: "Accuracy" bottom: "x0" bottom: "x1" top: "y" accuracy_param { top_k: 4 }': "top_k 4 of 3 classes",
    'type: "Eltwise" bottom: "x0" bottom: "x0" top: "y" eltwise_param { operation: PROD coeff: 1 coeff: 2 }': "not for PROD",
    'type: "Pooling" bottom: "x0" top: "y" pooling_param { pool: STOCHASTIC kernel_size: 2 pad: 1 }': "only MAX and AVE",
    'type: "Pooling" bottom: "x0" top: "y" pooling_param { kernel_size: 2 pad: 1 pad_h: 1 }': "pad beside pad_h",
    'type: "DummyData" top: "y" dummy_data_param { shape { dim: 2 } data_filler { type: "foo" } }': "'foo' is unknown",
}


@pytest.mark.parametrize("layer", REFUSED, ids=lambda text: text.split('"')[1])
def test_what_caffe_refuses(layer: str) -> None:
    with pytest.raises(NetError, match=REFUSED[layer]):
        net_of(f'layer {{ name: "l" {layer} }}', (2, 3, 4, 4), (2, 1, 4, 4))


SHAPES: list[tuple[int, ...]] = [(), (5,), (4, 6), (2, 3, 4), (2, 4, 4, 6), (2, 4, 2, 4, 4), (2, 2, 2, 2, 2, 2), (1, 1, 1, 1)]
FIELDS = {
    "Convolution": "convolution_param { num_output: 4 kernel_size: 3 pad: 1 }", "Deconvolution": "convolution_param { num_output: 4 kernel_size: 2 }",
    "Im2col": "convolution_param { kernel_size: 2 }",
    "InnerProduct": "inner_product_param { num_output: 3 }",
    "Pooling": "pooling_param { kernel_size: 2 }",
    "Embed": "embed_param { num_output: 3 input_dim: 7 }", "Reshape": "reshape_param { shape { dim: 0 dim: -1 } }", "Tile": "tile_param { tiles: 3 }",
    "ShuffleChannel": "shuffle_channel_param { group: 2 }", "Squeeze": "squeeze_param { axis: 0 }", "Reverse": "reverse_param { axis: 0 }",
    "Upsample": "upsample_param { scale: 2 }", "Reorg": "reorg_param { stride: 2 }", "Interp": "interp_param { zoom_factor: 2 }",
    "SPP": "spp_param { pyramid_height: 2 }", "LSTM": "recurrent_param { num_output: 3 }", "RNN": "recurrent_param { num_output: 3 }",
    "PriorBox": "prior_box_param { min_size: 2 }", "ROIPooling": "roi_pooling_param { pooled_h: 2 pooled_w: 2 spatial_scale: 1 }",
    "PSROIPooling": "psroi_pooling_param { spatial_scale: 1 output_dim: 1 group_size: 2 }", "CenterLoss": "center_loss_param { num_output: 3 }",
    "FocalLoss": "focal_loss_param { alpha: 1 gamma: 2 }", "TripletLoss": "triplet_loss_param { margin: 1 } loss_param { normalization: NONE }",
    "Resize": "resize_param { is_pyramid_test: false height: 3 width: 2 }", "Pad": "pad_param { pad_l: 1 }", "Normalize": "norm_param { }",
    "BN": "bn_param { bn_mode: LEARN }", "Permute": "permute_param { order: 1 order: 0 }",
}  # fmt: skip


@pytest.mark.parametrize("kind", sorted(rules()))
def test_a_rule_takes_or_refuses_every_number_of_axes(kind: str) -> None:
    """And what it takes runs, and has the shape that it tells."""
    least, most = rules()[kind].bottoms
    for count in range(max(least, 1), min(most if most is not None else least + 1, 4) + 1):
        for shapes in [(s,) * count for s in SHAPES] + [(s, *[t] * (count - 1)) for s in SHAPES for t in SHAPES if count > 1 and s != t]:
            bottoms = " ".join(f'bottom: "x{i}"' for i in range(count))
            tops = " ".join(f'top: "y{i}"' for i in range(count if rules()[kind].equal_counts else rules()[kind].tops[0]))
            try:
                net = net_of(f'layer {{ name: "l" type: "{kind}" {bottoms} {tops} {FIELDS.get(kind, "")} }}', *shapes)
            except DecantError:
                continue
            inputs = {f"x{i}": torch.zeros(shape) if i or kind == "Embed" else torch.rand(shape) for i, shape in enumerate(shapes)}
            blobs, told = outcome(net, inputs)
            assert "does not take blobs of shape" not in told, shapes
            for name in net.graph.outputs if blobs else ():
                assert kind in VARIABLE or blobs[name].shape == net.graph.blob_shapes[name], shapes


def outcome(net: CaffeNet, inputs: dict[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """The blobs, or why there are none."""
    try:
        return net.blobs({name: inputs[name] for name in net.graph.inputs}), ""
    except NetError as exc:
        return {}, str(exc)


VARIABLE = ("DetectionOutput", "Filter", "Proposal", "YoloDetectionOutput", "Yolov3DetectionOutput")
