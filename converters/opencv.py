"""The way out of OpenCV 4: what replaces `readNetFromCaffe`, as lines to copy, and the check against OpenCV 4 where it is installed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from prototxt.files import write_file

from .graph import Graph
from .onnx_export import output_names
from .preprocessing import Preprocessing

if TYPE_CHECKING:
    from .net import CaffeNet
    from .proof import Measurement


def write_lines(graph: Graph, prepared: Preprocessing | None, target: Path) -> Path:
    """Write `<name>.opencv.py` beside the ONNX file `target`; its path."""
    path = target.with_suffix(".opencv.py")
    write_file(path, lines(graph, prepared, target.name))
    return path


def lines(graph: Graph, prepared: Preprocessing | None, onnx: str) -> str:
    """Python that reads the ONNX file, feeds it an image as the net was trained, and names the outputs.

    `prepared` is None where mean, scale and channel order are in the file already.
    """
    text = [
        '"""In place of cv2.dnn.readNetFromCaffe. Written by Decant."""',
        "",
        "import cv2",
        "",
        f'net = cv2.dnn.readNetFromONNX("{onnx}")',
    ]
    for blob in graph.inputs:
        shape = graph.blob_shapes[blob]
        if len(shape) == 4 and shape[1] in (1, 3):
            text += _image(blob, shape, prepared)
        else:
            text += [f"net.setInput({_plain(blob)}, {json.dumps(blob)})  # a float32 array of shape {list(shape)}"]
    names = list(output_names(graph).values())
    text += [f"outputs = net.forward({json.dumps(names)})  # {', '.join(f'{list(graph.blob_shapes[b])}' for b in graph.outputs)}"]
    if any(step.type == "DetectionOutput" for step in graph.steps):
        text += ["", "for _, label, score, left, top, right, bottom in outputs[0].reshape(-1, 7):  # corners as shares of width and height"]
        text += ["    print(int(label), score, left, top, right, bottom)"]
    return "\n".join(text) + "\n"


def _image(blob: str, shape: tuple[int, ...], prepared: Preprocessing | None) -> list[str]:
    """`blobFromImage` computes (pixel - mean) * scalefactor, as Caffe does, and images of cv2.imread are B G R, as Caffe's are."""
    channels, height, width = shape[1:]
    options = [f"size=({width}, {height})"]
    if prepared is None:
        options += ["swapRB=True"]
    else:
        options = [f"scalefactor={prepared.scale!r}", *options]
        options += [f"mean={tuple(prepared.mean)!r}"] if prepared.mean else []
        options += ["swapRB=False"] if channels == 3 else []
    read = 'cv2.imread("image.jpg")' if channels == 3 else 'cv2.imread("image.jpg", cv2.IMREAD_GRAYSCALE)'
    said = []
    if prepared is not None and prepared.mean_file and not prepared.mean:
        said = [f"# the mean stands in {prepared.mean_file!r}, which is not at hand: give --mean, or subtract it yourself"]
    elif prepared is not None and not prepared.mean and prepared.scale == 1:
        said = ["# the prototxt says nothing of mean and scale; if the net was trained with some, they go here"]
    return [*said, f"image = {read}", f"net.setInput(cv2.dnn.blobFromImage(image, {', '.join(options)}), {json.dumps(blob)})"]


def _plain(blob: str) -> str:
    from .names import identifiers

    return identifiers([blob], prefix="blob")[0]


def against_importer(net: CaffeNet, prototxt: Path, weights: Path | None) -> tuple[Measurement | None, str]:
    """The module against OpenCV 4 reading the original files, or a note why that cannot be measured here."""
    from .comparison.engine import compare
    from .comparison.runners import Unavailable
    from .comparison.runners.opencv import OpenCVCaffeRunner
    from .proof import ONNX_LIMIT, Measurement

    if weights is None:
        return None, "not compared with OpenCV 4 reading the prototxt: there are no weights"
    try:
        report = compare(OpenCVCaffeRunner(prototxt, weights, net.graph), net, blobs=net.graph.outputs)
    except Unavailable as exc:
        return None, f"not compared with OpenCV 4 reading the prototxt: {exc}"
    worst = report.worst
    if worst is None:
        return None, "not compared with OpenCV 4 reading the prototxt: it shows none of the outputs"
    return Measurement("OpenCV 4 reading Caffe vs module", worst.worst_rel, ONNX_LIMIT, worst.name), ""
