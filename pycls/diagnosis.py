"""Why a pass went wrong: the first blob that is not finite, the sample whose label is none of the classes. Runs only after the fact."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from converters.graph import Step, Value
from converters.net import CaffeNet
from converters.to_torch import BlobRecorder, held
from prototxt import DataError, DecantError
from prototxt.data import check_labels

# Layers that read classes from their second bottom, by type.
LABELLED = ("Accuracy", "HingeLoss", "InfogainLoss", "MultinomialLogisticLoss", "SoftmaxWithLoss")


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


def classes_of(step: Step) -> tuple[int, float | None] | None:
    """(how many classes a layer's label may name, the label it ignores), if it reads one."""
    if step.type not in LABELLED:
        return None
    shape, axis, ignored = step.bottom_shapes[0], step.recipe.args.get("axis"), step.recipe.args.get("ignore_label")
    classes = prod(shape[1:]) if axis is None else shape[axis]  # HingeLoss and MultinomialLogisticLoss flatten
    return classes, None if ignored is None else float(ignored)


def label_guard(net: CaffeNet) -> Callable[[Mapping[str, Tensor], Mapping[str, Sequence[int]]], None]:
    """A check of a batch (blobs, records) before it is used: DataError that names the sample whose label is none of the classes."""
    checks = _fed_labels(net)

    def guard(blobs: Mapping[str, Tensor], records: Mapping[str, Sequence[int]]) -> None:
        for blob, layer, classes, ignored in checks:
            if blob in blobs:
                _check(blobs[blob].numpy(), classes, ignored, records.get(layer, ()), f"layer {layer!r}")

    return guard


def _fed_labels(net: CaffeNet) -> list[tuple[str, str, int, float | None]]:
    """(blob, data layer, classes, ignored) of the labels that come from a data layer as they are."""
    source = {top: layer.name for layer in net.graph.data_layers for top in layer.tops}
    checks = []
    for step in net.graph.steps:
        limits = classes_of(step)
        if limits and step.bottoms[1] == Value(step.bottoms[1].blob) and step.bottoms[1].blob in source:
            checks.append((step.bottoms[1].blob, source[step.bottoms[1].blob], *limits))
    return list(dict.fromkeys(checks))


def _check(labels: Any, classes: int, ignored: float | None, records: Sequence[int], place: str) -> None:
    """DataError that names the record of a label out of range; a broken one counts by its whole part, as in Caffe."""
    check_labels(np.trunc(labels), classes, records=records, place=place, ignore=ignored)


def bad_label(net: CaffeNet, inputs: Mapping[str, Tensor], records: Mapping[str, Sequence[int]]) -> DecantError | None:
    """The error that names the sample of a label out of range, wherever in the net it is read; None if all labels are in range."""
    recorder = BlobRecorder(net.built)
    try:
        with torch.no_grad():
            recorder.record(inputs[name] for name in net.graph.inputs)
    except DecantError:
        pass  # the layer that failed; its bottoms were recorded
    listed = next((r for r in records.values() if len(r)), ())
    for step in net.graph.steps:
        limits = classes_of(step)
        label = recorder.seen.get(step.bottoms[1]) if limits else None
        if limits and label is not None:
            inner = max(1, label.numel() // max(1, label.shape[0])) if label.dim() else 1
            of_label = [record for record in listed for _ in range(inner)]
            try:
                _check(label.cpu().numpy(), *limits, of_label, f"layer {step.name!r} ({step.place})")
            except DataError as exc:
                return exc
    return None
