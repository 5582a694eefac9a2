"""Net -> a readable nn.Module class in one file that imports torch alone, from the same recipes as the module itself.

No name of the file's can become code: names go through names.identifiers, values through recipe.literal, and what a docstring or
comment shows is cut down to plain characters.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from .graph import Graph, Step, Value
from .names import identifiers
from .recipe import literal
from .to_torch import class_name

_IMPORTS = {"math": "import math", "json": "import json", "struct": "import struct", "operator": "import operator", "Any": "from typing import Any"}

_LOAD = '''
def load(path: str) -> {name}:
    """The net with the weights of a .safetensors file, in eval mode; a missing tensor or one too many is an error."""
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        state = {{}}
        for key, entry in header.items():
            start, end = entry["data_offsets"]
            file.seek(8 + length + start)
            values = torch.frombuffer(bytearray(file.read(end - start)), dtype=torch.float32) if end > start else torch.empty(0)
            state[key] = values.reshape(entry["shape"])
    net = {name}()
    net.load_state_dict(state, strict=True)
    return net.{mode}()
'''


def to_source(net: Any) -> str:
    """The text of a Python file with one class for the net (a CaffeNet or a Graph), and a function that loads its weights."""
    graph: Graph = getattr(net, "graph", net)
    own = _own_classes(graph)
    (name,) = identifiers([class_name(graph.name)], prefix="Net", taken={*own, "LAYERS", "Tensor", "load"})
    body = _class(graph, name)
    classes = "".join(f"\n\n{text}\n" for text in own.values())
    load = _LOAD.format(name=name, mode="train" if graph.state.phase == "TRAIN" else "eval")
    text = f"{classes}\n\n{body}\n\n{load}"
    return f'"""{_title(graph)}"""\n\n{_imports(text)}{_table(graph)}{text}'


def _title(graph: Graph) -> str:
    phase = "" if graph.state.phase == "TEST" else f", phase {graph.state.phase}"
    return f"{_plain(graph.name) or 'A net'}, converted from Caffe by Decant{phase}."


def _plain(text: str) -> str:
    return re.sub(r"[^0-9A-Za-z _.,:/()+-]", "?", text)[:120]


def _imports(text: str) -> str:
    used = {node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)}
    lines = sorted(line for name, line in _IMPORTS.items() if name in used)
    torch = ["import torch"]
    torch += ["import torch.nn.functional as F"] if "F" in used else []
    torch += ["from torch import Tensor, nn"]
    return "\n".join(["from __future__ import annotations", "", *lines, *([""] if lines else []), *torch, ""])


def _table(graph: Graph) -> str:
    renamed = {step.key: step.name for step in graph.steps if step.key != step.name and step.tops}
    if not renamed:
        return ""
    rows = "".join(f"    {literal(key)}: {literal(name)},\n" for key, name in renamed.items())
    return f"\n# Caffe's layer names, where Python needed another.\nLAYERS = {{\n{rows}}}\n"


# The net's class ------------------------------------------------------------------------------------------------------


def _class(graph: Graph, name: str) -> str:
    inputs = ", ".join(f"{_plain(b)} {list(graph.values[Value(b)])}" for b in graph.inputs)
    outputs = ", ".join(f"{_plain(b)} {list(graph.blob_shapes[b])}" for b in graph.outputs)
    lines = [f"class {name}(nn.Module):", f'    """{inputs or "no input"} -> {outputs or "nothing"}."""', ""]
    lines += ["    def __init__(self) -> None:", "        super().__init__()"]
    lines += [f"        {line}" for line in _constructor(graph)]
    lines += ["", *(f"    {line}" for line in _forward(graph))]
    return "\n".join(lines)


def _constructor(graph: Graph) -> Iterator[str]:
    for step in graph.steps:
        if not step.tops:
            continue
        expression, ties = step.recipe.source(), []
        reshaped = {}
        for param in step.params:
            if param.owner is None:
                continue
            owner, blob = graph.steps[param.owner[0]], graph.steps[param.owner[0]].params[param.owner[1]].blob
            held = f"self.{owner.key}.{blob.name}"
            if blob.shape == param.blob.shape:
                ties.append((param.blob.name, held))
            else:
                reshaped[param.blob.name] = f"({held}, {literal(param.blob.shape)})"
        if reshaped:
            shared = ", ".join(f"{literal(name)}: {value}" for name, value in reshaped.items())
            expression = f"SharedParameters({expression}, {{{shared}}})"
        yield f"self.{step.key} = {expression}"
        home = f"self.{step.key}.module" if reshaped else f"self.{step.key}"
        yield from (f"{home}.{name} = {held}" for name, held in ties)
        if not graph.force_backward:
            frozen = [p.blob.name for p in step.params if p.blob.learned and p.spec.lr_mult == 0 and p.owner is None]
            yield from (f"self.{step.key}.{name}.requires_grad_(False)  # lr_mult: 0" for name in frozen)


def _forward(graph: Graph) -> Iterator[str]:
    blobs = list(dict.fromkeys([*graph.inputs, *(top.blob for step in graph.steps for top in step.tops)]))
    names = dict(zip(blobs, identifiers(blobs, prefix="blob"), strict=True))
    single = len(graph.inputs) == 1 and len(graph.outputs) == 1
    arguments = "".join(f", {names[b]}: Tensor" for b in graph.inputs)
    yield f"def forward(self{arguments}) -> {'Tensor' if single else 'dict[str, Tensor]'}:"
    for step in graph.steps:
        if step.tops:
            yield f"    {_call(step, names)}"
    if single:
        yield f"    return {names[graph.outputs[0]]}"
    else:
        yield f"    return {{{', '.join(f'{literal(b)}: {names[b]}' for b in graph.outputs)}}}"


def _call(step: Step, names: dict[str, str]) -> str:
    inputs = ", ".join(names[step.bottoms[i].blob] + (".detach()" if step.blocked[i] else "") for i in step.reads)
    outputs = ", ".join(names[top.blob] for top in step.tops)
    shapes = ", ".join(str(list(shape)) for shape in step.shapes)
    return f"{outputs} = self.{step.key}({inputs})  # {shapes}"


# Classes of converters/modules that the net uses ----------------------------------------------------------------------


def _own_classes(graph: Graph) -> dict[str, str]:
    """The source by name of every class of ours that the net needs, with what these classes need, each once."""
    wanted: list[tuple[ModuleType, str]] = []
    for step in graph.steps:
        if not step.tops:
            continue
        cls = step.recipe.module_class()
        if not cls.__module__.startswith("torch."):
            wanted.append((inspect.getmodule(cls), cls.__name__))  # type: ignore[arg-type]
        if any(p.owner and graph.steps[p.owner[0]].params[p.owner[1]].blob.shape != p.blob.shape for p in step.params):
            from .modules import sharing

            wanted.append((sharing, "SharedParameters"))
    return {needed: text for module, name in dict.fromkeys(wanted) for needed, text in _closure(module, name)}


def _closure(module: ModuleType, name: str) -> list[tuple[str, str]]:
    """The definitions of a module that `name` needs, itself last, in the order of the file."""
    definitions = _definitions(module)
    needed, left = set(), [name]
    while left:
        current = left.pop()
        if current in needed or current not in definitions:
            continue
        needed.add(current)
        left += [node.id for node in ast.walk(ast.parse(definitions[current])) if isinstance(node, ast.Name)]
    return [(n, text) for n, text in definitions.items() if n in needed]


@cache
def _definitions(module: ModuleType) -> dict[str, str]:
    """Top-level classes, functions and constants of a module, by name, in order."""
    text = Path(inspect.getfile(module)).read_text(encoding="utf-8")
    lines = text.splitlines()
    found = {}
    for node in ast.parse(text).body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            start = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            found[node.name] = _without_notes("\n".join(lines[start - 1 : node.end_lineno]))
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            found[node.targets[0].id] = "\n".join(lines[node.lineno - 1 : node.end_lineno])
    return found


def _without_notes(text: str) -> str:
    """The source without remarks to type checkers and linters."""
    return re.sub(r"  # (type: ignore|noqa)[^\n]*", "", text)
