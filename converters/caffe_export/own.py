"""Decant's own modules, which stand for layers of BVLC Caffe: the way back."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..modules import (
    activation,
    convolution,
    eltwise,
    linear,
    losses,
    metrics,
    normalization,
    pooling,
    recurrent,
    reduction,
    rows,
    scale,
    shape,
)
from .calls import Call, blob, module, need, pair, pool, power, reshape, sized
from .modules import convolution as convolved
from .modules import inner_product, nothing
from .writer import Blob

module(activation.PhaseDropout)(nothing)


@module(activation.Abs)
def _absolute(call: Call) -> Blob:
    return call.one("AbsVal", [call.x])


@module(activation.SharedPReLU)
def _shared_prelu(call: Call) -> Blob:
    return call.one("PReLU", [call.x], [call.module.weight], prelu_param={"channel_shared": True})


@module(activation.Power)
def _to_power(call: Call) -> Blob:
    m = call.module
    return power(call, call.x, scale=m.scale, shift=m.shift, exponent=m.power)


@module(activation.Exp, activation.Log)
def _exp_or_log(call: Call) -> Blob:
    m = call.module
    kind = type(m).__name__
    fields: Any = {f"{kind.lower()}_param": {"base": m.base, "scale": m.scale, "shift": m.shift}}
    return call.one(kind, [call.x], **fields)


@module(activation.BNLL)
def _bnll(call: Call) -> Blob:
    return call.one("BNLL", [call.x])


@module(activation.Threshold)
def _threshold(call: Call) -> Blob:
    return call.one("Threshold", [call.x], threshold_param={"threshold": call.module.threshold})


@module(activation.Clip)
def _clip(call: Call) -> Blob:
    return call.one("Clip", [call.x], clip_param={"min": call.module.low, "max": call.module.high})


@module(activation.Swish)
def _swish(call: Call) -> Blob:
    return call.one("Swish", [call.x], swish_param={"beta": call.module.beta})


@module(convolution.Conv1dEach, convolution.Conv2dEach, convolution.Conv3dEach)
def _conv(call: Call) -> Any:
    return _each(call, "Convolution")


@module(convolution.ConvTranspose1dEach, convolution.ConvTranspose2dEach, convolution.ConvTranspose3dEach)
def _deconv(call: Call) -> Any:
    return _each(call, "Deconvolution")


def _each(call: Call, type_: str) -> Any:
    need(not call.module.short, "an image smaller than the kernel has no layer")
    tops = convolved(call, call.module, [blob(x) for x in call.args], type_=type_)
    return tops if len(tops) > 1 else tops[0]


@module(linear.InnerProduct)
def _inner(call: Call) -> Blob:
    m = call.module
    return inner_product(call, call.x, m.weight.t() if m.transpose else m.weight, m.bias, m.axis)


@module(linear.Embed)
def _embed(call: Call) -> Blob:
    m = call.module
    fields = {"num_output": m.weight.shape[1], "input_dim": m.weight.shape[0], "bias_term": m.bias is not None}
    return call.one("Embed", [call.x], [m.weight] + ([m.bias] if m.bias is not None else []), embed_param=fields)


@module(eltwise.Sum)
def _total(call: Call) -> Blob:
    return call.one("Eltwise", [blob(x) for x in call.args], eltwise_param={"coeff": list(call.module.coefficients or [])})


@module(eltwise.Product, eltwise.Maximum)
def _product_or_maximum(call: Call) -> Blob:
    operation = "PROD" if isinstance(call.module, eltwise.Product) else "MAX"
    return call.one("Eltwise", [blob(x) for x in call.args], eltwise_param={"operation": operation})


@module(normalization.LRN)
def _lrn(call: Call) -> Blob:
    m = call.module
    return call.one("LRN", [call.x], lrn_param={"local_size": m.size, "alpha": m.alpha, "beta": m.beta, "k": m.k})


@module(normalization.LRNWithin)
def _lrn_within(call: Call) -> Blob:
    m = call.module
    fields = {"local_size": m.size, "alpha": m.alpha, "beta": m.beta, "norm_region": "WITHIN_CHANNEL"}
    return call.one("LRN", [call.x], lrn_param=fields)


@module(normalization.BatchNorm)
def _batch_norm(call: Call) -> Blob:
    m = call.module
    need(m.use_global_stats is not False, "statistics of the batch, always; chips and Caffe's TEST take running ones")
    return call.one("BatchNorm", [call.x], [m.mean, m.variance, m.factor], batch_norm_param={"eps": m.eps})


@module(normalization.ScaledBatchNorm)
def scaled_batch_norm(call: Call) -> Blob:
    """A fork's BatchNorm as BVLC's two layers."""
    m = call.module
    need(m.stored is not False, "statistics of the batch, always; chips and Caffe's TEST take running ones")
    factor = m.mean.new_ones(1) if m.factor is None else m.factor
    y = call.one("BatchNorm", [call.x], [m.mean, m.variance, factor], batch_norm_param={"eps": m.eps})
    return call.one("Scale", [y], [m.weight, m.bias], scale_param={"bias_term": True})


@module(normalization.MVN)
def _mvn(call: Call) -> Blob:
    m = call.module
    fields = {"across_channels": m.across_channels, "normalize_variance": m.normalize_variance, "eps": m.eps}
    return call.one("MVN", [call.x], mvn_param=fields)


@module(pooling.WideMaxPool2d, pooling.WideAvgPool2d, pooling.StochasticPool2d)
def _wide_pool(call: Call) -> Blob:
    m = call.module
    method = {"WideMaxPool2d": "MAX", "WideAvgPool2d": "AVE"}.get(type(m).__name__, "STOCHASTIC")
    if m.kernel_size is None:
        return call.one("Pooling", [call.x], pooling_param={"pool": method, "global_pooling": True})
    return pool(call, call.x, method, m.kernel_size, m.stride, m.padding, want=call.shape[2:])


@module(pooling.MaxPool2dWithMask)
def _masked_pool(call: Call) -> Any:
    m = call.module
    shapes = [tuple(r.shape) for r in call.result]
    if m.kernel_size is None:
        return call.writer.add("Pooling", [call.x], shapes, pooling_param={"pool": "MAX", "global_pooling": True})
    fields = {"pool": "MAX", **sized("kernel", pair(m.kernel_size), both="kernel_size"), **sized("stride", pair(m.stride), 1)}
    fields |= {**sized("pad", pair(m.padding), 0), "round_mode": None if m.ceil_mode else "FLOOR"}
    return call.writer.add("Pooling", [call.x], shapes, pooling_param=fields)


@module(pooling.SPP)
def _pyramid_pool(call: Call) -> Blob:
    m = call.module
    return call.one("SPP", [call.x], spp_param={"pyramid_height": m.height, "pool": "AVE" if m.average else "MAX"})


@module(reduction.Reduction)
def _reduce(call: Call) -> Blob:
    m = call.module
    return call.one("Reduction", [call.x], reduction_param={"operation": m.operation, "axis": m.axis, "coeff": m.coefficient})


@module(scale.Scale)
def _scaled(call: Call) -> Blob:
    m = call.module
    fields = {"axis": m.axis, "num_axes": m.weight.dim(), "bias_term": m.bias is not None}
    return call.one("Scale", [call.x], [m.weight] + ([m.bias] if m.bias is not None else []), scale_param=fields)


@module(scale.ScaleBy)
def _scaled_by(call: Call) -> Blob:
    m = call.module
    fields = {"axis": m.axis, "bias_term": m.bias is not None}
    arrays: list[Tensor] = [m.bias] if m.bias is not None else []
    return call.one("Scale", [blob(x) for x in call.args], arrays, scale_param=fields)


@module(scale.Bias)
def _biased(call: Call) -> Blob:
    m = call.module
    return call.one("Bias", [call.x], [m.bias], bias_param={"axis": m.axis, "num_axes": m.bias.dim()})


@module(scale.BiasBy)
def _biased_by(call: Call) -> Blob:
    return call.one("Bias", [blob(x) for x in call.args], bias_param={"axis": call.module.axis})


@module(scale.Axpy)
def axpy(call: Call) -> Blob:
    """a x + y of Scale and Eltwise."""
    a, x, y = (blob(v) for v in call.args)
    product = call.one("Scale", [x, reshape(call, a, x.shape[:2])], shape=x.shape, scale_param={"axis": 0})
    return call.one("Eltwise", [product, y])


@module(shape.Concat)
def _concat(call: Call) -> Blob:
    return call.one("Concat", [blob(x) for x in call.args], concat_param={"axis": call.module.dim})


@module(shape.Slice, shape.SliceEqual)
def _slices(call: Call) -> Any:
    m = call.module
    results = call.result if isinstance(call.result, tuple) else (call.result,)
    sizes = [r.shape[m.dim] for r in results]
    points = [sum(sizes[:i]) for i in range(1, len(sizes))]
    if not points:
        return call.x
    return call.writer.add("Slice", [call.x], [tuple(r.shape) for r in results], slice_param={"axis": m.dim, "slice_point": points})


@module(shape.Split)
def _split(call: Call) -> Any:
    return [call.x] * call.module.copies if call.module.copies > 1 else call.x


@module(shape.Reshape)
def _reshaped(call: Call) -> Blob:
    return reshape(call, call.x, call.shape)


@module(shape.Crop)
def _crop(call: Call) -> Blob:
    fields = {"axis": call.module.axis, "offset": list(call.module.offsets)}
    return call.one("Crop", [blob(x) for x in call.args], crop_param=fields)


@module(shape.Tile)
def _tile(call: Call) -> Blob:
    return call.one("Tile", [call.x], tile_param={"axis": call.module.dim, "tiles": call.module.tiles})


@module(metrics.ArgMax)
def _arg_max(call: Call) -> Blob:
    m = call.module
    return call.one("ArgMax", [call.x], argmax_param={"top_k": m.top_k, "out_max_val": m.values, "axis": m.axis})


@module(metrics.Accuracy)
def _accuracy(call: Call) -> Any:
    m = call.module
    fields = {"axis": m.axis, "top_k": m.top_k, "ignore_label": m.ignore_label}
    results = call.result if isinstance(call.result, tuple) else (call.result,)
    tops = call.writer.add("Accuracy", [blob(x) for x in call.args], [tuple(r.shape) for r in results], accuracy_param=fields)
    return tops if len(tops) > 1 else tops[0]


@module(convolution.Im2col)
def _im2col(call: Call) -> Blob:
    m = call.module
    names = ("kernel_size", "stride", "pad", "dilation")
    fields = dict(zip(names, map(list, (m.kernel_size, m.stride, m.padding, m.dilation)), strict=True))
    return call.one("Im2col", [call.x], convolution_param=fields | {"axis": m.axis})


@module(recurrent.LSTM, recurrent.RNN)
def _recurrent(call: Call) -> Any:
    m = call.module
    lstm = isinstance(m, recurrent.LSTM)
    first = [m.weight_xc, m.bias_c] if lstm else [m.weight_xh, m.bias_h]
    last = [m.weight_hc] if lstm else [m.weight_hh, m.weight_ho, m.bias_o]
    arrays = first + ([m.weight_static] if m.weight_static is not None else []) + last
    results = call.result if isinstance(call.result, tuple) else (call.result,)
    fields = {"num_output": m.hidden, "expose_hidden": m.expose_hidden}
    bottoms = [blob(x) for x in call.args]
    tops = call.writer.add("LSTM" if lstm else "RNN", bottoms, [tuple(r.shape) for r in results], arrays, recurrent_param=fields)
    return tops if len(tops) > 1 else tops[0]


@module(recurrent.LSTMUnit)
def _lstm_unit(call: Call) -> Any:
    return call.writer.add("LSTMUnit", [blob(x) for x in call.args], [tuple(r.shape) for r in call.result])


# Losses and rows --------------------------------------------------------------------------------------------------------


@module(losses.SoftmaxWithLoss, losses.SigmoidCrossEntropyLoss, losses.InfogainLoss)
def _normalised_loss(call: Call) -> Any:
    m = call.module
    kind = type(m).__name__
    if isinstance(m, losses.InfogainLoss):
        need(m.matrix is None, "an infogain matrix inside of the module; give it as third input")
    fields: dict[str, Any] = {"loss_param": {"normalization": m.normalization, "ignore_label": m.ignore_label}}
    if hasattr(m, "axis"):
        fields["softmax_param" if kind == "SoftmaxWithLoss" else "infogain_loss_param"] = {"axis": m.axis}
    return _loss(call, kind, **fields)


@module(losses.EuclideanLoss, losses.MultinomialLogisticLoss)
def _plain_loss(call: Call) -> Any:
    return _loss(call, type(call.module).__name__)


@module(losses.HingeLoss)
def _hinge_loss(call: Call) -> Any:
    return _loss(call, "HingeLoss", hinge_loss_param={"norm": "L2" if call.module.squared else "L1"})


@module(losses.ContrastiveLoss)
def _contrastive_loss(call: Call) -> Any:
    return _loss(call, "ContrastiveLoss", contrastive_loss_param={"margin": call.module.margin, "legacy_version": call.module.legacy})


@module(rows.BatchReindex)
def _batch_reindex(call: Call) -> Any:
    return _loss(call, "BatchReindex")


def _loss(call: Call, kind: str, **fields: Any) -> Any:
    """A layer of all arguments, with as many tops as the module gives."""
    results = call.result if isinstance(call.result, tuple) else (call.result,)
    tops = call.writer.add(kind, [blob(x) for x in call.args], [tuple(r.shape) for r in results], **fields)
    return tops if len(tops) > 1 else tops[0]
