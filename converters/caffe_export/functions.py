"""torch's functions, and methods of tensors."""

from __future__ import annotations

import operator
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import modules
from .calls import Call, adaptive, blob, clip, cut, function, global_pool, leading, need, number, pair, pool, power, reshape
from .writer import Blob, CannotWrite

# Sums and products ----------------------------------------------------------------------------------------------------


@function(operator.add, operator.iadd, torch.add, "add", "add_")
def _add(call: Call) -> Blob:
    a, b = call.get(0, "input"), call.get(1, "other")
    need(call.kwargs.get("alpha", 1) == 1, "alpha of an addition: multiply before")
    return total(call, a, b, 1.0)


@function(operator.sub, operator.isub, torch.sub, "sub", "sub_")
def _sub(call: Call) -> Blob:
    a, b = call.get(0, "input"), call.get(1, "other")
    need(call.kwargs.get("alpha", 1) == 1, "alpha of a subtraction: multiply before")
    return total(call, a, b, -1.0)


def total(call: Call, a: Any, b: Any, sign: float) -> Blob:
    """a + sign * b."""
    if isinstance(a, Blob) and isinstance(b, Blob):
        if a.shape == b.shape:
            return call.one("Eltwise", [a, b], eltwise_param={"coeff": [1.0, -1.0]} if sign < 0 else {"operation": "SUM"})
        if prod(a.shape) < prod(b.shape):
            return broadcast(call, b if sign > 0 else power(call, b, scale=-1.0), a, "Bias")
        return broadcast(call, a, b if sign > 0 else power(call, b, scale=-1.0), "Bias")
    if not isinstance(a, Blob):
        a, b, flipped = b, a, sign
        a, sign = (power(call, blob(a), scale=-1.0), 1.0) if flipped < 0 else (blob(a), 1.0)
    if not isinstance(b, Tensor) or b.numel() == 1:
        return power(call, a, shift=sign * number(b))
    return by_constant(call, a, sign * b, "Bias")


@function(operator.mul, operator.imul, torch.mul, "mul", "mul_")
def _mul(call: Call) -> Blob:
    return product(call, call.get(0, "input"), call.get(1, "other"))


def product(call: Call, a: Any, b: Any) -> Blob:
    """a * b."""
    if isinstance(a, Blob) and isinstance(b, Blob):
        if a.shape == b.shape:
            return call.one("Eltwise", [a, b], eltwise_param={"operation": "PROD"})
        return broadcast(call, *((b, a) if prod(a.shape) < prod(b.shape) else (a, b)), "Scale")
    a, b = (a, b) if isinstance(a, Blob) else (b, a)
    if not isinstance(b, Tensor) or b.numel() == 1:
        return power(call, blob(a), scale=number(b))
    return by_constant(call, blob(a), b, "Scale")


@function(operator.truediv, operator.itruediv, torch.div, torch.true_divide, "div", "div_")
def _div(call: Call) -> Blob:
    a, b = call.get(0, "input"), call.get(1, "other")
    need(call.kwargs.get("rounding_mode") is None, "a division that rounds has no layer")
    if isinstance(b, Blob):
        return product(call, a, power(call, b, exponent=-1.0))
    b = b if isinstance(b, Tensor) else number(b)
    need(isinstance(b, Tensor) or b != 0, "divides by zero")
    return product(call, a, 1.0 / b)


def broadcast(call: Call, x: Blob, small: Blob, type_: str) -> Blob:
    """x and a blob that covers its first axes, by Scale or Bias of two bottoms."""
    count = leading(x, small.shape)
    need(count is not None and call.shape == x.shape, f"{list(x.shape)} with {list(small.shape)}: Caffe broadcasts a blob that covers the first axes")
    flat = reshape(call, small, small.shape[:count])
    fields: Any = {f"{type_.lower()}_param": {"axis": 0}}
    return call.one(type_, [x, flat], **fields)


def by_constant(call: Call, x: Blob, constant: Tensor, type_: str) -> Blob:
    """x and a tensor of the module, by Scale or Bias with a parameter."""
    shape = (1,) * (len(x.shape) - constant.dim()) + tuple(constant.shape)
    covered = [i for i, d in enumerate(shape) if d != 1]
    first, last = covered[0], covered[-1] + 1
    need(
        shape[first:last] == x.shape[first:last] and call.shape == x.shape,
        f"{list(x.shape)} with a constant {list(constant.shape)}: its axes must lie side by side",
    )
    fields: Any = {f"{type_.lower()}_param": {"axis": first, "num_axes": last - first}}
    return call.one(type_, [x], [constant.reshape(shape[first:last])], **fields)


@function(torch.maximum, "maximum")
def _maximum(call: Call) -> Blob:
    a, b = call.x, blob(call.get(1, "other"))
    need(a.shape == b.shape, "the maximum of blobs of two shapes has no layer")
    return call.one("Eltwise", [a, b], eltwise_param={"operation": "MAX"})


# Values one by one ----------------------------------------------------------------------------------------------------


for _targets, _translate in (
    ((F.relu, F.relu_, torch.relu, torch.relu_, "relu", "relu_"), modules.relu),
    ((torch.sigmoid, F.sigmoid, "sigmoid", "sigmoid_"), modules.sigmoid),
    ((torch.tanh, F.tanh, "tanh", "tanh_"), modules.tanh),
    ((F.relu6,), modules.relu6),
    ((F.silu,), modules.silu),
    ((F.hardsigmoid,), modules.hardsigmoid),
    ((F.hardswish,), modules.hardswish),
):
    function(*_targets)(_translate)


@function(F.leaky_relu, F.leaky_relu_)
def _leaky_relu(call: Call) -> Blob:
    return call.one("ReLU", [call.x], relu_param={"negative_slope": number(call.get(1, "negative_slope", 0.01))})


@function(F.elu, F.elu_)
def _elu(call: Call) -> Blob:
    return call.one("ELU", [call.x], elu_param={"alpha": number(call.get(1, "alpha", 1.0))})


@function(F.hardtanh, F.hardtanh_)
def _hardtanh(call: Call) -> Blob:
    return clip(call, call.x, call.get(1, "min_val", -1.0), call.get(2, "max_val", 1.0))


@function(torch.clamp, torch.clip, "clamp", "clamp_", "clip")
def _clamp(call: Call) -> Blob:
    low, high = (None if value is None else number(value) for value in (call.get(1, "min"), call.get(2, "max")))
    if low == 0 and high is None:
        return call.one("ReLU", [call.x])
    limit = 3.0e38
    return clip(call, call.x, -limit if low is None else low, limit if high is None else high)


@function(torch.abs, operator.abs, "abs")
def _absolute(call: Call) -> Blob:
    return call.one("AbsVal", [call.x])


@function(torch.neg, operator.neg, "neg")
def _negative(call: Call) -> Blob:
    return power(call, call.x, scale=-1.0)


@function(torch.exp, "exp")
def _exp(call: Call) -> Blob:
    return call.one("Exp", [call.x])


@function(torch.log, "log")
def _log(call: Call) -> Blob:
    return call.one("Log", [call.x])


@function(torch.sqrt, "sqrt")
def _sqrt(call: Call) -> Blob:
    return power(call, call.x, exponent=0.5)


@function(torch.square, "square")
def _square(call: Call) -> Blob:
    return power(call, call.x, exponent=2.0)


@function(torch.pow, operator.pow, "pow")
def _to_power(call: Call) -> Blob:
    exponent = call.get(1, "exponent")
    need(isinstance(exponent, (int, float)) and isinstance(call.get(0, "input"), Blob), "a power of anything but a blob to a number has no layer")
    return power(call, call.x, exponent=float(exponent))


@function(F.softmax, torch.softmax, "softmax")
def _softmax(call: Call) -> Blob:
    return modules.softmax_along(call, call.x, call.get(1, "dim"))


@function(F.log_softmax, torch.log_softmax, "log_softmax")
def _log_softmax(call: Call) -> Blob:
    return call.one("Log", [modules.softmax_along(call, call.x, call.get(1, "dim"))])


@function(F.dropout, F.dropout2d)
def _dropout(call: Call) -> Blob:
    need(not call.get(2, "training", True), "dropout that is always on; use nn.Dropout, which ends with training")
    return call.x


@function("torchvision.ops.stochastic_depth.stochastic_depth")
def _stochastic_depth(call: Call) -> Blob:
    need(not call.get(3, "training", True), "stochastic depth that is always on")
    return call.x


@function("contiguous", "clone", "detach", "float", torch.clone)
def nothing(call: Call) -> Blob:
    """The input itself."""
    return call.x


# Pooling, interpolation, normalisation --------------------------------------------------------------------------------


@function(F.max_pool2d, torch.max_pool2d)
def _max_pool(call: Call) -> Blob:
    dilation, indices = call.get(4, "dilation", 1), call.kwargs.get("return_indices", False)
    need(set(pair(dilation)) == {1} and not indices, "dilation, and the indices of maxima, have no place in Caffe's Pooling as torch has them")
    return pool(call, call.x, "MAX", call.get(1, "kernel_size"), call.get(2, "stride"), call.get(3, "padding", 0), want=call.shape[2:])


@function(F.avg_pool2d)
def _avg_pool(call: Call) -> Blob:
    return modules.averaged(
        call,
        call.x,
        call.get(1, "kernel_size"),
        call.get(2, "stride"),
        call.get(3, "padding", 0),
        count_include_pad=call.get(5, "count_include_pad", True),
        divisor=call.get(6, "divisor_override"),
    )


@function(F.adaptive_avg_pool2d)
def _adaptive_avg(call: Call) -> Blob:
    return adaptive(call, call.x, "AVE")


@function(F.adaptive_max_pool2d)
def _adaptive_max(call: Call) -> Blob:
    return adaptive(call, call.x, "MAX")


@function(torch.mean, "mean")
def _mean(call: Call) -> Blob:
    return reduced(call, "MEAN")


@function(torch.sum, "sum")
def _summed(call: Call) -> Blob:
    return reduced(call, "SUM")


def reduced(call: Call, operation: str) -> Blob:
    """Over the last axes; the mean of an image is a global pooling, which more compilers read."""
    x, dim = call.x, call.get(1, "dim")
    axes = sorted({d % len(x.shape) for d in ([dim] if isinstance(dim, int) else dim or range(len(x.shape)))})
    need(axes == list(range(axes[0], len(x.shape))), f"reduces the axes {axes} of {len(x.shape)}; Caffe reduces the last ones")
    if operation == "MEAN" and axes == [2, 3]:
        return reshape(call, global_pool(call, x, "AVE"), call.shape)
    kept = x.shape[: axes[0]]
    y = call.one("Reduction", [x], shape=kept, reduction_param={"operation": operation, "axis": axes[0]})
    return reshape(call, y, call.shape)


@function(F.interpolate)
def _interpolate(call: Call) -> Blob:
    return modules.enlarged(call, call.x, call.kwargs.get("mode", call.get(3, "mode", "nearest")))


@function(F.linear)
def _linear(call: Call) -> Blob:
    weight, bias = call.get(1, "weight"), call.get(2, "bias")
    need(isinstance(weight, Tensor) and not isinstance(bias, Blob), "weights that are computed have no layer")
    return modules.inner_product(call, call.x, weight, bias)


@function(F.batch_norm)
def _batch_norm(call: Call) -> Blob:
    mean_, variance, weight, bias = (call.get(i, name) for i, name in enumerate(("running_mean", "running_var", "weight", "bias"), 1))
    need(not call.get(5, "training", False) and isinstance(mean_, Tensor), "statistics of the batch; Caffe's BatchNorm takes running ones at TEST")
    return modules.normalised(call, call.x, mean_, variance, weight, bias, call.get(7, "eps", 1e-5))


# Shapes ---------------------------------------------------------------------------------------------------------------


@function(torch.flatten, torch.reshape, torch.squeeze, torch.unsqueeze, "flatten", "reshape", "view", "squeeze", "unsqueeze")
def _to_shape(call: Call) -> Blob:
    return reshape(call, call.x, call.shape)


@function(torch.cat, torch.concat)
def _cat(call: Call) -> Blob:
    parts = [blob(part) for part in call.get(0, "tensors")]
    axis = call.get(1, "dim", 0) % len(parts[0].shape)
    return parts[0] if len(parts) == 1 else call.one("Concat", parts, concat_param={"axis": axis if axis != 1 else None})


@function(torch.chunk, torch.split, "chunk", "split")
def _pieces(call: Call) -> list[Blob]:
    x = call.x
    axis = call.get(2, "dim", 0) % len(x.shape)
    sizes = [part.shape[axis] for part in call.result]
    if len(sizes) == 1:
        return [x]
    points = [sum(sizes[:i]) for i in range(1, len(sizes))]
    shapes = [tuple(part.shape) for part in call.result]
    return call.writer.add("Slice", [x], shapes, slice_param={"axis": axis, "slice_point": points})


@function(operator.getitem)
def item(call: Call) -> Any:
    """A part of several, or a run along an axis."""
    whole, index = call.args
    if not isinstance(whole, Blob):
        return whole[index]
    for axis, part in enumerate(index if isinstance(index, tuple) else (index,)):
        if part is Ellipsis:
            break
        if not isinstance(part, slice) or part.step not in (None, 1):
            raise CannotWrite("an index that is no run of neighbours along an axis has no layer; use narrow or chunk")
        start, stop, _ = part.indices(whole.shape[axis])
        whole = cut(call, whole, axis, start, stop)
    need(whole.shape == call.shape, "an index behind an ellipsis has no layer; name all axes")
    return whole
