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
from prototxt import NetError


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
