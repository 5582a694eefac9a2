"""Net -> ONNX, by torch's dynamo exporter: dynamic batch, Caffe's blob names, checked by onnx's checker.

The batch axis is free where the net allows it; where a layer bakes it in, the file has the batch of the prototxt, and the
function says so in what it returns.
"""

from __future__ import annotations

import ast
import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prototxt import NetError
from prototxt.files import atomic_path

from .graph import Graph, Step, Value
from .modes import evaluating
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
    with _exportable(net.module):
        wrapped = _Named(net.module, graph.outputs, preprocessing.module() if preprocessing else None).eval()
        program, dynamic = _exported(graph, wrapped)
        _rename(program.model, graph)
        program.optimize()
        _restore_names(program.model, graph.inputs, list(output_names(graph).values()))
        _write(program.model, Path(path))
    return OnnxFile(Path(path), dynamic)


def module_to_onnx(
    module: nn.Module, path: str | Path, inputs: Mapping[str, Tensor], outputs: Sequence[str], preprocessing: Preprocessing | None = None
) -> OnnxFile:
    """Write any module as ONNX: it takes the inputs in order and returns {output: tensor}, or one tensor. The batch axis is free.

    NetError says what torch's exporter cannot express.
    """
    shared = sorted(set(inputs) & set(outputs))
    if shared:
        raise NetError(f"{shared} would name an input and an output of one ONNX file; give the output another name")
    with _exportable(module):
        wrapped = _Named(module, tuple(outputs), preprocessing.module() if preprocessing else None).eval()
        batch = torch.export.Dim("batch")
        try:
            exported = torch.export.export(wrapped, tuple(inputs.values()), dynamic_shapes=(tuple({0: batch} for _ in inputs),), strict=False)
            program = _program(exported, list(inputs), list(outputs))
        except Exception as exc:  # torch says in many ways that it cannot
            raise NetError(f"torch's exporter cannot express this module with a free batch axis: {_reason(exc)}") from exc
        program.optimize()
        for value in (*program.model.graph.inputs, *program.model.graph.outputs):
            _name_batch(value)
        _restore_names(program.model, list(inputs), list(outputs))
        _write(program.model, Path(path))
    return OnnxFile(Path(path), True)


@contextmanager
def _exportable(module: nn.Module) -> Iterator[None]:
    """The module in eval mode, in the form that exports best, and the exporter quiet; all as before at the end."""
    with_ceil: dict[str, nn.Module] = {}
    with evaluating(module):
        try:
            with_ceil = _spell_out_average_pooling(module)
            _as_operators(module, on=True)
            with _quiet():
                yield
        finally:
            _as_operators(module, on=False)
            for key, replaced in with_ceil.items():
                module.set_submodule(key, replaced)


def _spell_out_average_pooling(module: nn.Module) -> dict[str, nn.Module]:
    """Put modules that pad by themselves in place of AvgPool2d(ceil_mode=True); the replaced ones by key.

    Readers of ONNX differ on what AveragePool with ceil_mode divides by: OpenCV 5.0 is off by 1e-2 on cifar10_full.
    """
    caffes = ((key, m) for key, m in module.named_modules() if isinstance(m, nn.AvgPool2d) and m.ceil_mode)
    replaced: dict[str, nn.Module] = {key: m for key, m in caffes if m.count_include_pad and m.divisor_override is None}
    for key, pool in replaced.items():
        both = {name: _both(getattr(pool, name)) for name in ("kernel_size", "stride", "padding")}
        module.set_submodule(key, WideAvgPool2d(**both, ceil_mode=True))
    return replaced


def _as_operators(module: nn.Module, *, on: bool) -> None:
    """Let modules that depend on their values stand for one operator, which onnx_ops registers and translates."""
    translations()
    for part in module.modules():
        if hasattr(part, "as_operator"):
            part.as_operator = on  # type: ignore[assignment]


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
            return _program(exported, graph.inputs, list(output_names(graph).values())), True
        except Exception as exc:  # a net that needs its own batch size: torch says so in many ways
            logging.getLogger(__name__).debug("no free batch axis: %s", exc)
    inputs = tuple(sample_inputs(graph).values())
    try:
        return _program(torch.export.export(wrapped, inputs, strict=False), graph.inputs, list(output_names(graph).values())), False
    except Exception as exc:
        raise NetError(f"torch's exporter cannot express this net: {_reason(exc)}") from exc


def _reason(exc: Exception) -> str:
    return next((line.strip() for line in str(exc.__cause__ or exc).splitlines() if line.strip()), type(exc).__name__)[:300]


def _program(exported: Any, inputs: Sequence[str], outputs: Sequence[str]) -> Any:
    return torch.onnx.export(
        exported,
        input_names=list(inputs),
        output_names=list(outputs),
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


def _restore_names(model: Any, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Inputs and outputs have these names, whatever the optimizer has joined; one that is an input, or another output, gets an Identity."""
    import onnx_ir

    taken: set[int] = set()
    for value, name in zip(model.graph.inputs, inputs, strict=True):
        value.name = name
    for i, (value, name) in enumerate(zip(list(model.graph.outputs), outputs, strict=True)):
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
