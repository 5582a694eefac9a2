"""The known causes of a difference, each as a change to one layer that can be tried: if the layer so changed gives a side's values,
that is what this side does.

A cause yields Hypotheses for a step of the segment. To add one, write a function here and name it under the layer types in CAUSES.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..graph import Step
from ..modules.normalization import LRN, BatchNorm, ScaledBatchNorm
from .replay import Replay, Run, Segment

EPSILONS = (1e-5, 1e-3, 1e-6, 1e-4, 2e-5, 1e-8, 1e-12, 0.0)  # defaults of frameworks: Caffe and PyTorch, Keras, flax, ..., MXNet
ELEMENTWISE = (
    "ReLU",
    "PReLU",
    "ELU",
    "Sigmoid",
    "TanH",
    "AbsVal",
    "Power",
    "Exp",
    "Log",
    "BNLL",
    "Dropout",
    "Scale",
    "Bias",
    "BatchNorm",
    "Threshold",
    "Clip",
)


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """`cause` in a few words, what the side would do then, what to do about it; `key` of the step, and what it would compute."""

    cause: str
    explanation: str
    fix: str
    key: str
    run: Run


Cause = Callable[[Step, nn.Module, Replay], Iterator[Hypothesis]]


def hypotheses(part: Segment, replay: Replay) -> Iterator[Hypothesis]:
    """Every change that may be tried on the layers of the segment, the last layer's first."""
    for step in reversed(part.steps):
        module = replay.module(step)
        for cause in CAUSES.get(step.type, ()):
            yield from cause(step, module, replay)
        yield from aliasing(step, module, replay)
    for step in reversed(part.steps):
        yield from missing(step)


# Pooling --------------------------------------------------------------------------------------------------------------


def pooling(step: Step, module: nn.Module, replay: Replay) -> Iterator[Hypothesis]:
    """Rounding of the size, the divisor of averages, both."""
    a = step.recipe.args
    if "stride" not in a or "StochasticPool" in str(step.recipe.module) or len(step.tops) > 1:
        return
    average, ceil = "Avg" in str(step.recipe.module), bool(a.get("ceil_mode", False))
    size = {"kernel_size": a["kernel_size"], "stride": a["stride"], "padding": a.get("padding", 0)}
    way, other = ("up", "down") if ceil else ("down", "up")
    rounding = ("pooling rounding", f"rounds the size of the pooled blob {other}; the prototxt rounds it {way}",
                f"pool with ceil_mode={ceil}, as Caffe does" + (", whose default is to round up" if ceil else ""))  # fmt: skip
    if not average:
        yield Hypothesis(*rounding, step.key, lambda x: F.max_pool2d(x[0], **size, ceil_mode=not ceil))
        return
    area = _area(a["kernel_size"])
    divisors: dict[str, dict[str, Any]] = {
        "counts the inside of the image alone": {"count_include_pad": False},
        "always divides by the whole kernel, also where the window reaches over the edge": {"divisor_override": area},
        "": {"count_include_pad": True},
    }
    for rounded, (what, options) in product((ceil, not ceil), divisors.items()):
        run = _average(size, rounded, options)
        fix = "divide by the window clipped to the padded image, as Caffe does: count_include_pad=True, no divisor_override"
        if rounded != ceil:
            also = f", and {what}" if what else ""
            yield Hypothesis(rounding[0], rounding[1] + also, rounding[2] + (f"; {fix}" if what else ""), step.key, run)
        elif what:
            yield Hypothesis("average divisor", what, fix, step.key, run)


def _average(size: Mapping[str, Any], ceil: bool, options: Mapping[str, Any]) -> Run:
    return lambda x: F.avg_pool2d(x[0], **size, ceil_mode=ceil, **options)


def _area(kernel: int | Sequence[int]) -> int:
    return kernel * kernel if isinstance(kernel, int) else kernel[0] * kernel[1]


# Normalisation --------------------------------------------------------------------------------------------------------


def batch_norm(step: Step, module: nn.Module, replay: Replay) -> Iterator[Hypothesis]:
    """The third blob, eps, statistics of the batch."""
    if not isinstance(module, (BatchNorm, ScaledBatchNorm)):
        return
    mean, variance, eps = module.mean, module.variance, module.eps
    weight, bias = (module.weight, module.bias) if isinstance(module, ScaledBatchNorm) else (None, None)
    factor = 1.0 if module.factor is None else float(module.factor)
    by = 1 / factor if factor else 0.0
    if module.factor is not None:
        yield Hypothesis(
            "BatchNorm factor blob",
            f"takes the stored sums for means: the third blob, here {factor:g}, is not divided by",
            "divide the first two blobs by the third before use",
            step.key,
            _stored(mean, variance, weight, bias, eps),
        )
    for other in EPSILONS:
        if abs(other - eps) > 1e-3 * max(eps, other):
            yield Hypothesis(
                "BatchNorm eps",
                f"uses eps {other:g}; the prototxt has {eps:g}",
                f"set eps to {eps:g}",
                step.key,
                _stored(mean * by, variance * by, weight, bias, other),
            )
    yield Hypothesis(
        "BatchNorm in training mode",
        "normalises by the mean and variance of this batch, not by the stored ones",
        "put the module into eval mode: module.eval()",
        step.key,
        lambda x: F.batch_norm(x[0], None, None, weight, bias, training=True, eps=eps),
    )


def _stored(mean: Tensor, variance: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Run:
    return lambda x: F.batch_norm(x[0], mean, variance, weight, bias, eps=eps)


def lrn(step: Step, module: nn.Module, replay: Replay) -> Iterator[Hypothesis]:
    """k, and what alpha is divided by."""
    a = step.recipe.args
    size, alpha, beta = a["size"], a["alpha"], a["beta"]
    within = "k" not in a
    k = a.get("k", 1.0)
    count, written = (size * size, "size^2") if within else (size, "n")
    factors = {"": 1.0, f"does not divide alpha by {written}": count, f"divides alpha by {written} twice": 1 / count}
    if within:
        factors["divides alpha by size, not by size^2"] = size
    for other, (what, factor) in product(dict.fromkeys((k, 1.0, 2.0, 0.0)), factors.items()):
        if other == k and not what:
            continue
        told = [f"adds k = {other:g} where the prototxt has {k:g}"] * (other != k) + [what] * bool(what)
        fixes = [f"set k to {k:g}"] * (other != k) + [f"divide alpha by {written} = {count} once, as Caffe does"] * bool(what)
        cause = "LRN alpha/n" if what else "LRN k"
        yield Hypothesis(cause, " and ".join(told), "; ".join(fixes), step.key, _lrn(size, alpha * factor, beta, other, within))


def _lrn(size: int, alpha: float, beta: float, k: float, within: bool) -> Run:
    if not within:
        return lambda x: LRN(size, alpha, beta, k)(x[0])
    return lambda x: x[0] * (k + alpha * F.avg_pool2d(x[0] * x[0], size, stride=1, padding=size // 2)).pow(-beta)


# Weights --------------------------------------------------------------------------------------------------------------


def inner_product(step: Step, module: nn.Module, replay: Replay) -> Iterator[Hypothesis]:
    """The weight's two axes, and the order in which a map is flattened."""
    weight, bias = _weights(module)
    out, fan_in = (weight.shape[1], weight.shape[0]) if getattr(module, "transpose", False) else weight.shape
    right = weight.t() if getattr(module, "transpose", False) else weight
    axis = getattr(module, "axis", -1) if type(module) is not nn.Linear else -1

    def flat(x: Tensor) -> Tensor:
        return x if axis == -1 else x.flatten(axis)

    turned = weight.t() if out == fan_in else None
    readings = [turned, weight.reshape(fan_in, out).t(), weight.reshape(out, fan_in)]
    for other in readings:
        if other is not None and not torch.equal(other, right):
            yield Hypothesis(
                "transposed InnerProduct",
                f"multiplies by the weight with its two axes exchanged; Caffe's blob is [{out}, {fan_in}], outputs first",
                "keep Caffe's weight as nn.Linear takes it, [out, in]; transpose it for a library that wants [in, out]",
                step.key,
                _linear(flat, other, bias),
            )
    if len(step.bottom_shapes[0]) == 4 and axis in (1, -1) and len(step.bottom_shapes[0]) - 1 > 1:
        yield Hypothesis(
            "InnerProduct flattening order",
            "flattens the map as H, W, C; Caffe's weight expects C, H, W",
            "flatten from [N, C, H, W], or permute the weight's inputs once",
            step.key,
            lambda x: F.linear(x[0].permute(0, 2, 3, 1).flatten(1), right, bias),
        )
    yield from _without_bias(step, module)


def _linear(flat: Callable[[Tensor], Tensor], weight: Tensor, bias: Tensor | None) -> Run:
    return lambda x: F.linear(flat(x[0]), weight, bias)


def convolution(step: Step, module: nn.Module, replay: Replay) -> Iterator[Hypothesis]:
    """How filters and channels fall into groups."""
    yield from _without_bias(step, module)
    groups = int(step.recipe.args.get("groups", 1))
    if not isinstance(module, nn.Conv2d) or groups == 1:
        return
    weight, bias = _weights(module)
    first, second = module.out_channels // groups, module.in_channels // groups
    told = "the weights of the groups are put together in another order than Caffe's, where the filters of a group, and its channels, stand together"
    fix = f"keep Caffe's blob {list(weight.shape)} as it is for a convolution of {groups} groups; a dense weight is block-diagonal, group by group"

    def run(x: Sequence[Tensor], weight: Tensor, bias: Tensor | None, inputs: Tensor | None, outputs: Tensor | None) -> Tensor:
        y = F.conv2d(x[0] if inputs is None else x[0][:, inputs], weight, bias, module.stride, module.padding, module.dilation, groups)
        return y if outputs is None else y[:, outputs]

    mixed_in = torch.arange(module.in_channels).view(second, groups).t().reshape(-1)  # channel c belongs to group c % groups
    mixed_out = torch.arange(module.out_channels).view(first, groups).t().reshape(-1)
    back = torch.argsort(mixed_out)
    swapped = weight.view(groups, first, *weight.shape[1:]).transpose(0, 1).reshape(weight.shape)
    unmixed = weight.view(first, groups, *weight.shape[1:]).transpose(0, 1).reshape(weight.shape)
    alone = weight[:first].repeat(groups, 1, 1, 1)
    reversed_ = weight.view(groups, first, *weight.shape[1:]).flip(0).reshape(weight.shape)
    ours = bias
    mixed = bias[mixed_out] if bias is not None else None
    trials: list[tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]] = [
        (swapped, ours, None, None),
        (unmixed, ours, None, None),
        (weight, ours, mixed_in, None),
        (weight[mixed_out], mixed, None, back),
        (weight[mixed_out], mixed, mixed_in, back),
        (weight[back], bias[back] if bias is not None else None, None, None),
        (weight[mixed_out], mixed, None, None),
        (alone, ours, None, None),
        (reversed_, ours, None, None),
        (weight, ours, None, mixed_out),
    ]
    for w, b, inputs, outputs in trials:
        yield Hypothesis("grouped weights", told, fix, step.key, partial(run, weight=w, bias=b, inputs=inputs, outputs=outputs))


def _weights(module: nn.Module) -> tuple[Tensor, Tensor | None]:
    held: Any = module if hasattr(module, "weight") else module.module
    bias = getattr(held, "bias", None)
    return held.weight.detach(), bias.detach() if bias is not None else None


def _without_bias(step: Step, module: nn.Module) -> Iterator[Hypothesis]:
    bias = getattr(module, "bias", None)
    if isinstance(bias, Tensor) and bool(bias.any()):
        shape = (-1,) if step.type == "InnerProduct" else (-1, *(1,) * (len(step.shapes[0]) - 2))
        yield Hypothesis(
            "bias lost",
            "adds no bias",
            "take over the layer's second blob",
            step.key,
            lambda x: module(*x) - bias.detach().view(shape),
        )


# The rest -------------------------------------------------------------------------------------------------------------


def softmax(step: Step, module: nn.Module, replay: Replay) -> Iterator[Hypothesis]:
    """Another axis."""
    axes, dim = len(step.shapes[0]), int(step.recipe.args["dim"])
    for other in (axis for axis in range(axes) if axis != dim):
        yield Hypothesis(
            "softmax axis",
            f"normalises along axis {other} of {axes}; the prototxt along axis {dim}",
            f"softmax along axis {dim}: Caffe's default is 1, on maps too",
            step.key,
            _softmax(other),
        )
    if axes > 2:
        yield Hypothesis("softmax axis", "normalises over all values of a row", f"softmax along axis {dim}", step.key,
                         lambda x: x[0].flatten(1).softmax(1).view_as(x[0]))  # fmt: skip


def _softmax(axis: int) -> Run:
    return lambda x: x[0].softmax(axis)


def leaky(step: Step, module: nn.Module, replay: Replay) -> Iterator[Hypothesis]:
    """A slope below zero that is lost."""
    if isinstance(module, nn.LeakyReLU):
        yield Hypothesis("ReLU slope lost", "cuts what is negative to zero", f"use negative_slope {module.negative_slope:g}", step.key,
                         lambda x: x[0].relu())  # fmt: skip


def aliasing(step: Step, module: nn.Module, replay: Replay) -> Iterator[Hypothesis]:
    """A layer that writes in place into what another layer still reads, or what is shown later."""
    for top in step.tops[:1]:
        for other in _in_place_candidates(replay, top, step):
            yield Hypothesis(
                "in-place aliasing",
                f"shows the blob as layer {other.name!r} ({other.type}) leaves it: that layer writes into its memory",
                f"let {other.name!r} write into memory of its own (inplace=False), or copy the blob before",
                step.key,
                _then(module, replay.module(other)),
            )
    for i, bottom in enumerate(step.bottoms[j] for j in step.reads):
        for other in _in_place_candidates(replay, bottom, step):
            yield Hypothesis(
                "in-place aliasing",
                f"reads the blob {bottom.blob!r} after layer {other.name!r} ({other.type}) has written over it",
                f"let {other.name!r} write into memory of its own (inplace=False), so that {step.name!r} reads what it shall",
                step.key,
                _after(module, i, replay.module(other)),
            )


def _then(module: nn.Module, other: nn.Module) -> Run:
    return lambda x: other(_first(module(*x)))


def _after(module: nn.Module, i: int, other: nn.Module) -> Run:
    return lambda x: module(*x[:i], other(x[i]), *x[i + 1 :])


def _in_place_candidates(replay: Replay, value: Any, but: Step) -> list[Step]:
    return [s for s in replay.graph.steps if s is not but and s.type in ELEMENTWISE and s.bottoms == (value,) and len(s.tops) == 1]


def _first(made: Any) -> Tensor:
    return made[0] if isinstance(made, (tuple, list)) else made


def missing(step: Step) -> Iterator[Hypothesis]:
    """A layer that is left out."""
    if step.type in (*ELEMENTWISE, "LRN", "Normalize", "MVN") and step.type != "Dropout" and step.shapes[0] == step.bottom_shapes[0]:
        yield Hypothesis(
            f"missing {step.type}",
            f"leaves layer {step.name!r} ({step.type}) out",
            "Caffe's BatchNorm has no factor and shift: take over the Scale behind it" if step.type == "Scale" else f"take over {step.name!r}",
            step.key,
            lambda x: x[0],
        )


CAUSES: dict[str, tuple[Cause, ...]] = {
    "Pooling": (pooling,),
    "BatchNorm": (batch_norm,),
    "LRN": (lrn,),
    "InnerProduct": (inner_product,),
    "Convolution": (convolution,),
    "DepthwiseConvolution": (convolution,),
    "ConvolutionDepthwise": (convolution,),
    "HoleConvolution": (convolution,),
    "Deconvolution": (convolution,),
    "Softmax": (softmax,),
    "ReLU": (leaky,),
}
