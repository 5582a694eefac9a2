"""Names of blob versions, as comparisons and ONNX files have them: `conv1` as it was last, `conv1@0` before a layer wrote it in place."""

from __future__ import annotations

from ..graph import Graph
from ..onnx_export import output_names


def onnx_names(graph: Graph) -> dict[str, str]:
    """{our name: the name in an ONNX file of ours}; without the blobs that the file has no name for."""
    outputs, last = output_names(graph), graph.last
    names = {}
    for value, name in graph.value_names.items():
        if value.blob in outputs and last[value.blob] == value:
            names[name] = outputs[value.blob]
        elif value.version == 0 and value.blob in graph.inputs:
            names[name] = value.blob
        elif value.blob not in graph.inputs:
            names[name] = value.blob if last[value.blob] == value else f"{value.blob}@{value.version}"
    return names
