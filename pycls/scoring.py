"""`test`: the outputs of a net over batches of its own data, one by one and their means, as `caffe test` prints them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from converters.graph import resolve
from converters.net import CaffeNet, build
from converters.to_torch import returning
from prototxt.data import Batches
from prototxt.net import read_net
from prototxt.rules import State

from .diagnosis import label_guard
from .feeding import Batch, LayerFeed
from .progress import Progress


@dataclass(frozen=True, slots=True)
class Score:
    """`outputs` are the means over the batches, number by number; `loss` is the mean of the objective."""

    net: CaffeNet
    iterations: int
    loss: float
    outputs: dict[str, list[float]]

    def text(self) -> str:
        """As Caffe ends: the loss, then each output's mean."""
        weights = {value.blob: weight for value, weight in self.net.graph.losses}
        lines = [f"Loss: {self.loss:.6g}"]
        for name, numbers in self.outputs.items():
            note = f" (* {weights[name]:g} = {weights[name] * numbers[0]:.6g} loss)" if name in weights else ""
            lines += [f"{name} = {number:.6g}{note}" for number in numbers]
        return "\n".join(lines)


def score(
    path: str | Path,
    weights: str | Path,
    iterations: int = 50,
    *,
    stages: Sequence[str] = (),
    level: int = 0,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Score:
    """Run `iterations` batches of the net's data layers in phase TEST."""
    progress = progress or Progress(quiet=True)
    definition = read_net(path, State("TEST", level, tuple(stages)))
    net = build(resolve(definition))
    net.load(weights)
    net.module.to(device)
    names = dict.fromkeys([*(net.graph.last[name] for name in net.graph.outputs), *(value for value, _ in net.graph.losses)])
    module, guard = returning(net.built, list(names)), label_guard(net)

    def checked(batch: Batch) -> Batch:
        guard(*batch)
        return batch

    feed = LayerFeed(Batches(definition), checked)
    loss, sums = 0.0, dict[str, torch.Tensor]()
    with torch.no_grad(), progress.bar(iterations, title=Path(path).name):
        for i in range(iterations):
            inputs = feed.next().blobs
            values = dict(zip(names, module(*(inputs[name].to(device) for name in net.graph.inputs)), strict=True))
            loss += sum(float(values[value].sum()) * weight for value, weight in net.graph.losses)
            for name in net.graph.outputs:
                value = values[net.graph.last[name]].double().flatten().cpu()
                sums[name] = sums[name] + value if name in sums else value
                progress.say(f"Batch {i}, {name} = {', '.join(f'{v:.6g}' for v in value[:10].tolist())}")
            progress.at(i + 1)
    return Score(net, iterations, loss / iterations, {name: (total / iterations).tolist() for name, total in sums.items()})
