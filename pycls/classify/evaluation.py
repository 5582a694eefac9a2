"""What a net says of a list: its logits for every row, once each, over all processes; and the figures that follow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..distributed import World
from ..labels import LabelTable
from ..tasks import Task
from .config import Config, TtaConfig
from .feed import Rows, batches, target, testing_plan, to_device
from .images import Array


@dataclass(frozen=True, slots=True)
class Predictions:
    """Logits, targets and masks by task for the rows of a table that decode; `broken` are the errors of those that do not."""

    tasks: tuple[Task, ...]
    table: LabelTable
    logits: Mapping[str, Array]
    targets: Mapping[str, Array]
    masks: Mapping[str, Array]
    broken: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.table)


Net = Callable[[Tensor], Mapping[str, Tensor]]


def predict(
    net: nn.Module, prepare: nn.Module, rows: Rows, tasks: Sequence[Task], config: Config, device: torch.device, world: World | None = None
) -> Predictions:
    """Run the net over the rows. Each process takes its share, and all get all of it; a row counts once, whatever the number of processes."""
    world = world or World()
    plan = testing_plan(len(rows), config.data.batch, world)
    logits = {task.name: torch.zeros((len(rows), task.outputs)) for task in tasks}
    seen, broken = torch.zeros(len(rows)), list[str]()
    training = net.training
    net.eval()
    with torch.inference_mode(), autocast(config, device):
        for batch in batches(rows, plan, config.data.workers, pin=device.type == "cuda"):
            broken += batch.broken
            if not len(batch):
                continue
            made = viewed(net, prepare(to_device(batch, device).images), config.tta, tasks)
            for name, values in made.items():
                logits[name][batch.rows] = values.float().cpu()
            seen[batch.rows] = 1
    net.train(training)
    for tensor in (*logits.values(), seen):
        _summed(tensor, world, device)
    kept = np.flatnonzero(seen.numpy())
    table = rows.table.take(kept) if len(kept) < len(rows) else rows.table
    pairs = {task.name: target(table, task) for task in tasks}
    return Predictions(
        tasks=tuple(tasks),
        table=table,
        logits={name: values.numpy()[kept] for name, values in logits.items()},
        targets={name: values for name, (values, _) in pairs.items()},
        masks={name: mask for name, (_, mask) in pairs.items()},
        broken=tuple(broken),
    )


def _summed(tensor: Tensor, world: World, device: torch.device) -> None:
    """Add up what the processes have, each its own rows and zeros."""
    if world.size > 1:
        there = tensor.to(device)
        world.sum_(there)
        tensor.copy_(there)


def autocast(config: Config, device: torch.device) -> AbstractContextManager[Any]:
    """The precision of the config."""
    if config.train.amp == "off":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16 if config.train.amp == "bf16" else torch.float16)


VIEWS: Mapping[str, Callable[[Tensor], list[Tensor]]] = {
    "flip": lambda x: [x.flip(-1)],
    "vertical_flip": lambda x: [x.flip(-2)],
    "rotate": lambda x: [x.rot90(k, (-2, -1)) for k in (1, 2, 3)],
}


def viewed(net: Net, images: Tensor, tta: TtaConfig, tasks: Sequence[Task]) -> Mapping[str, Tensor]:
    """Logits of the images, or of their views joined: the mean or the largest."""
    if not tta.views:
        return net(images)
    if "rotate" in tta.views and images.shape[-1] != images.shape[-2]:
        from prototxt import ConfigError

        raise ConfigError(f"tta.views: rotate needs square images, and these are {images.shape[-2]} x {images.shape[-1]}")
    made = [net(view) for view in (images, *(v for name in tta.views for v in VIEWS[name](images)))]
    stacked = {task.name: torch.stack([m[task.name] for m in made]) for task in tasks}
    return {name: values.mean(0) if tta.join == "mean" else values.amax(0) for name, values in stacked.items()}
