"""torch's own modules."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .calls import Call, adaptive, clip, module, need, pair, pool, power, reshape, sized
from .writer import Blob, CannotWrite


def convolution(call: Call, m: Any, bottoms: list[Blob], *, type_: str = "Convolution", pad: tuple[int, ...] | None = None) -> list[Blob]:
    """A convolution or a deconvolution of one or more blobs with one set of weights."""
    need(m.padding_mode == "zeros", f"pads by {m.padding_mode}; Caffe pads with zeros")
    if pad is None:
        if isinstance(m.padding, str):
            extent = [d * (k - 1) for d, k in zip(m.dilation, m.kernel_size, strict=True)]
            need(m.padding == "valid" or all(e % 2 == 0 for e in extent), "padding 'same' of an even kernel is one-sided; use an odd kernel")
            pad = tuple(e // 2 if m.padding == "same" else 0 for e in extent)
        else:
            pad = m.padding
    fields: dict[str, Any] = {"num_output": m.out_channels, "bias_term": None if m.bias is not None else False}
    if len(m.kernel_size) == 2:
        fields |= {**sized("kernel", m.kernel_size, both="kernel_size"), **sized("stride", m.stride, 1), **sized("pad", pad, 0)}
        repeated = {"kernel_size": fields.get("kernel_size"), "stride": fields.get("stride"), "pad": fields.get("pad")}
        fields |= {name: [value] for name, value in repeated.items() if value is not None}
    else:
        fields |= {"kernel_size": list(m.kernel_size), "stride": list(m.stride), "pad": list(pad)}
    fields |= {"dilation": list(m.dilation) if len(set(m.dilation)) > 1 else [m.dilation[0]]} if set(m.dilation) != {1} else {}
    fields |= {"group": m.groups} if m.groups != 1 else {}
    arrays = [m.weight] + ([m.bias] if m.bias is not None else [])
    axis = len(bottoms[0].shape) - len(m.kernel_size) - 1
    fields |= {"axis": axis} if axis != 1 else {}
    results = call.result if isinstance(call.result, tuple) else (call.result,)
    return call.writer.add(type_, bottoms, [tuple(r.shape) for r in results], arrays, convolution_param=fields)


@module(nn.Conv1d, nn.Conv2d, nn.Conv3d)
def _conv(call: Call) -> Blob:
    return convolution(call, call.module, [call.x])[0]


@module(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
def _deconv(call: Call) -> Blob:
    need(
        not any(call.module.output_padding) and len(call.args) == 1,
        "output_padding has no place in Caffe's Deconvolution; choose kernel and padding without",
    )
    return convolution(call, call.module, [call.x], type_="Deconvolution")[0]


@module(nn.Linear)
def _linear(call: Call) -> Blob:
    m = call.module
    return inner_product(call, call.x, m.weight, m.bias)


def inner_product(call: Call, x: Blob, weight: Tensor, bias: Tensor | None, axis: int | None = None) -> Blob:
    """x W^T + b over the last axis, or over `axis` and all behind it."""
    place = len(x.shape) - 1 if axis is None else axis
    fields = {"num_output": weight.shape[0], "bias_term": None if bias is not None else False, "axis": None if place == 1 else place}
    return call.one("InnerProduct", [x], [weight] + ([bias] if bias is not None else []), inner_product_param=fields)


@module(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
def _batch_norm(call: Call) -> Blob:
    m = call.module
    need(m.running_mean is not None, "has no running statistics; Caffe's BatchNorm takes them at TEST")
    return normalised(call, call.x, m.running_mean, m.running_var, m.weight, m.bias, m.eps)


def normalised(call: Call, x: Blob, mean: Tensor, variance: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Blob:
    """BatchNorm, and Scale if there is something to scale by."""
    y = call.one("BatchNorm", [x], [mean, variance, torch.ones(1)], batch_norm_param={"eps": eps if eps != 1e-5 else None})
    if weight is None and bias is None:
        return y
    weight = torch.ones_like(mean) if weight is None else weight
    return call.one("Scale", [y], [weight] + ([bias] if bias is not None else []), scale_param={"bias_term": True if bias is not None else None})


@module(nn.MaxPool2d)
def _max_pool(call: Call) -> Blob:
    m = call.module
    need(
        not m.return_indices and set(pair(m.dilation)) == {1},
        "dilation, and the indices of maxima, have no place in Caffe's Pooling as torch has them",
    )
    return pool(call, call.x, "MAX", m.kernel_size, m.stride, m.padding, want=call.shape[2:])


@module(nn.AvgPool2d)
def _avg_pool(call: Call) -> Blob:
    m = call.module
    return averaged(call, call.x, m.kernel_size, m.stride, m.padding, count_include_pad=m.count_include_pad, divisor=m.divisor_override)


def averaged(call: Call, x: Blob, kernel: Any, stride: Any, pad: Any, *, count_include_pad: bool, divisor: int | None) -> Blob:
    """AVE pooling, which divides by the window within the padded image, as torch does."""
    need(count_include_pad or set(pair(pad)) == {0}, "count_include_pad=False: Caffe divides by the padding too; set it to True, or pad no image")
    need(divisor is None, "divisor_override has no place in Caffe's Pooling")
    return pool(call, x, "AVE", kernel, stride, pad, want=call.shape[2:])


@module(nn.AdaptiveAvgPool2d)
def _adaptive_avg(call: Call) -> Blob:
    return adaptive(call, call.x, "AVE")


@module(nn.AdaptiveMaxPool2d)
def _adaptive_max(call: Call) -> Blob:
    need(not call.module.return_indices, "the indices of maxima have no place in Caffe's Pooling as torch has them")
    return adaptive(call, call.x, "MAX")


@module(nn.ReLU)
def relu(call: Call) -> Blob:
    """max(x, 0)."""
    return call.one("ReLU", [call.x])


@module(nn.LeakyReLU)
def _leaky_relu(call: Call) -> Blob:
    return call.one("ReLU", [call.x], relu_param={"negative_slope": call.module.negative_slope})


@module(nn.PReLU)
def _prelu(call: Call) -> Blob:
    weight = call.module.weight
    shared = weight.numel() == 1 and (len(call.x.shape) < 2 or call.x.shape[1] != 1)
    return call.one("PReLU", [call.x], [weight.reshape(()) if shared else weight], prelu_param={"channel_shared": True if shared else None})


@module(nn.Sigmoid)
def sigmoid(call: Call) -> Blob:
    """1 / (1 + exp(-x))."""
    return call.one("Sigmoid", [call.x])


@module(nn.Tanh)
def tanh(call: Call) -> Blob:
    """tanh(x)."""
    return call.one("TanH", [call.x])


@module(nn.ELU)
def _elu(call: Call) -> Blob:
    return call.one("ELU", [call.x], elu_param={"alpha": call.module.alpha})


@module(nn.Softplus)
def _softplus(call: Call) -> Blob:
    need(call.module.beta == 1, f"beta {call.module.beta}: Caffe's BNLL has 1")
    return call.one("BNLL", [call.x])


@module(nn.SiLU)
def silu(call: Call) -> Blob:
    """x times its sigmoid."""
    return call.one("Swish", [call.x])


@module(nn.ReLU6)
def relu6(call: Call) -> Blob:
    """min(max(x, 0), 6)."""
    return clip(call, call.x, 0, 6)


@module(nn.Hardtanh)
def _hardtanh(call: Call) -> Blob:
    return clip(call, call.x, call.module.min_val, call.module.max_val)


@module(nn.Hardsigmoid)
def hardsigmoid(call: Call) -> Blob:
    """min(max(x + 3, 0), 6) / 6, of Power and Clip."""
    return power(call, clip(call, power(call, call.x, shift=3.0), 0, 6), scale=1 / 6)


@module(nn.Hardswish)
def hardswish(call: Call) -> Blob:
    """x times its hard sigmoid."""
    return call.one("Eltwise", [call.x, hardsigmoid(call)], eltwise_param={"operation": "PROD"})


@module(nn.Softmax)
def _softmax(call: Call) -> Blob:
    return softmax_along(call, call.x, call.module.dim)


@module(nn.LogSoftmax)
def _log_softmax(call: Call) -> Blob:
    return call.one("Log", [softmax_along(call, call.x, call.module.dim)])


def softmax_along(call: Call, x: Blob, dim: int | None) -> Blob:
    """Softmax along an axis; torch's default is refused, as torch warns of it."""
    need(dim is not None, "Softmax without dim; name the axis")
    axis = int(dim or 0) % len(x.shape)
    return call.one("Softmax", [x], softmax_param={"axis": axis if axis != 1 else None})


@module(nn.Dropout, nn.Dropout2d, nn.Dropout3d, nn.Identity)
def nothing(call: Call) -> Blob:
    """The input: at inference these do nothing."""
    return call.x


@module(nn.Flatten)
def _flatten(call: Call) -> Blob:
    return reshape(call, call.x, call.shape)


@module(nn.LocalResponseNorm)
def _lrn(call: Call) -> Blob:
    m = call.module
    need(m.size % 2 == 1, f"size {m.size}: the window of Caffe's LRN has a middle; use an odd size")
    return call.one("LRN", [call.x], lrn_param={"local_size": m.size, "alpha": m.alpha, "beta": m.beta, "k": m.k})


@module(nn.Embedding)
def _embedding(call: Call) -> Blob:
    m = call.module
    need(m.max_norm is None, "max_norm has no place in Caffe's Embed")
    fields = {"num_output": m.embedding_dim, "input_dim": m.num_embeddings, "bias_term": False}
    return call.one("Embed", [call.x], [m.weight], embed_param=fields)


@module(nn.Upsample)
def _upsample(call: Call) -> Blob:
    return enlarged(call, call.x, call.module.mode)


def enlarged(call: Call, x: Blob, mode: str) -> Blob:
    """Every pixel repeated a whole number of times, as a Deconvolution of ones; other modes have no layer in BVLC Caffe."""
    if mode != "nearest":
        raise CannotWrite(
            f"mode {mode!r}: BVLC's bilinear Deconvolution differs at the borders, and has no corners on corners; use mode 'nearest', or a "
            "ConvTranspose2d with the weights that are meant"
        )
    need(len(x.shape) == 4, f"enlarges {len(x.shape) - 2} axes; Caffe's way takes images [N, C, H, W]")
    scales = [b // a for a, b in zip(x.shape[2:], call.shape[2:], strict=True)]
    whole = all(a * s == b for a, b, s in zip(x.shape[2:], call.shape[2:], scales, strict=True))
    need(whole and min(scales) > 0, f"{list(x.shape[2:])} to {list(call.shape[2:])} is no whole factor")
    if set(scales) == {1}:
        return x
    channels = x.shape[1]
    size = tuple(scales)
    fields: dict[str, Any] = {"num_output": channels, "group": channels, "bias_term": False}
    if size[0] == size[1]:
        fields |= {"kernel_size": [size[0]], "stride": [size[0]]}
    else:
        fields |= {**sized("kernel", size), **sized("stride", size)}
    return call.one("Deconvolution", [x], [torch.ones(channels, 1, *size)], convolution_param=fields)
