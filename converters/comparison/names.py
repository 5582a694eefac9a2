"""Names of blob versions, as comparisons and ONNX files have them: `conv1` as it was last, `conv1@0` before a layer wrote it in place."""

from __future__ import annotations

from ..graph import Graph, Value
from ..onnx_export import output_names


def value_names(graph: Graph) -> dict[Value, str]:
    """The name of each value, in the net's order."""
    last = graph.last
    return {v: v.blob if last[v.blob] == v and v.blob not in graph.views else f"{v.blob}@{v.version}" for v in graph.values}


def onnx_names(graph: Graph) -> dict[str, str]:
    """{our name: the name in an ONNX file of ours}; without the blobs that the file has no name for."""
    outputs, last = output_names(graph), graph.last
    names = {}
    for value, name in value_names(graph).items():
        if value.blob in outputs and last[value.blob] == value:
            names[name] = outputs[value.blob]
        elif value.version == 0 and value.blob in graph.inputs:
            names[name] = value.blob
        elif value.blob not in graph.inputs:
            names[name] = value.blob if last[value.blob] == value else f"{value.blob}@{value.version}"
    return names
