"""Net -> ONNX, by torch's dynamo exporter: dynamic batch, Caffe's blob names, checked by onnx's checker.

The batch axis is free where the net allows it; where a layer bakes it in, the file has the batch of the prototxt, and the
function says so in what it returns.
"""

from __future__ import annotations

import ast
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prototxt import NetError
from prototxt.files import atomic_path

from .graph import Graph, Step, Value
from .modules.pooling import WideAvgPool2d
from .onnx_ops import translations
from .preprocessing import Preprocessing
from .samples import sample_inputs


@dataclass(frozen=True, slots=True)
class OnnxFile:
    """What was written: the path, and whether the batch axis is free."""

    path: Path
    dynamic_batch: bool


class _Named(nn.Module):
    """The net with its outputs as a tuple, and with preprocessing in front of the first input if there is some."""

    def __init__(self, module: nn.Module, outputs: tuple[str, ...], preprocessing: nn.Module | None) -> None:
        super().__init__()
        self.net, self.outputs, self.preprocessing = module, outputs, preprocessing

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        if self.preprocessing is not None:
            inputs = (self.preprocessing(inputs[0]), *inputs[1:])
        made = self.net(*inputs)
        return tuple(made[name] for name in self.outputs) if isinstance(made, dict) else (made,)


def to_onnx(net: Any, path: str | Path, preprocessing: Preprocessing | None = None) -> OnnxFile:
    """Write a CaffeNet as ONNX, weights inside, all or nothing. With `preprocessing` the first input takes RGB images of 0..255.

    NetError names the layers that ONNX cannot express.
    """
    graph: Graph = net.graph
    refused = [f"  {step.place}: layer {step.name!r} ({step.type}): {why}" for step in graph.steps if (why := step.rule.onnx or step.recipe.onnx)]
    if refused:
        raise NetError("ONNX cannot express this net:\n" + "\n".join(refused))
    if not graph.outputs:
        raise NetError("the net has no output, so there is nothing to export")
    training = net.module.training
    net.module.eval()
    with_ceil: dict[str, nn.Module] = {}
    try:
        with_ceil = _spell_out_average_pooling(net)
        _as_operators(net, on=True)
        wrapped = _Named(net.module, graph.outputs, preprocessing.module() if preprocessing else None).eval()
        with _quiet():
            program, dynamic = _exported(graph, wrapped)
            _rename(program.model, graph)
            program.optimize()
            _restore_names(program.model, graph)
            _write(program.model, Path(path))
    finally:
        _as_operators(net, on=False)
        for key, module in with_ceil.items():
            net.module.set_submodule(key, module)
        net.module.train(training)
    return OnnxFile(Path(path), dynamic)


def _spell_out_average_pooling(net: Any) -> dict[str, nn.Module]:
    """Put modules that pad by themselves in place of AvgPool2d(ceil_mode=True); the replaced ones by key.

    Readers of ONNX differ on what AveragePool with ceil_mode divides by: OpenCV 5.0 is off by 1e-2 on cifar10_full.
    """
    replaced: dict[str, nn.Module] = {}
    for step in net.graph.steps:
        module = net.module.get_submodule(step.key) if step.tops else None
        if isinstance(module, nn.AvgPool2d) and module.ceil_mode:
            replaced[step.key] = module
            net.module.set_submodule(step.key, WideAvgPool2d(_both(module.kernel_size), _both(module.stride), _both(module.padding), ceil_mode=True))
    return replaced


def _as_operators(net: Any, *, on: bool) -> None:
    """Let modules that depend on their values stand for one operator, which onnx_ops registers and translates."""
    translations()
    for module in net.module.modules():
        if hasattr(module, "as_operator"):
            module.as_operator = on


def _both(value: Any) -> tuple[int, int]:
    return value if isinstance(value, tuple) else (value, value)


def _exported(graph: Graph, wrapped: nn.Module) -> tuple[Any, bool]:
    """The ONNX program, and whether its batch axis is free: tried with batch 2, which torch does not take for a constant."""
    axes = [graph.values[Value(b)] for b in graph.inputs]
    if axes and all(axes) and len({shape[0] for shape in axes}) == 1:
        inputs = tuple(sample_inputs(graph, batch=2).values())
        batch = torch.export.Dim("batch")
        try:
            exported = torch.export.export(wrapped, inputs, dynamic_shapes=(tuple({0: batch} for _ in axes),), strict=False)
            return _program(exported, graph), True
        except Exception as exc:  # a net that needs its own batch size: torch says so in many ways
            logging.getLogger(__name__).debug("no free batch axis: %s", exc)
    inputs = tuple(sample_inputs(graph).values())
    try:
        return _program(torch.export.export(wrapped, inputs, strict=False), graph), False
    except Exception as exc:
        reason = next((line.strip() for line in str(exc.__cause__ or exc).splitlines() if line.strip()), type(exc).__name__)
        raise NetError(f"torch's exporter cannot express this net: {reason[:300]}") from exc


def _program(exported: Any, graph: Graph) -> Any:
    return torch.onnx.export(
        exported,
        input_names=list(graph.inputs),
        output_names=list(output_names(graph).values()),
        dynamo=True,
        verbose=False,
        optimize=False,
        custom_translation_table=translations(),
    )


# Names ----------------------------------------------------------------------------------------------------------------


def _rename(model: Any, graph: Graph) -> None:
    """Give the value that a layer's module ends with the name of the layer's top; blobs written over get `blob@version`."""
    steps = {step.key: step for step in graph.steps if len(step.tops) == 1}
    last: dict[str, Any] = {}
    for node in model.graph:
        key = _scope(node)
        if key in steps:
            last[key] = node.outputs[-1] if len(node.outputs) == 1 else node.outputs[0]
    taken = {value.name for value in (*model.graph.inputs, *model.graph.initializers.values())} | set(output_names(graph).values())
    outputs = {id(value) for value in model.graph.outputs}
    for key, value in last.items():
        name = _value_name(graph, steps[key])
        if id(value) not in outputs and name not in taken and not _is_input(value):
            value.name = name
            taken.add(name)
    for value in (*model.graph.inputs, *model.graph.outputs):
        _name_batch(value)


def _scope(node: Any) -> str:
    """The key of the submodule that an ONNX node comes from."""
    try:
        scopes = ast.literal_eval(node.metadata_props.get("pkg.torch.onnx.name_scopes", "[]"))
    except (ValueError, SyntaxError):
        return ""
    inner = [s for s in scopes if s not in ("", "net")]
    return inner[0].removeprefix("net.").split(".")[0] if inner else ""


def _is_input(value: Any) -> bool:
    return value.producer() is None


def _value_name(graph: Graph, step: Step) -> str:
    top = step.tops[0]
    return top.blob if graph.last[top.blob] == top else f"{top.blob}@{top.version}"


def _name_batch(value: Any) -> None:
    import onnx_ir

    if value.shape is not None and len(value.shape) and isinstance(value.shape[0], onnx_ir.SymbolicDim):
        value.shape = onnx_ir.Shape([onnx_ir.SymbolicDim("batch"), *list(value.shape)[1:]])


def output_names(graph: Graph) -> dict[str, str]:
    """{blob: name of the ONNX output}: the blob's own, but for one that is an input too, written in place: `data@1`."""
    return {blob: f"{blob}@{graph.last[blob].version}" if blob in graph.inputs else blob for blob in graph.outputs}


def _restore_names(model: Any, graph: Graph) -> None:
    """Inputs and outputs have the blobs' names, whatever the optimizer has joined; one that is an input, or another output, gets an Identity."""
    import onnx_ir

    taken: set[int] = set()
    for value, name in zip(model.graph.inputs, graph.inputs, strict=True):
        value.name = name
    for i, (value, name) in enumerate(zip(list(model.graph.outputs), output_names(graph).values(), strict=True)):
        if _is_input(value) or id(value) in taken:
            if value.name == name:  # a constant, under the name that its output shall have
                value.name = f"{name}@constant"
            node = onnx_ir.node("Identity", [value])
            node.outputs[0].shape, node.outputs[0].type = value.shape, value.type
            model.graph.append(node)
            model.graph.outputs[i] = node.outputs[0]
        model.graph.outputs[i].name = name
        taken.add(id(model.graph.outputs[i]))


def _write(model: Any, path: Path) -> None:
    import onnx
    import onnx_ir

    model.producer_name = "decant"
    for node in model.graph:
        node.metadata_props.clear()  # paths and stack traces of this machine
        node.doc_string = None
    for value in (*model.graph.inputs, *model.graph.outputs):
        value.metadata_props.clear()
    with atomic_path(path) as temporary:
        onnx_ir.save(model, temporary)
        try:
            onnx.checker.check_model(os.fspath(temporary))
        except onnx.checker.ValidationError as exc:
            raise NetError(f"{path}: the exporter wrote an invalid ONNX file: {exc}") from exc


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter's progress and its warnings about its own future are not the user's."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
