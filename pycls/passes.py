"""One pass of a net for training: only what the objective needs comes out, so that memory is freed on the way, and torch.compile and DDP can take it.

In a world of several processes every loss is weighed by its own divisor over that of all processes: n processes with 1/n of the batch each have
the gradient of one process with all of it, whatever a loss divides by and however the ignored labels are spread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn

from converters.graph import Step, Value
from converters.modules.losses import divisor
from converters.net import CaffeNet
from converters.to_torch import returning
from prototxt import SolverError

from .distributed import World
from .fusion import fuse

AMP = {"bf16": torch.bfloat16, "fp16": torch.float16}


class TrainPass:
    """inputs by blob -> the objective, 0-d, with its gradient's way back.

    The value is the loss of all processes; backward gives the share of the gradient that DDP's mean over the processes makes whole.
    """

    def __init__(self, net: CaffeNet, device: torch.device, world: World, *, amp: str | None = None, compiled: bool = False) -> None:
        self.net, self.device, self.world = net, device, world
        self.losses = [(step, value, weight) for step in net.graph.steps for value, weight in _weighted(step)]
        self.divisors = [_divisor_of(step) for step, _, _ in self.losses] if world.size > 1 else []
        wanted = [value for _, value, _ in self.losses]
        if world.size > 1:
            wanted += [step.bottoms[i] for step, _, _ in self.losses for i in (0, 1) if i < len(step.bottoms)]
        self._wanted = list(dict.fromkeys(wanted))
        self.module: nn.Module = fuse(returning(net.built, self._wanted))
        if world.size > 1 and any(p.requires_grad for p in self.module.parameters()):
            from torch.nn.parallel import DistributedDataParallel

            ids = [device.index] if device.type == "cuda" else None
            self.module = DistributedDataParallel(self.module, ids, broadcast_buffers=False, find_unused_parameters=_has_idle(net))
        if compiled:
            self.module = cast(nn.Module, torch.compile(self.module))
        self._amp = AMP[amp] if amp else None

    def __call__(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """(what to call backward on, the loss without a gradient)."""
        with self.autocast():
            made = dict(zip(self._wanted, self.module(*(inputs[name] for name in self.net.graph.inputs)), strict=True))
            terms = [made[value].float() for _, value, _ in self.losses]
            terms = [(t if t.dim() == 0 else t.sum()) * w if w != 1 or t.dim() else t for t, (_, _, w) in zip(terms, self.losses, strict=True)]
        if not terms:
            nothing = torch.zeros((), device=self.device)
            return nothing, nothing
        if self.world.size == 1:
            total = terms[0] if len(terms) == 1 else torch.stack(terms).sum()
            return total, total.detach()
        own = torch.stack([d(step, made).to(self.device) for d, (step, _, _) in zip(self.divisors, self.losses, strict=True)])
        everyones = self.world.sum_(own.clone())
        share = torch.where(own < 0, 1.0, own.clamp(min=1) / everyones.clamp(min=1))
        total = (torch.stack(terms) * share).sum()
        return total * self.world.size, self.world.sum_(total.detach().clone())

    def autocast(self) -> AbstractContextManager[Any]:
        """Mixed precision, if asked for."""
        return nullcontext() if self._amp is None else torch.autocast(self.device.type, self._amp)

    def alone(self) -> AbstractContextManager[Any]:
        """A pass in this context adds its gradients up here, and none are exchanged."""
        no_sync: Callable[[], AbstractContextManager[Any]] | None = getattr(self.module, "no_sync", None)
        return nullcontext() if no_sync is None else no_sync()


def _weighted(step: Step) -> list[tuple[Value, float]]:
    return [(value, weight) for value, weight in zip(step.tops, step.loss_weights, strict=True) if weight]


Divisor = Callable[[Step, Mapping[Value, Tensor]], Tensor]
CONSTANT = torch.tensor(-1.0)  # for losses that are sums, whatever the batch
BY_BATCH = ("ContrastiveLoss", "EuclideanLoss", "HingeLoss", "MultinomialLogisticLoss", "SmoothL1Loss")


def _divisor_of(step: Step) -> Divisor:
    """How much a loss of this type divides by, from its bottoms. SolverError for those that match and mine over their batch."""
    if step.type in ("SoftmaxWithLoss", "InfogainLoss", "SigmoidCrossEntropyLoss"):
        return _by_labels
    if step.type in BY_BATCH:
        return lambda step, made: torch.tensor(float(made[step.bottoms[0]].shape[0]))
    if step.rule.automatic:
        raise SolverError(f"{step.place}: layer {step.name!r}: what a {step.type} divides by is known to itself alone; train it in one process")
    return lambda step, made: CONSTANT  # a plain layer with a loss_weight: the sum of its top


def _by_labels(step: Step, made: Mapping[Value, Tensor]) -> Tensor:
    """As the layers in converters.modules.losses divide, before they make sure that it is at least 1."""
    x, label, args = made[step.bottoms[0]], made[step.bottoms[1]], step.recipe.args
    if args["normalization"] == "NONE":
        return CONSTANT
    axis, ignored = args.get("axis"), args.get("ignore_label")
    whole = label.long() if axis is not None else label.trunc()
    valid = None if ignored is None else (whole != ignored).float()
    batch, count = (x.shape[0], x.numel()) if axis is None else (x.shape[:axis].numel(), x.numel() // x.shape[axis])
    found = valid.sum() if args["normalization"] == "VALID" and valid is not None else divisor(args["normalization"], batch, count, None)
    return torch.as_tensor(found, dtype=torch.float32)


def reached(net: CaffeNet) -> set[str]:
    """Keys of the steps whose tops lead to a loss with a weight; the gradients of all others are zero."""
    wanted = {value for value, _ in net.graph.losses}
    keys = set()
    for step in reversed(net.graph.steps):
        if wanted.intersection(step.tops):
            keys.add(step.key)
            wanted.update(b for i, b in enumerate(step.bottoms) if not step.blocked[i] and i in step.reads)
    return keys


def _has_idle(net: CaffeNet) -> bool:
    """Whether a parameter that learns gets no gradient."""
    on_the_way = reached(net)
    return any(step.params and step.key not in on_the_way for step in net.graph.steps)
