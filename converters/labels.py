"""Which blobs of a graph are read as classes, and how many there are: so that a label out of range is refused, with its sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from .graph import Graph, Step, Value

_ALONG_AXIS = ("SoftmaxWithLoss", "InfogainLoss", "Accuracy", "SoftmaxWithLossOHEM", "FocalLoss", "SoftmaxFocalLoss")
_BEHIND_BATCH = ("HingeLoss", "MultinomialLogisticLoss")


@dataclass(frozen=True, slots=True)
class Labels:
    """A step reads `blob` as classes 0 to classes - 1; `ignore` are the labels that it passes over."""

    step: Step
    blob: Value
    classes: int
    ignore: tuple[int, ...]

    def check(self, values: Any, records: Sequence[int] = ()) -> None:
        """DataError with the sample, or its number in the source, if a label is none of the classes."""
        from prototxt.data import check_labels

        place = f"{self.step.place}: layer {self.step.name!r} ({self.step.type}): blob {self.blob.blob!r}"
        check_labels(values, self.classes, records=records, place=place, ignore=self.ignore)


def labels_of(step: Step) -> Labels | None:
    """What a loss or an Accuracy reads as classes; None for every other layer."""
    args = step.recipe.args
    if step.type in _ALONG_AXIS:
        classes = step.bottom_shapes[0][args["axis"]]
    elif step.type in _BEHIND_BATCH:
        classes = prod(step.bottom_shapes[0][1:])
    elif step.type == "SegAccuracy":
        classes = step.bottom_shapes[0][1]
    elif step.type == "CenterLoss":
        classes = args["classes"]
    else:
        return None
    ignored = (args["ignore_label"],) if args.get("ignore_label") is not None else args.get("ignored", ())
    return Labels(step, step.bottoms[1], classes, ignored)


def check_fed(graph: Graph, blobs: Mapping[str, Any], records: Mapping[str, Sequence[int]] | None = None) -> None:
    """Check the labels among the blobs that are fed, as numpy arrays; `records` are the numbers of the samples by data layer."""
    homes = {top: layer.name for layer in graph.data_layers for top in layer.tops}
    for labels in filter(None, map(labels_of, graph.steps)):
        if labels.blob.version == 0 and labels.blob.blob in blobs and labels.blob.blob in homes:
            labels.check(blobs[labels.blob.blob], (records or {}).get(homes[labels.blob.blob], ()))
