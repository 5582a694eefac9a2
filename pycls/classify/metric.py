"""Losses on the features that a task's head reads, beside the loss of its logits: center, triplet, contrastive, ArcFace, CosFace.

center, arcface and cosface are sums over rows, divided by the rows of the whole step that have a class: accumulation and processes change
nothing. Triplets and pairs are those of one batch of one process; the step has their mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn

from prototxt import ConfigError

from ..distributed import World
from ..heads import MultiTaskModel
from ..losses.center import CenterLoss
from ..losses.contrastive import contrastive_of_batch
from ..losses.margin import MARGINS, MarginSoftmax
from ..losses.multi_task import meant
from ..losses.triplet import triplet_loss
from ..tasks import Task
from .config import ContrastiveConfig, MetricConfig, TaskConfig, TripletConfig
from .feed import Batch

Named = Mapping[str, Tensor]


class WithFeatures(nn.Module):
    """The model, with what its heads read: images -> ({task: logits}, {task: features [N, D]})."""

    def __init__(self, model: MultiTaskModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Both by task."""
        features = self.model.features(x)
        return self.model.logits(features), features


class MetricLosses(nn.Module):
    """The losses on features of a config, for the tasks that have some; falsy without any. A step is `begin`, calls, `update`.

    What learns by gradients (the classes of ArcFace and CosFace) is in `parameters`, the centers in the buffers: `state_dict` has both.
    """

    def __init__(self, configs: Mapping[str, TaskConfig], model: MultiTaskModel, world: World) -> None:
        super().__init__()
        self.world = world
        self.configs = {task.name: _chosen(configs[task.name].metric) for task in model.tasks if task.name in configs}
        self.configs = {name: chosen for name, chosen in self.configs.items() if chosen}
        self.keys = model.keys
        self.losses = nn.ModuleDict()
        for name, chosen in self.configs.items():
            classes, width = _classes(model.task(name)), model.neck(name).width
            for loss, c in chosen.items():
                if loss == "center":
                    self.losses[f"{self.keys[name]}_{loss}"] = CenterLoss(classes, width, alpha=c.alpha)
                elif loss in MARGINS:
                    self.losses[f"{self.keys[name]}_{loss}"] = MarginSoftmax(classes, width, kind=loss, margin=c.margin, scale=c.scale)
        self._counts: dict[str, Tensor] = {}
        self._batches: dict[str, int] = {}
        self._sums: dict[str, Tensor] = {}
        self._steps = 0

    def __bool__(self) -> bool:
        return bool(self.configs)

    def begin(self, batches: Iterable[tuple[Batch, tuple[Task, ...]]], device: torch.device) -> None:
        """Count the rows with a class, and the batches, of a step: {task: of all processes}."""
        counts = {name: torch.zeros((), device=device) for name in self.configs}
        self._batches = dict.fromkeys(self.configs, 0)
        for batch, tasks in batches:
            for task in tasks:
                if task.name in counts:
                    counts[task.name] += (_class_rows(task, batch) >= 0).sum().to(device)
                    self._batches[task.name] += 1
        self._counts = {name: self.world.sum_(count) for name, count in counts.items()}
        self._steps += 1

    def forward(self, features: Named, batch: Batch, tasks: Iterable[Task]) -> dict[str, Tensor]:
        """What each task's loss gets besides, of a batch of the step; its mean over processes is that of the step."""
        made: dict[str, Tensor] = {}
        for task in tasks:
            for loss, c in self.configs.get(task.name, {}).items():
                value = self._loss(loss, c, task.name, features[task.name], _class_rows(task, batch))
                made[task.name] = made.get(task.name, 0) + c.weight * value
                label = f"{task.name}.{loss}"
                self._sums[label] = self._sums.get(label, torch.zeros((), device=value.device)) + value.detach()
        return made

    def _loss(self, loss: str, c: Any, name: str, features: Tensor, classes: Tensor) -> Tensor:
        if isinstance(c, TripletConfig):
            value = triplet_loss(features, classes, margin=c.margin, miner=c.miner, squared=c.squared, swap=c.swap, reduction=c.reduction)
            return value / self._batches[name]
        if isinstance(c, ContrastiveConfig):
            return contrastive_of_batch(features, classes, margin=c.margin, legacy=c.legacy) / self._batches[name]
        made: Tensor = self.losses[f"{self.keys[name]}_{loss}"](features, classes, divisor=self._counts[name].clamp(min=1) / self.world.size)
        return made

    def update(self, taken: bool) -> None:
        """Move the centers by the rows of the step, if the optimizer took it."""
        for module in self.losses.values():
            if isinstance(module, CenterLoss):
                module.update() if taken else module.discard()

    def read(self) -> dict[str, float]:
        """Each loss by `task.loss`, without its weight: the mean over steps and processes since the last reading."""
        found = {label: float(self.world.sum_(total.clone())) / max(self._steps, 1) / self.world.size for label, total in self._sums.items()}
        self._sums, self._steps = {}, 0
        return found

    def parameter_groups(self, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """What the optimizer has to learn besides the model."""
        learned = list(self.parameters())
        return [{"name": "metric", "params": learned, "lr": lr, "lr_mult": 1.0, "weight_decay": weight_decay}] if learned else []


def _chosen(config: MetricConfig) -> dict[str, Any]:
    """The losses that a config has, by name."""
    found = {field.name: getattr(config, field.name) for field in fields(config)}
    return {name: chosen for name, chosen in found.items() if chosen is not None}


def _classes(task: Task) -> int:
    if task.kind not in ("binary", "multiclass"):
        raise ConfigError(f"tasks.{task.name}.metric: a loss on features needs one class a row, and the task is of kind {task.kind}")
    return 2 if task.kind == "binary" else task.outputs


def _class_rows(task: Task, batch: Batch) -> Tensor:
    """The class of each row [N]; -1 where it is missing."""
    target, mask = meant(task, batch.targets[task.name], batch.masks[task.name])
    return target.long() if mask is None else torch.where(mask, target, -1).long()
