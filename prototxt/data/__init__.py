"""Caffe's data: databases, lists and files of pictures and numbers, transformed as Caffe transforms them. numpy, never torch.

batches(net, phase)            the tops of the data layers, pass after pass (also as prototxt.batches)
samples(net, phase)            a data layer as a sequence, which torch's DataLoader takes as it is
record_shape(layer)            the shapes of a data layer's tops, looked up in its source
open_database(path)            an LMDB or a LevelDB: values by position
Records, Pictures, LabelList   databases and lists as sequences
read_mean, write_mean          mean files
convert_imageset, compute_mean Caffe's two tools
check_labels                   refuses labels that name no class, with the sample
"""

from __future__ import annotations

from typing import Any

_HOMES = {
    "Batches": "layer_batches",
    "LabelList": "lists",
    "LevelDb": "leveldb_reader",
    "Lmdb": "lmdb_reader",
    "Pictures": "lists",
    "Records": "databases",
    "Samples": "layer_samples",
    "Transform": "transform",
    "batches": "layer_batches",
    "check_labels": "labels",
    "compute_mean": "tools",
    "convert_imageset": "tools",
    "open_database": "databases",
    "read_mean": "mean",
    "record_shape": "shapes",
    "samples": "layer_samples",
    "write_mean": "mean",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'prototxt.data' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"prototxt.data.{_HOMES[name]}"), name)
