"""`time`: how long each layer takes, forward and backward, and the whole net beside their sum, as `caffe time` prints it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from converters.graph import Step, Value
from converters.net import CaffeNet
from converters.samples import sample_inputs
from converters.to_torch import returning

from .progress import Progress


@dataclass(frozen=True, slots=True)
class LayerTime:
    """Mean milliseconds of a layer."""

    layer: str
    type: str
    forward: float
    backward: float


@dataclass(frozen=True, slots=True)
class Timing:
    """Milliseconds a pass: of each layer alone, and of the whole net, which is not slowed down by looking at each."""

    layers: tuple[LayerTime, ...]
    forward: float
    backward: float
    iterations: int

    def text(self) -> str:
        """A table, the sums, the whole."""
        width = max([5, *(len(row.layer) for row in self.layers)])
        kind = max([4, *(len(row.type) for row in self.layers), len("all layers, one by one") - width - 2])
        lines = [f"{'layer':<{width}}  {'type':<{kind}}  {'forward ms':>10}  {'backward ms':>11}"]
        lines += [f"{row.layer:<{width}}  {row.type:<{kind}}  {row.forward:>10.3f}  {row.backward:>11.3f}" for row in self.layers]
        sums = sum(row.forward for row in self.layers), sum(row.backward for row in self.layers)
        lines.append(f"{'all layers, one by one':<{width + kind + 2}}  {sums[0]:>10.3f}  {sums[1]:>11.3f}")
        lines.append(f"{'the whole net':<{width + kind + 2}}  {self.forward:>10.3f}  {self.backward:>11.3f}")
        lines.append(f"Average Forward-Backward: {self.forward + self.backward:.3f} ms over {self.iterations} iterations.")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def time_net(net: CaffeNet, iterations: int = 50, *, device: str = "cpu", progress: Progress | None = None) -> Timing:
    """Time a net on sample inputs of its own shapes; one pass of each kind comes before, unmeasured."""
    progress = progress or Progress(quiet=True)
    clock = _clock(device)
    net.module.to(device)
    inputs = {name: tensor.to(device) for name, tensor in sample_inputs(net.graph).items()}
    with progress.bar(2 * iterations, title="timing"):
        steps = [step for step in net.graph.steps if step.tops]
        seconds = {step.key: [0.0, 0.0] for step in steps}
        for i in range(iterations + 1):
            _each(net, steps, inputs, clock, seconds if i else None)
            progress.at(i)
        whole = [0.0, 0.0]
        losses = [value for value, _ in net.graph.losses]
        module = returning(net.built, losses or [net.graph.last[name] for name in net.graph.outputs])
        for i in range(iterations + 1):
            spent = _whole(module, [inputs[name] for name in net.graph.inputs], clock)
            whole = [a + b for a, b in zip(whole, spent, strict=True)] if i else whole
            progress.at(iterations + i)
    scale = 1e3 / iterations
    rows = tuple(LayerTime(step.name, step.type, *(scale * s for s in seconds[step.key])) for step in steps)
    return Timing(rows, scale * whole[0], scale * whole[1], iterations)


Clock = Callable[[], float]


def _clock(device: str) -> Clock:
    def now() -> float:
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)
        return time.perf_counter()

    return now


def _each(net: CaffeNet, steps: list[Step], inputs: dict[str, Tensor], clock: Clock, into: dict[str, list[float]] | None) -> None:
    """One pass layer by layer: each gets tensors cut from what is before it, and gradients of ones."""
    values = {Value(name): tensor for name, tensor in inputs.items()}
    for step in steps:
        module = net.module.get_submodule(step.key)
        given = [_leaf(values[step.bottoms[i]], needed=step.bottoms[i].blob not in inputs and not step.blocked[i]) for i in step.reads]
        start = clock()
        made = module(*given)
        middle = clock()
        tops = made if isinstance(made, tuple) else (made,)
        values.update(zip(step.tops, (top.detach() for top in tops), strict=True))
        wanted = [top for top in tops if top.requires_grad]
        if wanted:
            ones = [torch.ones_like(top) for top in wanted]
            middle, forward = clock(), middle - start
            torch.autograd.backward(wanted, ones)
        else:
            forward = middle - start
        if into is not None:
            into[step.key][0] += forward
            into[step.key][1] += clock() - middle
        for parameter in module.parameters():
            parameter.grad = None


def _leaf(tensor: Tensor, *, needed: bool) -> Tensor:
    return tensor.detach().requires_grad_(needed and tensor.is_floating_point())


def _whole(module: nn.Module, inputs: list[Tensor], clock: Clock) -> tuple[float, float]:
    start = clock()
    tops = module(*inputs)
    middle = clock()
    wanted = [top.sum() for top in tops if top.requires_grad]
    if wanted:
        torch.stack(wanted).sum().backward()
    end = clock()
    module.zero_grad(set_to_none=True)
    return middle - start, end - middle
