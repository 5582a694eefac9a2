"""How Caffe's nets say multi-label and multi-task, recognised and rewritten as tasks with masks.

idiom                                                          becomes
SigmoidCrossEntropyLoss on K scores                            multilabel (binary for K = 1), "batch_size" unless the file says else
SoftmaxWithLoss on C scores                                    multiclass
SoftmaxWithLoss along axis 1 of [N, 2, K], labels [N, K]       multilabel on the K differences of the two scores: the same loss
Slice of a label matrix, ignore_label                          a column for each task, a mask
two data sets, Concat along the batch, Slice behind the trunk  one batch, in which a row has only its own set's labels

found = pycls.tasks_of(net)                found.tasks, found.others (losses that are none of these)
model = pycls.model_of(net)                the net's own layers and weights as trunk and heads
x, targets, masks = found.batch(feed)      what the net's data layers feed, as a batch of the model
The sum of the losses and every gradient are those of the net; tests hold both against real Caffe.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from converters.edit import joined, trunk_of
from converters.graph import Graph, Step, Value
from converters.net import CaffeNet
from prototxt.errors import TaskError

from .heads import Branch, MultiTaskModel
from .tasks import Task

PASSING = ("Split", "Flatten", "Reshape")
NORMALIZATION = {"VALID": "valid", "FULL": "full", "BATCH_SIZE": "batch_size", "NONE": "none"}


@dataclass(frozen=True, slots=True)
class Reading:
    """Where a task of a net stands: its scores, and the columns of a label blob; `rows` of the joined batch, or all.

    `pairs`: the scores are [N, 2, K], and the task's logits their differences.
    """

    task: Task
    loss: str
    scores: Value
    labels: str
    columns: tuple[int, int]
    ignored: int | None
    pairs: bool = False
    rows: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """The tasks of a net. `others` are its losses that are no classification by these idioms; `inputs` the blobs that make the batch."""

    readings: tuple[Reading, ...]
    others: tuple[str, ...]
    inputs: tuple[str, ...]

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks, in the order of their losses."""
        return tuple(reading.task for reading in self.readings)

    def batch(self, feed: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        """Images, targets and masks of the model from {blob: tensor} as the net takes it."""
        parts = [feed[blob] for blob in self.inputs]
        x = torch.cat(parts)
        targets, masks = {}, {}
        for reading in self.readings:
            labels = feed[reading.labels].to(x.device)
            offset = 0 if reading.rows is None else self._offset(reading, parts)
            target, mask = _read(reading, labels)
            rows = slice(offset, offset + len(labels))
            targets[reading.task.name] = torch.zeros(len(x), *target.shape[1:], dtype=target.dtype, device=x.device)
            masks[reading.task.name] = torch.zeros_like(targets[reading.task.name], dtype=torch.bool)
            targets[reading.task.name][rows], masks[reading.task.name][rows] = target, mask
        return x, targets, masks

    def _offset(self, reading: Reading, parts: list[Tensor]) -> int:
        """Where the rows of a reading begin, by the batch sizes of this feed."""
        starts = sorted({r.rows[0] for r in self.readings if r.rows is not None})
        return sum(len(part) for part in parts[: starts.index(reading.rows[0] if reading.rows else 0)])


def tasks_of(net: CaffeNet) -> Found:
    """The tasks of a net in its TRAIN phase, from its losses. TaskError if it has none that is recognised."""
    return _found(net)[1]


def model_of(net: CaffeNet) -> MultiTaskModel:
    """The net as a trunk with a head for each task, on its own layers and weights: one batch in, logits by task out.

    A head is the layer that makes the scores; parameter groups keep Caffe's multipliers.
    """
    one, found = _found(net)
    makers = {reading.task.name: _maker(one.graph, reading.scores) for reading in found.readings}
    places = {name: _place(step.bottoms[0]) for name, step in makers.items()}
    trunk = trunk_of(one, list(dict.fromkeys(places.values())), ())
    branches = [Branch((name,), at=place, pool="flatten") for name, place in places.items()]
    model = MultiTaskModel(trunk, found.tasks, branches)
    for reading in found.readings:
        step, key = makers[reading.task.name], model.keys[reading.task.name]
        module = one.module.get_submodule(step.key)
        model.heads[key] = nn.Sequential(module, _Differences()) if reading.pairs else module
        for param in step.params:
            name = f"heads.{key}.0.{param.blob.name}" if reading.pairs else f"heads.{key}.{param.blob.name}"
            model.multipliers[name] = (param.spec.lr_mult, param.spec.decay_mult)
    return model


class _Differences(nn.Module):
    """Scores [N, 2 K] of "no" and "yes" -> [N, K]: a softmax over two is a sigmoid of the difference."""

    def forward(self, x: Tensor) -> Tensor:
        """Shapes [N, 2 K] -> [N, K]."""
        no, yes = x.flatten(1).unflatten(1, (2, -1)).unbind(1)
        return yes - no


def _found(net: CaffeNet) -> tuple[CaffeNet, Found]:
    one, together, rows = joined(net)
    readings, others = list[Reading](), list[str]()
    for step in net.graph.steps:
        if not any(step.loss_weights):
            continue
        reading = _reading(net.graph, one.graph, step, rows)
        if reading is None:
            others.append(step.name)
        else:
            readings.append(reading)
    if not readings:
        known = "SoftmaxWithLoss and SigmoidCrossEntropyLoss on labels from the data"
        raise TaskError(f"the net has no task to find: {known} are; is it loaded with phase TRAIN?")
    inputs = together or _images(net.graph, readings)
    if len({r.task.name for r in readings}) != len(readings):
        raise TaskError(f"two losses would give one task: {[r.task.name for r in readings]}; rename the layers")
    return one, Found(tuple(readings), tuple(others), inputs)


def _reading(graph: Graph, one: Graph, step: Step, rows: Mapping[str, tuple[int, int]]) -> Reading | None:
    """The reading of a loss, or None if it is none of the idioms."""
    if step.type not in ("SoftmaxWithLoss", "SigmoidCrossEntropyLoss"):
        return None
    labels = _labels(graph, step.bottoms[1])
    maker = _maker(one, _now(one, step).bottoms[0])
    if labels is None or maker.type != "InnerProduct":
        return None
    blob, columns = labels
    shape, args = step.bottom_shapes[0], step.recipe.args
    softmax = step.type == "SoftmaxWithLoss"
    pairs = softmax and len(shape) >= 3 and shape[1] == 2 and shape[2] > 1 and max(shape[3:], default=1) == 1
    if softmax and (args["axis"] != 1 or (max(shape[2:], default=1) > 1 and not pairs)):
        return None
    span = next((rows[value.blob] for value in _upstream(graph, step.bottoms[0]) if value.blob in rows), None)
    count = shape[2] if pairs else shape[1]
    kind = "multilabel" if pairs or (not softmax and count > 1) else "multiclass" if softmax else "binary"
    normalization = NORMALIZATION[args["normalization"]]
    weight = next(w for w in step.loss_weights if w)
    if span is not None and normalization in ("full", "batch_size"):  # the batch is larger now than the rows that the loss saw
        weight *= one.values[Value(one.inputs[0])][0] / (span[1] - span[0])
    task = Task(_task_name(step), kind, () if kind == "binary" else count, weight=weight, normalization=normalization)  # type: ignore[arg-type]
    return Reading(task, step.name, maker.tops[0], blob, columns, args.get("ignore_label"), pairs, span)


def _now(one: Graph, step: Step) -> Step:
    return next(s for s in one.steps if s.key == step.key)


def _maker(graph: Graph, value: Value) -> Step:
    """The layer that computes a value: behind it lie only changes of shape."""
    step = next(s for s in graph.steps if value in s.tops)
    while step.type in PASSING:
        value = step.bottoms[0]
        step = next(s for s in graph.steps if value in s.tops)
    return step


def _labels(graph: Graph, value: Value) -> tuple[str, tuple[int, int]] | None:
    """The input that labels come from, and their columns in it."""
    if value in {Value(blob) for blob in graph.inputs}:
        shape = graph.values[value]
        return value.blob, (0, max([1, *shape[1:]]))
    step = next((s for s in graph.steps if value in s.tops), None)
    if step is None or step.type not in (*PASSING, "Slice"):
        return None
    source = _labels(graph, step.bottoms[0])
    if source is None or step.type != "Slice":
        return source
    if step.recipe.args["dim"] != 1 or max(step.bottom_shapes[0][2:], default=1) > 1:
        return None
    start = source[1][0] + sum(shape[1] for shape in step.shapes[: step.tops.index(value)])
    return source[0], (start, start + step.shapes[step.tops.index(value)][1])


def _upstream(graph: Graph, value: Value) -> set[Value]:
    found = {value}
    for step in reversed(graph.steps):
        if found & set(step.tops):
            found |= set(step.bottoms)
    return found


def _images(graph: Graph, readings: list[Reading]) -> tuple[str, ...]:
    made = set[Value]().union(*(_upstream(graph, reading.scores) for reading in readings))
    return tuple(blob for blob in graph.inputs if Value(blob) in made)


def _place(value: Value) -> str:
    return f"{value.blob}@{value.version}"


def _task_name(step: Step) -> str:
    """The loss layer's name without "loss"; of a layer that is called that and no more, the name of its scores."""
    for name in (step.name, step.bottoms[0].blob):
        words = [word for word in name.split("_") if word.lower() not in ("loss", "scores", "score")]
        if words:
            return "_".join(words)
    return step.bottoms[0].blob


def _read(reading: Reading, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Target and mask of a reading from its label blob, as Caffe reads floats: cut towards zero."""
    values = labels.reshape(len(labels), -1)[:, slice(*reading.columns)]
    whole = values.trunc().long()
    mask = torch.ones_like(whole, dtype=torch.bool) if reading.ignored is None else whole != reading.ignored
    if reading.task.kind == "multilabel":
        return whole.to(values.dtype) if reading.pairs else values, mask
    return (whole[:, 0] if reading.task.kind == "multiclass" else values[:, 0]), mask[:, 0]


def describe(found: Found) -> list[dict[str, Any]]:
    """Each task in plain values, with where its labels stand."""
    return [{**reading.task.to_dict(), "labels": reading.labels, "columns": list(reading.columns)} for reading in found.readings]
