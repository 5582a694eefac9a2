"""Why a pass went wrong: the first blob that is not finite, the sample whose label is none of the classes. Runs only after the fact."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from converters.labels import labels_of
from converters.net import CaffeNet
from converters.to_torch import BlobRecorder, held
from prototxt import DataError, DecantError


def first_bad(net: CaffeNet, inputs: Mapping[str, Tensor]) -> str:
    """The first thing in the order of the layers that is not finite: an input, a parameter or a blob, and of which layer."""
    for layer in net.graph.data_layers:
        for blob in layer.tops:
            if blob in inputs and not inputs[blob].isfinite().all():
                return f"blob {blob!r} of data layer {layer.name!r}"
    recorder = BlobRecorder(net.built)
    with torch.no_grad():
        recorder.record(inputs[name] for name in net.graph.inputs)
    for step in net.graph.steps:
        for i in range(len(step.params)):
            if not held(net.module.get_submodule(step.key), step, i).isfinite().all():
                return f"parameter {i} of layer {step.name!r} ({step.place})"
        for top in step.tops:
            if top in recorder.seen and not recorder.seen[top].isfinite().all():
                return f"blob {top.blob!r} of layer {step.name!r} ({step.place})"
    return "the loss, a sum of finite blobs"


def label_guard(net: CaffeNet) -> Callable[[Mapping[str, Tensor], Mapping[str, Sequence[int]]], None]:
    """A check of a batch (blobs, records) before it is used: DataError that names the sample whose label is none of the classes."""
    homes = {top: layer.name for layer in net.graph.data_layers for top in layer.tops}
    fed = [labels for labels in filter(None, map(labels_of, net.graph.steps)) if labels.blob.version == 0 and labels.blob.blob in homes]

    def guard(blobs: Mapping[str, Tensor], records: Mapping[str, Sequence[int]]) -> None:
        for labels in fed:
            if labels.blob.blob in blobs:
                labels.check(blobs[labels.blob.blob].numpy(), records.get(homes[labels.blob.blob], ()))

    return guard


def bad_label(net: CaffeNet, inputs: Mapping[str, Tensor], records: Mapping[str, Sequence[int]]) -> DecantError | None:
    """The error that names the sample of a label out of range, wherever in the net it is read; None if all labels are in range."""
    recorder = BlobRecorder(net.built)
    with torch.no_grad(), contextlib.suppress(DecantError):  # the layer that failed fails again; its bottoms are recorded
        recorder.record(inputs[name] for name in net.graph.inputs)
    listed = next((r for r in records.values() if len(r)), ())
    for labels in filter(None, map(labels_of, net.graph.steps)):
        if labels.blob in recorder.seen:
            try:
                labels.check(recorder.seen[labels.blob].cpu().numpy(), listed)
            except DataError as exc:
                return exc
    return None
