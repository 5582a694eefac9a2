"""Gradients of every layer type in float64, against finite differences: the recorded ones are float32, and follow Caffe's own derivations."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import CORPUS

import converters
from converters.net import CaffeNet
from converters.to_torch import Built
from prototxt import parse_text

CAFFES_OWN = {"ContrastiveLoss": "1e-4 beside the distance", "MultiBoxLoss": "matching jumps", "Normalize": "the scale comes behind the norm"}
EDGES = ("in-place", "kink", "zero", "ties", "extreme", "clamped", "near", "fractional", "expose", "infinite", "negative-number", "eps", "train")


def chosen() -> list[Path]:
    """Of each type the first case with a gradient to an input and away from the kinks."""
    found = []
    for folder in sorted((CORPUS / "layers").iterdir()):
        for path in sorted(folder.glob("*.npz")):
            with np.load(path) as z:
                smooth = not any(edge in path.stem for edge in EDGES) and sum(z[k].size for k in z.files if k.startswith("input/")) < 400
                if smooth and any(k.startswith("grad_input/") for k in z.files):
                    found.append(path)
                    break
    return [path for path in found if path.parent.name not in CAFFES_OWN]


@pytest.mark.parametrize("path", chosen(), ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_gradients_are_the_derivatives(path: Path) -> None:
    with np.load(path) as z:
        inputs = {k[6:]: torch.from_numpy(z[k]).double() for k in z.files if k.startswith("input/")}
        wanted = [k[11:] for k in z.files if k.startswith("grad_input/")]
        phase = str(z["phase"])
    weights = path.with_suffix(".caffemodel")
    net = converters.load(path.with_suffix(".prototxt"), weights=weights if weights.exists() else None, phase=phase)
    double = CaffeNet(net.graph, Built(copy.deepcopy(net.module).double(), net.built.nodes))

    def outputs(*values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        blobs = double.blobs(inputs | dict(zip(wanted, values, strict=True)))
        return tuple(blobs[name] for name in net.graph.outputs if blobs[name].requires_grad)

    leaves = tuple(inputs[name].clone().requires_grad_(True) for name in wanted)
    torch.autograd.gradcheck(outputs, leaves, atol=1e-4)


FORKS = [
    ('type: "ROIPooling" roi_pooling_param { pooled_h: 2 pooled_w: 3 spatial_scale: 0.5 }', [(2, 2, 5, 6)], "0 0 1 9 7 1 3 0 8 4"),
    ('type: "PSROIPooling" psroi_pooling_param { spatial_scale: 0.5 output_dim: 2 group_size: 2 }', [(2, 8, 5, 6)], "0 0 1 9 7 1 3 0 8 4"),
    ('type: "Reorg" reorg_param { stride: 2 }', [(1, 4, 2, 6)], ""),
    ('type: "Upsample" upsample_param { scale: 2 }', [(2, 3, 2, 4)], ""),
    ('type: "Interp" interp_param { height: 5 width: 3 }', [(1, 2, 3, 4)], ""),
    ('type: "ResizeBilinear" resize_bilinear_param { output_height: 5 output_width: 3 data_format: "NCHW" }', [(1, 2, 3, 4)], ""),
    ('type: "Resize" resize_param { is_pyramid_test: false height: 5 width: 3 }', [(1, 2, 3, 4)], ""),
    ('type: "TripletLoss" triplet_loss_param { margin: 9 }', [(3, 2), (3, 2), (3, 2)], "2 0.5 1"),
    ('type: "Pad" pad_param { pad_u: 1 pad_l: 2 pad_type: REFLECT }', [(1, 2, 3, 4)], ""),
    ('type: "BN" bn_param { slope_filler { type: "constant" value: 1 } }', [(2, 3, 2, 4)], ""),
    ('type: "BN" bn_param { bn_mode: LEARN scale_filler { type: "constant" value: 1 } }', [(2, 3, 2, 4)], ""),
    ('type: "BatchNorm" batch_norm_param { scale_bias: true }', [(2, 3, 2, 4)], ""),
    ('type: "Lstm" lstm_param { num_output: 2 weight_filler { type: "gaussian" std: 1 } }', [(4, 3)], ""),
    ('type: "Axpy"', [(2, 3, 1, 1), (2, 3, 2, 4), (2, 3, 2, 4)], ""),
    ('type: "L1Loss"', [(3, 4), (3, 4)], ""),
    ('type: "SmoothL1LossOHEM"', [(3, 4), (3, 4)], ""),
    ('type: "SoftmaxWithLossOHEM"', [(3, 4)], "2 0 3"),
    ('type: "FocalLoss" focal_loss_param { alpha: 0.5 gamma: 1.5 }', [(3, 4)], "2 0 3"),
    ('type: "HardSwish"', [(3, 4)], ""),
    ('type: "HardSigmoid"', [(3, 4)], ""),
]


@pytest.mark.parametrize(("layer", "shapes", "last"), FORKS, ids=lambda v: v.split('"')[1] if isinstance(v, str) and '"' in v else "")
def test_gradients_of_forks_are_the_derivatives(layer: str, shapes: list[tuple[int, ...]], last: str) -> None:
    """In training, away from the kinks; the last bottom, if there is one in numbers, gets none."""
    generator = torch.Generator().manual_seed(1)
    values = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    if last:
        numbers = torch.tensor([float(v) for v in last.split()], dtype=torch.float64)
        values.append(numbers.reshape(-1, 5) if "ROI" in layer else numbers)
    fed = "".join(f'input: "x{i}" input_shape {{ {" ".join(f"dim: {d}" for d in x.shape)} }} ' for i, x in enumerate(values))
    bottoms = " ".join(f'bottom: "x{i}"' for i in range(len(values)))
    net = converters.load(parse_text(f'{fed} layer {{ name: "l" {bottoms} top: "y" {layer} }}'), phase="TRAIN")
    double = CaffeNet(net.graph, Built(copy.deepcopy(net.module).double().train(), net.built.nodes))

    def outputs(*inputs: torch.Tensor) -> torch.Tensor:
        return double.blobs({f"x{i}": x for i, x in enumerate((*inputs, *values[len(shapes) :]))})["y"]

    torch.autograd.gradcheck(outputs, tuple(x.requires_grad_(True) for x in values[: len(shapes)]), atol=1e-5)
