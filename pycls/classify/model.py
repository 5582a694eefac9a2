"""The net of a config: a trunk with heads, what prepares its input, its optimizer, the mean of its weights."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from converters.graph import Value
from prototxt import ConfigError, NetError, TrainingError, WeightsError
from prototxt.files import check_file

from .. import decoupling
from ..balancing import Fixed
from ..heads import Branch, MultiTaskModel, attach_heads
from ..tasks import Task
from .config import Config, EmaConfig, SecondStageConfig
from .images import channel_constants
from .metric import MetricLosses
from .state import below, read_state

VISION = "torchvision:"


def build_model(config: Config, tasks: Iterable[Task], channels: int) -> MultiTaskModel:
    """The trunk that the config names, cut, with a head for each task. Its weights are drawn from torch's generator, then loaded."""
    tasks, image = tuple(tasks), config.data.image
    shape = (channels, image.height, image.width)
    if config.model.net.startswith(VISION):
        net, default = _vision(config, channels), "avgpool"
    else:
        net, default = _caffe(config, shape)
    model = attach_heads(net, config.model.at or default, tasks, branches=_branches(config, tasks), input_shape=shape)
    if config.model.start:
        _begin(model, config.find(config.model.start), heads=config.model.start_heads)
    if config.model.second_stage.method:
        staged(model, config.model.second_stage)
    return model


def _branches(config: Config, tasks: tuple[Task, ...]) -> list[Branch]:
    """The branches of the config, and one for each task that they do not name."""
    listed = [
        Branch(b.tasks, b.at, pool=b.pool, hidden=b.hidden, dropout=b.dropout, cosine=b.cosine, lr_mult=b.lr_mult, detach=b.detach)
        for b in config.model.branches
    ]
    named = {name for branch in listed for name in branch.tasks}
    return listed + [Branch((task.name,), pool=config.model.pool, dropout=config.model.dropout) for task in tasks if task.name not in named]


def staged(model: MultiTaskModel, stage: SecondStageConfig) -> None:
    """Put the parts of a second stage in place; what is fitted to data comes later (`second_stage.fit_head`)."""
    name = stage_task(stage, model.tasks)
    if stage.method == "crt":
        decoupling.retrain(model, name)
    elif stage.method == "lws":
        decoupling.scale_only(model, name)
    elif stage.method == "ncm":
        head = decoupling.linear_head(model, name)
        decoupling.nearest_means(model, name, torch.zeros(0, head.in_features), torch.zeros(0, dtype=torch.int64))


def stage_task(stage: SecondStageConfig, tasks: tuple[Task, ...]) -> str:
    """The task that it works on: the one it names, or the first that is multiclass. ConfigError if there is none."""
    found = [stage.task] if stage.task else [task.name for task in tasks if task.kind == "multiclass"]
    if not found:
        raise ConfigError(f"model.second_stage.method {stage.method} works on a multiclass task, and there is none")
    return found[0]


def _begin(model: MultiTaskModel, path: Path, *, heads: bool) -> None:
    """Take the weights of another run, or its trunk's alone. TrainingError if they are of another net."""
    weights = below(read_state(path)[0], "model")
    taken = {name: tensor for name, tensor in weights.items() if heads or name.startswith("trunk.")}
    lacking = [name for name in model.state_dict() if name not in taken and (heads or name.startswith("trunk."))]
    try:
        model.load_state_dict(taken, strict=False)
    except RuntimeError as exc:
        raise TrainingError(f"{path}: is of another net: {str(exc).splitlines()[-1].strip()[:200]}") from exc
    if lacking:
        raise TrainingError(f"{path}: lacks {lacking[0]!r} and {len(lacking) - 1} others; with model.start_heads=false the trunk alone is taken")


def _caffe(config: Config, shape: tuple[int, int, int]) -> tuple[Any, str]:
    """A prototxt's net, and the blob to cut it at: what the layer reads that makes its last output."""
    import converters

    path, weights = config.find(config.model.net), config.model.weights
    graph = converters.resolve(path, "TRAIN")
    data = graph.inputs[0] if graph.inputs else ""
    net = converters.load(path, str(config.find(weights)) if weights else None, "TRAIN", shapes={data: (1, *shape)} if data else None)
    wanted = net.graph.values[Value(data)] if data else ()
    if tuple(wanted[1:]) != shape:
        raise NetError(f"{path}: the input {data!r} is {list(wanted)}, and data.image makes images of {list(shape)}")
    if not config.model.at:
        raise ConfigError(
            f"model.at is missing: the blob of {path} that the heads read, as in `at: pool5`; the last are {', '.join(list(graph.last)[-6:])}"
        )
    return net, config.model.at


def _vision(config: Config, channels: int) -> nn.Module:
    """A model of torchvision; with another number of channels its first convolution is widened from the three that it has."""
    from torchvision.models import get_model, list_models

    name, weights = config.model.net.removeprefix(VISION), config.model.weights
    if name not in list_models():
        from ..labels import suggest

        raise ConfigError(f"model.net: torchvision has no model {name!r}{suggest(name, list_models())}")
    net = get_model(name, weights="DEFAULT" if weights == "default" else None)
    if weights and weights != "default":
        _load(net, config.find(weights))
    first = next((key, m) for key, m in net.named_modules() if isinstance(m, nn.Conv2d))
    if first[1].in_channels != channels:
        net.set_submodule(first[0], widened(first[1], channels))
    return net


def widened(conv: nn.Conv2d, channels: int) -> nn.Conv2d:
    """A first convolution for another number of channels: those behind the third get the mean of the filters; all keep the scale of the sum."""
    bias = conv.bias is not None
    made = nn.Conv2d(channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding, conv.dilation, bias=bias)  # type: ignore[arg-type]
    have = conv.in_channels
    with torch.no_grad():
        filters = [conv.weight[:, i] if channels >= have and i < have else conv.weight.mean(1) for i in range(channels)]
        made.weight.copy_(torch.stack(filters, 1) * (have / channels))
        if conv.bias is not None and made.bias is not None:
            made.bias.copy_(conv.bias)
    return made


def _load(net: nn.Module, path: Path) -> None:
    """Weights of a safetensors file, strictly."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        net.load_state_dict(load_file(check_file(path)))
    except (SafetensorError, RuntimeError) as exc:
        raise WeightsError(
            f"{path}: does not hold the weights of this model: {str(exc).splitlines()[0]}; safetensors of its state_dict is wanted"
        ) from exc


class Prepare(nn.Module):
    """Bytes [N, C, H, W] -> floats: pixel * factor + shift, by channel."""

    factor: Tensor
    shift: Tensor

    def __init__(self, config: Config, channels: int) -> None:
        super().__init__()
        factor, shift = channel_constants(config.data.image, channels)
        self.register_buffer("factor", torch.from_numpy(factor).view(1, -1, 1, 1))
        self.register_buffer("shift", torch.from_numpy(shift).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Shapes [N, C, H, W] -> the same."""
        return images.float() * self.factor + self.shift


def build_optimizer(config: Config, model: MultiTaskModel, balancer: Fixed, metric: MetricLosses) -> torch.optim.Optimizer:
    """The update rule over the groups of all that learns; each keeps its multiplier in `lr_mult`."""
    o = config.train.optimizer
    groups = model.parameter_groups(o.lr, o.weight_decay, trunk_lr_mult=config.model.backbone_lr, decay_biases=o.decay_all)
    groups += [group | {"lr_mult": 1.0} for group in balancer.parameter_groups(o.lr)]
    groups += metric.parameter_groups(o.lr, o.weight_decay)
    if o.name == "sgd":
        return torch.optim.SGD(groups, lr=o.lr, momentum=o.momentum, nesterov=o.nesterov, fused=True)
    rule = torch.optim.Adam if o.name == "adam" else torch.optim.AdamW
    return rule(groups, lr=o.lr, fused=True)


@dataclass
class Ema:
    """A running mean of the weights, buffers copied. `mean` holds a tensor for each parameter, `updates` counts."""

    config: EmaConfig
    mean: dict[str, Tensor]
    updates: int = 0

    @classmethod
    def of(cls, config: EmaConfig, model: nn.Module) -> Ema:
        """Start at the model's weights."""
        return cls(config, {name: p.detach().clone() for name, p in model.named_parameters()})

    @property
    def decay(self) -> float:
        """What the mean keeps of itself at the next update: little at first."""
        return min(self.config.decay, 1 - (1 + self.updates / self.config.inv_gamma) ** -self.config.power)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take the model's weights in."""
        weights = dict(model.named_parameters())
        torch._foreach_lerp_(list(self.mean.values()), [weights[name].detach() for name in self.mean], 1 - self.decay)
        self.updates += 1

    @torch.no_grad()
    def swap(self, model: nn.Module) -> None:
        """Exchange the mean and the model's weights; a second call undoes it."""
        for name, parameter in model.named_parameters():
            held = parameter.detach().clone()
            parameter.copy_(self.mean[name])
            self.mean[name].copy_(held)
