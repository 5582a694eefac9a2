"""The user's own module, or torchvision's: `package.module:callable`, its submodules matched with the layers of the graph."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prototxt import DecantError

from ...graph import Graph, Step
from ...modes import evaluating
from ...samples import sample_inputs
from ..results import Side
from .base import Unavailable, first_line
from .pytorch import HookedRunner

FAMILIES = {  # what does a Caffe layer's work in torch, by the name of its class
    "Conv1d": "Convolution", "Conv2d": "Convolution", "Conv3d": "Convolution", "ConvTranspose2d": "Deconvolution", "Linear": "InnerProduct",
    "BatchNorm1d": "BatchNorm", "BatchNorm2d": "BatchNorm", "ReLU": "ReLU", "LeakyReLU": "ReLU", "PReLU": "PReLU", "Sigmoid": "Sigmoid",
    "Tanh": "TanH", "MaxPool2d": "Pooling", "AvgPool2d": "Pooling", "AdaptiveAvgPool2d": "Pooling", "LocalResponseNorm": "LRN",
    "Dropout": "Dropout", "Softmax": "Softmax", "Flatten": "Flatten",
}  # fmt: skip


def import_module_of(spec: str) -> Any:
    """What `package.module:callable` makes: called without arguments if it is a function or a class, taken as it is if it is a module."""
    home, _, name = spec.partition(":")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        made: Any = importlib.import_module(home)
        for part in name.split("."):
            made = getattr(made, part)
        made = made if isinstance(made, nn.Module) else made()
    except Exception as exc:  # the user's code may raise anything
        raise DecantError(f"{spec}: cannot be made: {type(exc).__name__}: {first_line(exc)}") from exc
    if not callable(made):
        raise DecantError(f"{spec}: made a {type(made).__name__}, which cannot be called with the net's inputs")
    return made


def user_runner(module: Any, graph: Graph | None, names: Mapping[str, str] | None = None, spec: str = "") -> HookedRunner:
    """A runner of `module`. Which submodule makes which blob is told by `names` ({blob: path}), or found by name, type and shape."""
    wrapped = module if isinstance(module, nn.Module) else _Function(module)
    side = Side(spec or f"the module {type(module).__name__}", str(torch.__version__), spec=spec)
    if graph is None:
        shown = {path: [path] for path, m in wrapped.named_modules() if path and not list(m.children())}
        return HookedRunner(wrapped, (), (), shown, side)
    given = {path: blob for blob, path in (names or {}).items()}
    own = dict(wrapped.named_modules())
    unknown = [path for path in given if path not in own]
    if unknown:
        raise DecantError(f"--map names the submodule {unknown[0]!r}, which {side.name} has not")
    with evaluating(wrapped):
        found = {path: [blob] for path, blob in (given or dict(matched(wrapped, graph))).items()}
    return HookedRunner(wrapped, graph.inputs, graph.outputs, found, side)


class _Function(nn.Module):
    """A function as a module."""

    def __init__(self, run: Any) -> None:
        super().__init__()
        self.run = run

    def forward(self, *inputs: Tensor) -> Any:
        """Whatever it returns."""
        return self.run(*inputs)


def matched(module: nn.Module, graph: Graph) -> Iterator[tuple[str, str]]:
    """(path of a submodule, blob): by equal names where there are some, else in order of execution by type and shape."""
    names = graph.value_names
    own = dict(module.named_modules())
    by_key = [(step.key, names[step.tops[0]]) for step in graph.steps if len(step.tops) == 1 and step.key in own]
    if by_key:
        yield from by_key
        return
    theirs = [(path, kind, shape) for path, kind, shape in _executed(module, graph)]
    ours = [(names[step.tops[0]], step.type, tuple(step.shapes[0])) for step in _comparable(graph)]
    blocks = SequenceMatcher(None, [t[1:] for t in theirs], [o[1:] for o in ours], autojunk=False).get_matching_blocks()
    for i, j, size in blocks:
        for k in range(size):
            yield theirs[i + k][0], ours[j + k][0]


def _comparable(graph: Graph) -> Iterator[Step]:
    """The steps that a torch module may stand for; a Scale behind a BatchNorm takes its place, as nn.BatchNorm2d does both."""
    steps = [step for step in graph.steps if step.type in {*FAMILIES.values(), "Scale"} and step.tops]
    for i, step in enumerate(steps):
        follower = steps[i + 1].type if i + 1 < len(steps) else ""
        if step.type == "Scale" and i and steps[i - 1].type == "BatchNorm":
            from dataclasses import replace

            yield replace(step, type="BatchNorm")
        elif not (step.type == "BatchNorm" and follower == "Scale"):
            yield step


def _executed(module: nn.Module, graph: Graph) -> list[tuple[str, str, tuple[int, ...]]]:
    """(path, Caffe's type, shape) of the leaves that run once, in order."""
    seen: list[tuple[str, str, tuple[int, ...]]] = []
    leaves = {path: m for path, m in module.named_modules() if type(m).__name__ in FAMILIES}

    def hook(path: str) -> Any:
        return lambda m, _, made: seen.append((path, FAMILIES[type(m).__name__], tuple(made.shape)))

    handles = [m.register_forward_hook(hook(path)) for path, m in leaves.items()]
    try:
        with torch.no_grad():
            module(*sample_inputs(graph).values())
    except Exception as exc:
        raise Unavailable(f"the module does not take inputs of {[list(graph.blob_shapes[b]) for b in graph.inputs]}: {first_line(exc)}") from exc
    finally:
        for handle in handles:
            handle.remove()
    counts = [path for path, _, _ in seen]
    return [entry for entry in seen if counts.count(entry[0]) == 1]
