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
