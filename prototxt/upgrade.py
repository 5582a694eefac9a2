"""V0 and V1 files, net-level inputs and old solver types -> a message of today. The only place that knows versions.

The steps and their order are Caffe's: V0 -> V1, data transformations, V1 -> V2, inputs, BatchNorm. Conformance: formats/upgrade_*.
"""

from __future__ import annotations

from typing import Any

from .errors import UpgradeError
from .message import Message, new
from .schema import kind


def upgrade(message: Message) -> Message:
    """The same net or solver as Caffe would write it today; the message given stays as it is.

    UpgradeError where the old form has no meaning: `layer` and `layers` in one file, a V0 layer of an unknown type, padding
    in front of anything but a convolution or pooling.
    """
    if message.kind.name == "SolverParameter":
        return _solver(message)
    if message.kind.name != "NetParameter":
        raise UpgradeError(f"only nets and solvers have older forms, not {message.kind.name}")
    net = message.copy()
    if net.has("layers"):
        if net.has("layer"):
            raise UpgradeError("this net has both `layer` and `layers`: V2 and V1 layers cannot stand in one file; rewrite the `layers`")
        if any(layer.has("layer") for layer in net.layers):
            net = _v0_net(net)
        net.values["layer"] = [_v1_layer(layer) for layer in _move_transforms(net.values.pop("layers", []))]
    return _batch_norms(_inputs(net))


# V0 -> V1 -------------------------------------------------------------------------------------------------------------

V0_TYPES = {
    "accuracy": "ACCURACY", "bnll": "BNLL", "concat": "CONCAT", "conv": "CONVOLUTION", "data": "DATA", "dropout": "DROPOUT",
    "euclidean_loss": "EUCLIDEAN_LOSS", "flatten": "FLATTEN", "hdf5_data": "HDF5_DATA", "hdf5_output": "HDF5_OUTPUT",
    "im2col": "IM2COL", "images": "IMAGE_DATA", "infogain_loss": "INFOGAIN_LOSS", "innerproduct": "INNER_PRODUCT", "lrn": "LRN",
    "multinomial_logistic_loss": "MULTINOMIAL_LOGISTIC_LOSS", "pool": "POOLING", "relu": "RELU", "sigmoid": "SIGMOID",
    "softmax": "SOFTMAX", "softmax_loss": "SOFTMAX_LOSS", "split": "SPLIT", "tanh": "TANH", "window_data": "WINDOW_DATA",
}  # fmt: skip

# V0 field -> the V0 types that read it, and the field of which parameter it becomes; "*" is any type
_CONV, _IP, _POOL, _LRN = "convolution_param", "inner_product_param", "pooling_param", "lrn_param"
_DATA, _IMAGES, _WINDOW, _HDF5 = "data_param", "image_data_param", "window_data_param", "hdf5_data_param"
V0_FIELDS: dict[str, dict[str, tuple[str, str]]] = {
    "num_output": {"conv": (_CONV, "num_output"), "innerproduct": (_IP, "num_output")},
    "biasterm": {"conv": (_CONV, "bias_term"), "innerproduct": (_IP, "bias_term")},
    "weight_filler": {"conv": (_CONV, "weight_filler"), "innerproduct": (_IP, "weight_filler")},
    "bias_filler": {"conv": (_CONV, "bias_filler"), "innerproduct": (_IP, "bias_filler")},
    "pad": {"conv": (_CONV, "pad"), "pool": (_POOL, "pad")},
    "kernelsize": {"conv": (_CONV, "kernel_size"), "pool": (_POOL, "kernel_size")},
    "group": {"conv": (_CONV, "group")},
    "stride": {"conv": (_CONV, "stride"), "pool": (_POOL, "stride")},
    "pool": {"pool": (_POOL, "pool")},
    "dropout_ratio": {"dropout": ("dropout_param", "dropout_ratio")},
    "local_size": {"lrn": (_LRN, "local_size")},
    "alpha": {"lrn": (_LRN, "alpha")},
    "beta": {"lrn": (_LRN, "beta")},
    "k": {"lrn": (_LRN, "k")},
    "source": {"data": (_DATA, "source"), "hdf5_data": (_HDF5, "source"), "images": (_IMAGES, "source"),
               "window_data": (_WINDOW, "source"), "infogain_loss": ("infogain_loss_param", "source")},
    "batchsize": {"data": (_DATA, "batch_size"), "hdf5_data": (_HDF5, "batch_size"), "images": (_IMAGES, "batch_size"),
                  "window_data": (_WINDOW, "batch_size")},
    "scale": {"*": ("transform_param", "scale")},
    "meanfile": {"*": ("transform_param", "mean_file")},
    "cropsize": {"*": ("transform_param", "crop_size")},
    "mirror": {"*": ("transform_param", "mirror")},
    "rand_skip": {"data": (_DATA, "rand_skip"), "images": (_IMAGES, "rand_skip")},
    "shuffle_images": {"images": (_IMAGES, "shuffle")},
    "new_height": {"images": (_IMAGES, "new_height")},
    "new_width": {"images": (_IMAGES, "new_width")},
    "concat_dim": {"concat": ("concat_param", "concat_dim")},
    "det_fg_threshold": {"window_data": (_WINDOW, "fg_threshold")},
    "det_bg_threshold": {"window_data": (_WINDOW, "bg_threshold")},
    "det_fg_fraction": {"window_data": (_WINDOW, "fg_fraction")},
    "det_context_pad": {"window_data": (_WINDOW, "context_pad")},
    "det_crop_mode": {"window_data": (_WINDOW, "crop_mode")},
}  # fmt: skip


def _v0_net(net: Message) -> Message:
    """Only the name, the inputs and force_backward of a V0 net survive, as in Caffe (`net_fields_kept`)."""
    upgraded = Message(net.kind, {k: v for k, v in net.values.items() if k in ("name", "input", "input_dim", "force_backward")})
    upgraded.values["layers"] = [_v0_layer(layer) for layer in _fold_padding(net)]
    return upgraded


def _fold_padding(net: Message) -> list[Message]:
    """`padding` layers vanish into the pad of the convolution or pooling that reads them."""
    source: dict[str, Message | None] = dict.fromkeys(net.input)
    kept = []
    for layer in net.layers:
        name = layer.layer.name
        for i, bottom in enumerate(layer.bottom):
            if bottom not in source:
                raise UpgradeError(f"layer {name!r} reads the blob {bottom!r}, which no earlier layer makes")
            padding = source[bottom]
            if padding is None or padding.layer.type != "padding":
                continue
            if layer.layer.type not in ("conv", "pool"):
                raise UpgradeError(f"padding in front of {name!r} ({layer.layer.type}): only conv and pool can take it over")
            if len(layer.bottom) != 1 or len(padding.bottom) != 1 or len(padding.top) != 1:
                raise UpgradeError(f"the padding in front of {name!r} must have one bottom and one top, and be its only bottom")
            layer, inner = layer.copy(), layer.layer.copy()
            inner.values["pad"] = padding.layer.pad
            layer.values["layer"] = inner
            layer.values["bottom"][i] = padding.bottom[0]
        source.update(dict.fromkeys(layer.top, layer))
        if layer.layer.type != "padding":
            kept.append(layer)
    return kept


def _v0_layer(connection: Message) -> Message:
    upgraded = Message(connection.kind, {k: v for k, v in connection.values.items() if k in ("bottom", "top")}, at=connection.at)
    v0 = connection.layer
    if v0.has("name"):
        upgraded.values["name"] = v0.name
    if v0.has("type"):
        if v0.type not in V0_TYPES:
            raise UpgradeError(f"layer {v0.name!r}: {v0.type!r} is no V0 layer type; these are: {', '.join(V0_TYPES)}, padding")
        upgraded.values["type"] = V0_TYPES[v0.type]
    for plain in ("blobs", "blobs_lr", "weight_decay"):
        if v0.has(plain):
            upgraded.values[plain] = v0.values[plain]
    if v0.type == "hdf5_output" and v0.has("hdf5_output_param"):
        upgraded.values["hdf5_output_param"] = v0.hdf5_output_param
    for field, value in v0.written():
        readers = V0_FIELDS.get(field.name, {})
        target = readers.get("*") or readers.get(v0.type)
        if target:
            _set(upgraded, target[0], target[1], value)
    return upgraded


def _set(layer: Message, parameter: str, name: str, value: Any) -> None:
    message = layer.values.setdefault(parameter, new(layer.kind.fields[parameter].message))
    message.values[name] = [value] if message.kind.fields[name].repeated else value


# V1 -> V2 -------------------------------------------------------------------------------------------------------------

V1_TYPES = {
    "ABSVAL": "AbsVal", "ACCURACY": "Accuracy", "ARGMAX": "ArgMax", "BNLL": "BNLL", "CONCAT": "Concat",
    "CONTRASTIVE_LOSS": "ContrastiveLoss", "CONVOLUTION": "Convolution", "DATA": "Data", "DECONVOLUTION": "Deconvolution",
    "DROPOUT": "Dropout", "DUMMY_DATA": "DummyData", "ELTWISE": "Eltwise", "EUCLIDEAN_LOSS": "EuclideanLoss", "EXP": "Exp",
    "FLATTEN": "Flatten", "HDF5_DATA": "HDF5Data", "HDF5_OUTPUT": "HDF5Output", "HINGE_LOSS": "HingeLoss", "IM2COL": "Im2col",
    "IMAGE_DATA": "ImageData", "INFOGAIN_LOSS": "InfogainLoss", "INNER_PRODUCT": "InnerProduct", "LRN": "LRN",
    "MEMORY_DATA": "MemoryData", "MULTINOMIAL_LOGISTIC_LOSS": "MultinomialLogisticLoss", "MVN": "MVN", "NONE": "",
    "POOLING": "Pooling", "POWER": "Power", "RELU": "ReLU", "SIGMOID": "Sigmoid",
    "SIGMOID_CROSS_ENTROPY_LOSS": "SigmoidCrossEntropyLoss", "SILENCE": "Silence", "SLICE": "Slice", "SOFTMAX": "Softmax",
    "SOFTMAX_LOSS": "SoftmaxWithLoss", "SPLIT": "Split", "TANH": "TanH", "THRESHOLD": "Threshold", "WINDOW_DATA": "WindowData",
}  # fmt: skip

_TRANSFORMED = {"DATA": "data_param", "IMAGE_DATA": "image_data_param", "WINDOW_DATA": "window_data_param"}
_PARAM_LISTS = {"param": "name", "blob_share_mode": "share_mode", "blobs_lr": "lr_mult", "weight_decay": "decay_mult"}


def _move_transforms(layers: list[Message]) -> list[Message]:
    """scale, mean_file, crop_size and mirror move from the data layers' parameters to transform_param, and win over it.

    If one layer of the net has them, every data layer gets both parameters, empty or not (`phases`).
    """
    if not any(_old_transform(layer) for layer in layers):
        return layers
    return [_moved_transform(layer) if layer.type in _TRANSFORMED else layer for layer in layers]


def _old_transform(layer: Message) -> dict[str, Any]:
    parameter = _TRANSFORMED.get(layer.type, "")
    old = getattr(layer, parameter).values if parameter else {}
    return {name: old[name] for name in ("scale", "mean_file", "crop_size", "mirror") if name in old}


def _moved_transform(layer: Message) -> Message:
    parameter, moved = _TRANSFORMED[layer.type], _old_transform(layer)
    layer, old, transform = layer.copy(), getattr(layer, parameter).copy(), layer.transform_param.copy()
    for name in moved:
        del old.values[name]
    transform.values.update(moved)
    layer.values.update({parameter: old, "transform_param": transform})
    return layer


def _v1_layer(v1: Message) -> Message:
    layer = Message(kind("LayerParameter"), at=v1.at)
    for field, value in v1.written():
        if field.name == "type":
            layer.values["type"] = V1_TYPES.get(value, value)
        elif field.name not in _PARAM_LISTS and field.name != "layer":
            layer.values[field.name] = value
    specs = max((len(v1.values.get(name, ())) for name in _PARAM_LISTS), default=0)
    if specs:
        params = [new("ParamSpec") for _ in range(specs)]
        for old, today in _PARAM_LISTS.items():
            for spec, value in zip(params, v1.values.get(old, ()), strict=False):
                spec.values[today] = value
        layer.values["param"] = params
    layer.unknown, layer.places = dict(v1.unknown), dict(v1.places)
    return layer


# What is left of older habits in V2 files -----------------------------------------------------------------------------


def _inputs(net: Message) -> Message:
    """Net-level `input`, `input_shape` and `input_dim` become one Input layer, put first."""
    names, shapes, dims = net.input, net.input_shape, net.input_dim
    for field in ("input", "input_shape", "input_dim"):
        net.values.pop(field, None)
    if not names or not (shapes or dims):
        return net
    if shapes:
        if len(shapes) != len(names):
            raise UpgradeError(f"{len(names)} `input` but {len(shapes)} `input_shape`: there must be one shape for each input")
    else:
        if len(dims) != 4 * len(names):
            raise UpgradeError(f"{len(names)} `input` but {len(dims)} `input_dim`: there must be four for each input")
        shapes = [new("BlobShape", dim=list(dims[i : i + 4])) for i in range(0, len(dims), 4)]
    layer = new("LayerParameter", name="input", type="Input", top=list(names), input_param=new("InputParameter", shape=list(shapes)))
    net.values["layer"] = [layer, *net.layer]
    return net


def _batch_norms(net: Message) -> Message:
    """A BatchNorm with three `param` gets lr_mult and decay_mult 0: its statistics are not learned."""
    if any(layer.type == "BatchNorm" and len(layer.param) == 3 for layer in net.layer):
        net.values["layer"] = [_frozen(layer) if layer.type == "BatchNorm" and len(layer.param) == 3 else layer for layer in net.layer]
    return net


def _frozen(layer: Message) -> Message:
    layer = layer.copy()
    layer.values["param"] = [spec.copy() for spec in layer.param]
    for spec in layer.param:
        spec.values.update(lr_mult=0.0, decay_mult=0.0)
    return layer


SOLVER_TYPES = {"SGD": "SGD", "NESTEROV": "Nesterov", "ADAGRAD": "AdaGrad", "RMSPROP": "RMSProp", "ADADELTA": "AdaDelta", "ADAM": "Adam"}


def _solver(solver: Message) -> Message:
    if not solver.has("solver_type"):
        return solver
    if solver.has("type"):
        raise UpgradeError("the solver has both `type` and the older `solver_type`; remove `solver_type`")
    if solver.solver_type not in SOLVER_TYPES:
        raise UpgradeError(f"solver_type {solver.solver_type!r} is not Caffe's; its types are {', '.join(SOLVER_TYPES)}")
    solver = solver.copy()
    solver.values["type"] = SOLVER_TYPES[solver.values.pop("solver_type")]
    return solver
