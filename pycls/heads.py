"""Heads on a trunk: a converted net, or any torch module, cut at a blob or a submodule; one head a task.

model = pycls.attach_heads(net, at="pool5", tasks=[Task("gender", "binary"), Task("hair", "multiclass", ("black", "brown", "fair"))])
model(x)                                {"gender": [N, 1], "hair": [N, 3]}    logits
model.freeze(until="conv4")             the trunk up to there learns nothing, its BatchNorm counts nothing; freeze(None) frees all
model.parameter_groups(lr, weight_decay)                                     for any torch optimizer, multipliers inside
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from converters.edit import Trunk, trunk_of
from converters.names import identifiers
from converters.onnx_export import OnnxFile, module_to_onnx
from converters.preprocessing import Preprocessing
from prototxt.errors import TaskError

from .tasks import Task, check_tasks, one_of

POOLS = ("avg", "max", "avgmax", "flatten")


@dataclass(frozen=True, slots=True)
class Branch:
    """Tasks that share more than the trunk: where it leaves, what lies before its heads, how fast it learns.

    `at` is the blob or submodule that it reads; the model's own by default. What comes from there is pooled over its spatial axes
    (`pool`: avg, max, avgmax side by side, or flatten, as Caffe's InnerProduct does), then goes through a hidden layer with ReLU for
    each width in `hidden`. With `detach` the branch sends no gradient into the trunk. A `cosine` head has no bias and gives cosines, as LDAM
    needs them.
    """

    tasks: tuple[str, ...]
    at: str = ""
    pool: str = "avg"
    hidden: tuple[int, ...] = ()
    dropout: float = 0.0
    cosine: bool = False
    lr_mult: float = 1.0
    detach: bool = False


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
        self.trunk, self.places = trunk.module, dict(trunk.places)
        self.layers, self.multipliers = dict(trunk.layers), {f"trunk.{name}": pair for name, pair in trunk.multipliers.items()}
        self.input, self.image = trunk.input, trunk.image
        self.keys = dict(zip([t.name for t in self.tasks], identifiers([t.name for t in self.tasks], prefix="task"), strict=True))
        self.necks, self.heads = nn.ModuleList(), nn.ModuleDict()
        self.learnable = {name for name, p in self.trunk.named_parameters() if p.requires_grad}
        self.frozen: tuple[str, ...] = ()
        for branch in self.branches:
            neck = Neck(trunk.shapes[branch.at or next(iter(self.places))], branch)
            self.necks.append(neck)
            for name in branch.tasks:
                self.heads[self.keys[name]] = head(self.task(name), neck.width, cosine=branch.cosine)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Logits by task, in the tasks' order."""
        return self.logits(self.features(x))

    def logits(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Logits by task of what the heads read."""
        return {task.name: self.heads[self.keys[task.name]](features[task.name]) for task in self.tasks}

    def features(self, x: Tensor) -> dict[str, Tensor]:
        """What each task's head reads, [N, D]; tasks of one branch share one tensor."""
        values = self.trunk(x)
        first = next(iter(self.places))
        found = {}
        for branch, neck in zip(self.branches, self.necks, strict=True):
            made = neck(values[self.places[branch.at or first]] if isinstance(values, dict) else values)
            found.update(dict.fromkeys(branch.tasks, made))
        return found

    def task(self, name: str) -> Task:
        """The task of that name; TaskError if there is none."""
        one_of(name, self.keys, "the task")
        return next(task for task in self.tasks if task.name == name)

    def neck(self, name: str) -> Neck:
        """What lies before the head of a task."""
        name = self.task(name).name
        return next(neck for branch, neck in zip(self.branches, self.necks, strict=True) if name in branch.tasks)  # type: ignore[return-value]

    def head(self, name: str) -> nn.Module:
        """The head of a task."""
        return self.heads[self.keys[self.task(name).name]]

    def freeze(self, until: str | None = "") -> None:
        """Freeze the trunk's layers up to and with `until` ("" all, None none), and free those behind; the heads always learn.

        What is frozen stays in eval mode, so that its BatchNorm counts nothing. A layer that Caffe froze (lr_mult 0) stays as it is.
        Staged unfreezing is one call an epoch with `stage(schedule, epoch)`. TaskError names a layer that is not there.
        """
        names = list(self.layers)
        if until:
            inside = [i for i, name in enumerate(names) if name == until or name.startswith(f"{until}.")]
            if not inside:
                one_of(until, names, "the trunk's layer")
            names = names[: inside[-1] + 1]
        self.frozen = () if until is None else tuple(self.layers[name] for name in names)
        for name, parameter in self.trunk.named_parameters():
            parameter.requires_grad_(name in self.learnable and until != "" and not self._is_frozen(name))
        self.train(self.training)

    def _is_frozen(self, name: str) -> bool:
        """Whether a module or parameter of the trunk belongs to a frozen layer."""
        return any(name == key or name.startswith(f"{key}.") for key in self.frozen)

    def train(self, mode: bool = True) -> MultiTaskModel:
        """Train or eval mode; frozen layers stay in eval mode."""
        super().train(mode)
        for name, module in self.trunk.named_modules():
            if self._is_frozen(name):
                module.eval()
        return self

    def parameter_groups(
        self, lr: float, weight_decay: float = 0.0, *, trunk_lr_mult: float = 1.0, decay_biases: bool = True
    ) -> list[dict[str, Any]]:
        """Groups for any torch optimizer: rates times Caffe's multipliers, the trunk's and the branches'; frozen parameters too.

        Without `decay_biases` parameters of one axis, biases and those of normalization, do not decay. Each group has a `name`, and its
        multiplier, which is in its rate already, as `lr_mult`: a schedule needs it, and pycls.updates would apply it again.
        """
        groups: dict[tuple[str, float, float], list[nn.Parameter]] = {}
        owners = {id(p): (f"branch {i}", b.lr_mult) for i, b in enumerate(self.branches) for p in self._branch_parameters(i)}
        for name, parameter in self.named_parameters():
            group, rate = owners.get(id(parameter), ("trunk", trunk_lr_mult))
            lr_mult, decay_mult = self.multipliers.get(name, (1.0, 1.0))
            decay = decay_mult if decay_biases or parameter.ndim > 1 else 0.0
            groups.setdefault((group, rate * lr_mult, decay), []).append(parameter)
        return [
            {"name": name, "params": parameters, "lr": lr * rate, "lr_mult": rate, "weight_decay": weight_decay * decay}
            for (name, rate, decay), parameters in groups.items()
        ]

    def _branch_parameters(self, i: int) -> list[nn.Parameter]:
        heads = [self.heads[self.keys[name]] for name in self.branches[i].tasks]
        return [p for module in (self.necks[i], *heads) for p in module.parameters()]

    def shared_parameters(self) -> list[nn.Parameter]:
        """The trunk's parameters that learn: what task balancing works on."""
        return [p for p in self.trunk.parameters() if p.requires_grad]

    def drop_empty_gradients(self, divisors: Mapping[str, Tensor]) -> None:
        """Take the gradients from the heads without a label in the step, which are zeros: so neither decay nor momentum moves them."""
        for name, divisor in divisors.items():
            if not float(divisor):
                for parameter in self.head(name).parameters():
                    parameter.grad = None

    @torch.no_grad()
    def set_prior(self, name: str, counts: Sequence[float]) -> None:
        """Start the head of a task at its prior: its first loss is then the entropy of the labels, and nothing jumps.

        `counts` are samples by class, or by bin of an age; of binary and multilabel tasks the rate of positives of each label.
        """
        task, biases = self.task(name), [p for key, p in self.head(name).named_parameters() if key.endswith("bias")]
        if not biases:
            raise TaskError(f"the head of {name!r} has no bias to start from a prior")
        share = torch.as_tensor(counts, dtype=torch.float64)
        wanted = task.bins if task.kind == "age" else task.outputs
        if share.shape != (wanted,):
            raise TaskError(f"the prior of {name!r} has {share.numel()} values; the task needs {wanted}")
        if task.kind == "age" and task.loss == "ordinal":
            share = share.flip(0).cumsum(0).flip(0)[1:] / share.sum()
        if task.activation == "sigmoid":
            share = share.clamp(1e-6, 1 - 1e-6)
            values = share.log() - (-share).log1p()
        else:
            values = (share / share.sum()).clamp(min=1e-6).log()
        biases[0].copy_(values)


def stage(schedule: Mapping[int, str | None], epoch: int) -> str | None:
    """What to freeze in an epoch, from {first epoch: until}: {0: "", 2: "conv3", 5: None} thaws the trunk from behind."""
    begun = [start for start in sorted(schedule) if start <= epoch]
    return schedule[begun[-1]] if begun else None


class _Exported(nn.Module):
    """The model, its outputs read as probabilities and years if so wished."""

    def __init__(self, model: MultiTaskModel, activation: bool) -> None:
        super().__init__()
        self.model, self.activation = model, activation

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """{task: probabilities, years or logits}."""
        made = self.model(x)
        return {task.name: task.activate(made[task.name]) if self.activation else made[task.name] for task in self.model.tasks}


def export_onnx(model: MultiTaskModel, path: str | Path, activation: bool = True, preprocessing: Preprocessing | None = None) -> OnnxFile:
    """Write ONNX with an output for each task, by its name: probabilities and years, or logits without `activation`. The batch axis is free."""
    example = _example(model, 2).to(next(model.parameters()).device)
    return module_to_onnx(_Exported(model, activation), path, {model.input: example}, [task.name for task in model.tasks], preprocessing)


def onnx_error(model: MultiTaskModel, path: str | Path, activation: bool = True) -> dict[str, float]:
    """{task: largest difference} between the model and a file of `export_onnx` without preprocessing, in ONNX Runtime, on another batch."""
    import onnxruntime

    x, names = _example(model, 3), [task.name for task in model.tasks]
    exported = copy.deepcopy(_Exported(model, activation)).cpu().eval()
    with torch.no_grad():
        wanted = exported(x)
    made = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(names, {model.input: x.numpy()})
    return {name: float(abs(value - wanted[name].numpy()).max()) for name, value in zip(names, made, strict=True)}


def _example(model: MultiTaskModel, batch: int) -> Tensor:
    return torch.randn(batch, *model.image, generator=torch.Generator().manual_seed(batch))


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
