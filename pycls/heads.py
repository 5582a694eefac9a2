"""Heads on a trunk: a converted net, or any torch module, cut at a blob or a submodule; one head a task.

model = pycls.attach_heads(net, at="pool5", tasks=[Task("gender", "binary"), Task("hair", "multiclass", ("black", "brown", "fair"))])
model(x)                                {"gender": [N, 1], "hair": [N, 3]}    logits
model.freeze(until="conv4")             the trunk up to there learns nothing, its BatchNorm counts nothing; freeze(None) frees all
model.parameter_groups(lr, weight_decay)                                     for any torch optimizer, multipliers inside
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from converters.edit import Trunk, trunk_of
from converters.names import identifiers
from prototxt.errors import TaskError

from .tasks import Task, check_tasks, one_of

POOLS = ("avg", "max", "avgmax", "flatten")
NORMS = nn.modules.batchnorm._BatchNorm


@dataclass(frozen=True, slots=True)
class Branch:
    """Tasks that share more than the trunk: where it leaves, what lies before its heads, how fast it learns, which samples it wants.

    `at` is the blob or submodule that it reads; the model's own by default. What comes from there is pooled over its spatial axes
    (`pool`: avg, max, avgmax side by side, or flatten, as Caffe's InnerProduct does), then goes through a hidden layer with ReLU for
    each width in `hidden`. With `detach` the branch sends no gradient into the trunk. A `cosine` head has no bias and gives cosines, as LDAM
    needs them.
    `sampler` names the draw that the branch wants its samples by (pycls.samplers); the trainer reads it.
    """

    tasks: tuple[str, ...]
    at: str = ""
    pool: str = "avg"
    hidden: tuple[int, ...] = ()
    dropout: float = 0.0
    cosine: bool = False
    lr_mult: float = 1.0
    detach: bool = False
    sampler: str = ""


class CosineHead(nn.Module):
    """Cosines of the features [N, D] with a vector for each output -> [N, outputs]."""

    def __init__(self, features: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(outputs, features)))

    def forward(self, x: Tensor) -> Tensor:
        """Shapes [N, D] -> [N, outputs]."""
        return F.linear(F.normalize(x), F.normalize(self.weight))


class OrdinalHead(nn.Module):
    """One score of the features [N, D] and a bias for each step of the order -> [N, steps]; biases fall at first, and so do the outputs."""

    def __init__(self, features: int, outputs: int) -> None:
        super().__init__()
        self.score = nn.Linear(features, 1, bias=False)
        self.bias = nn.Parameter(torch.linspace(3.0, -3.0, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Shapes [N, D] -> [N, steps]."""
        return self.score(x) + self.bias


class Neck(nn.Module):
    """What a branch does before its heads: features [N, C, ...] -> [N, D]."""

    def __init__(self, shape: Sequence[int], branch: Branch) -> None:
        super().__init__()
        self.pool, self.detach = branch.pool, branch.detach
        channels = 1
        for size in shape[1:] if branch.pool == "flatten" else shape[1:2]:
            channels *= size
        width = channels * (2 if branch.pool == "avgmax" and len(shape) > 2 else 1)
        layers: list[nn.Module] = []
        for hidden in branch.hidden:
            layers += [nn.Linear(width, hidden), nn.ReLU()]
            width = hidden
        self.layers = nn.Sequential(*layers, *([nn.Dropout(branch.dropout)] if branch.dropout else []))
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        """Shapes [N, C, ...] -> [N, D]."""
        x = x.detach() if self.detach else x
        x = x.flatten(1) if self.pool == "flatten" or x.ndim == 2 else self._pooled(x.flatten(2))
        return self.layers(x)

    def _pooled(self, x: Tensor) -> Tensor:
        if self.pool == "avgmax":
            return torch.cat([x.mean(2), x.amax(2)], 1)
        return x.mean(2) if self.pool == "avg" else x.amax(2)


class MultiTaskModel(nn.Module):
    """A trunk, branches and a head for each task: an image batch in, {task: logits [N, outputs]} out. Made by `attach_heads`."""

    def __init__(self, trunk: Trunk, tasks: Iterable[Task], branches: Iterable[Branch]) -> None:
        super().__init__()
        self.tasks, self.branches = check_tasks(tasks), tuple(branches)
        self.trunk, self.places = trunk.module, trunk.places
        self.layers, self.multipliers = trunk.layers, trunk.multipliers
        self.keys = dict(zip([t.name for t in self.tasks], identifiers([t.name for t in self.tasks], prefix="task"), strict=True))
        self.necks, self.heads = nn.ModuleList(), nn.ModuleDict()
        self.frozen: tuple[str, ...] = ()
        for branch in self.branches:
            neck = Neck(trunk.shapes[branch.at or self.places[0]], branch)
            self.necks.append(neck)
            for name in branch.tasks:
                self.heads[self.keys[name]] = head(self.task(name), neck.width, cosine=branch.cosine)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Logits by task, in the tasks' order."""
        features = self.features(x)
        return {task.name: self.heads[self.keys[task.name]](features[task.name]) for task in self.tasks}

    def features(self, x: Tensor) -> dict[str, Tensor]:
        """What each task's head reads, [N, D]; tasks of one branch share one tensor."""
        values = self.trunk(x)
        values = values if isinstance(values, dict) else {self.places[0]: values}
        found = {}
        for branch, neck in zip(self.branches, self.necks, strict=True):
            made = neck(values[branch.at or self.places[0]])
            found.update(dict.fromkeys(branch.tasks, made))
        return found

    def task(self, name: str) -> Task:
        """The task of that name; TaskError if there is none."""
        one_of(name, self.keys, "the task")
        return next(task for task in self.tasks if task.name == name)

    def head(self, name: str) -> nn.Module:
        """The head of a task."""
        return self.heads[self.keys[self.task(name).name]]


def head(task: Task, width: int, *, cosine: bool = False) -> nn.Module:
    """The head of a task on features [N, width]."""
    if task.kind == "age" and task.loss == "ordinal":
        return OrdinalHead(width, task.outputs)
    linear: nn.Module = CosineHead(width, task.outputs) if cosine else nn.Linear(width, task.outputs)
    return nn.Sequential(linear, nn.LogSoftmax(1)) if task.loss == "nll" else linear


def attach_heads(
    net: Any, at: str, tasks: Iterable[Task], *, branches: Iterable[Branch] = (), input_shape: Sequence[int] = (3, 224, 224)
) -> MultiTaskModel:
    """Cut `net` at the blob or submodule `at` and put a head there for each task.

    `net` is what `converters.load` returns, whose weights are then shared, or a torch module, which torch.fx can trace; of an image
    of `input_shape` [C, H, W] its features are measured. Tasks that no branch names get one of their own. TaskError and NetError say what
    does not fit.
    """
    tasks = check_tasks(tasks)
    listed = list(branches)
    named = [name for branch in listed for name in branch.tasks]
    for name in named:
        one_of(name, [t.name for t in tasks], "a branch's task")
    if len(set(named)) != len(named):
        raise TaskError(f"a task belongs to one branch; the branches name {named}")
    for branch in listed:
        one_of(branch.pool, POOLS, "a branch's pool")
    listed += [Branch((task.name,)) for task in tasks if task.name not in named]
    places = list(dict.fromkeys([at, *(branch.at for branch in listed if branch.at)]))
    return MultiTaskModel(trunk_of(net, places, input_shape), tasks, listed)
