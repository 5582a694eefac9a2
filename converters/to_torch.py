"""Graph -> torch.fx.GraphModule: one submodule a layer, under the layer's name; parameters shared as Caffe shares them."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, fx, nn

from prototxt import NetError

from .graph import Graph, Step, Value
from .labels import labels_of
from .modules.sharing import SharedParameters
from .names import identifiers


@dataclass(frozen=True, slots=True)
class Built:
    """A graph module, and which of its nodes holds which value."""

    module: fx.GraphModule
    nodes: Mapping[str, Value]


def to_torch(graph: Graph) -> Built:
    """The graph as a module, its parameters not yet filled.

    One input and one output: a tensor in, a tensor out. Otherwise the inputs in net order, and a dict by blob name.
    """
    root = nn.Module()
    built: list[nn.Module] = []
    for step in graph.steps:
        built.append(_module(step, built, graph))
        if step.tops:
            root.add_module(step.key, built[-1])
    fx_graph, nodes = wire(graph)
    module = fx.GraphModule(root, fx_graph, class_name=class_name(graph.name))
    module.train(graph.state.phase == "TRAIN")
    return Built(module, nodes)


def class_name(name: str) -> str:
    """A class name for a net: "ResNet-50" -> "ResNet_50"."""
    (plain,) = identifiers([name or "Net"], prefix="Net")
    return plain[0].upper() + plain[1:]


def held(module: nn.Module, step: Step, i: int) -> Tensor:
    """The tensor that the step's i-th blob lives in; of the owner's shape where the blob is shared in another one."""
    name = step.params[i].blob.name
    holder = module if hasattr(module, name) or not isinstance(module, SharedParameters) else module.module
    return getattr(holder, name)  # type: ignore[no-any-return]


def _module(step: Step, earlier: list[nn.Module], graph: Graph) -> nn.Module:
    """The step's module. A parameter that an earlier step owns becomes that step's own; lr_mult 0 means no gradient."""
    module = step.recipe.build()
    for name, values in step.recipe.constants.items():
        getattr(module, name).copy_(torch.as_tensor(values))
    reshaped: dict[str, tuple[nn.Parameter, tuple[int, ...]]] = {}
    for i, param in enumerate(step.params):
        if param.owner is not None:
            index, blob = param.owner
            tensor = held(earlier[index] if index < len(earlier) else module, graph.steps[index], blob)
            if tensor.shape == param.blob.shape:
                setattr(module, param.blob.name, tensor)
            else:
                reshaped[param.blob.name] = (tensor, param.blob.shape)  # type: ignore[assignment]
        elif param.blob.learned and param.spec.lr_mult == 0 and not graph.force_backward:
            held(module, step, i).requires_grad_(False)
    return SharedParameters(module, reshaped) if reshaped else module


def wire(graph: Graph) -> tuple[fx.Graph, dict[str, Value]]:
    """The fx graph of the steps, and the value that each of its nodes holds."""
    wired = fx.Graph()
    env: dict[Value, fx.Node] = {}
    arguments = identifiers(graph.inputs, prefix="input")
    for blob, name in zip(graph.inputs, arguments, strict=True):
        env[Value(blob)] = wired.placeholder(name)
    made = [top for step in graph.steps for top in step.tops]
    names = dict(zip(made, identifiers([top.blob for top in made], prefix="blob", taken=arguments), strict=True))
    for step in graph.steps:
        if step.tops:
            _call(step, wired, env, names)
    outputs = {blob: env[graph.last[blob]] for blob in graph.outputs}
    single = len(graph.inputs) == 1 and len(outputs) == 1
    wired.output(next(iter(outputs.values())) if single else outputs)
    return wired, {node.name: value for value, node in env.items()}


def _call(step: Step, wired: fx.Graph, env: dict[Value, fx.Node], names: Mapping[Value, str]) -> None:
    inputs = []
    for i in step.reads:
        node = env[step.bottoms[i]]
        inputs.append(wired.call_method("detach", (node,)) if step.blocked[i] else node)
    single = len(step.tops) == 1
    node = wired.create_node("call_module", step.key, tuple(inputs), name=names[step.tops[0]] if single else f"{step.key}_tops")
    for i, top in enumerate(step.tops):
        env[top] = node if single else wired.create_node("call_function", operator.getitem, (node, i), name=names[top])


def returning(built: Built, wanted: Sequence[Value]) -> fx.GraphModule:
    """The same modules as one that returns the tuple of the `wanted` values, and keeps no other."""
    wired, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    wired.graph_copy(built.module.graph, copies)
    holds = {built.nodes[old.name]: new for old, new in copies.items() if old.name in built.nodes}
    wired.output(tuple(holds[value] for value in wanted))
    return fx.GraphModule(built.module, wired, class_name=f"{type(built.module).__name__}Pass")


class BlobRecorder(fx.Interpreter):
    """Runs a graph module and keeps the value of every blob version, by the nodes that hold them."""

    def __init__(self, built: Built, graph: Graph | None = None) -> None:
        super().__init__(built.module)
        self.extra_traceback = False  # our errors say where
        self.nodes, self.seen = built.nodes, dict[Value, Tensor]()
        steps = graph.steps if graph is not None else ()
        self.labels = {step.key: labels_of(step) for step in steps}
        self.layers = {step.key: step.name for step in steps}

    def run_node(self, n: fx.Node) -> object:
        """Run one node, and keep its value if it is a blob."""
        try:
            result = super().run_node(n)
        except (RuntimeError, IndexError, ValueError) as exc:
            inputs = cast(tuple[object, ...], self.map_nodes_to_values(n.args, n))
            shapes = [list(v.shape) for v in inputs if isinstance(v, Tensor)]
            labels = self.labels.get(str(n.target))
            if labels is not None and isinstance(inputs[1], Tensor):
                labels.check(inputs[1].detach().cpu().numpy())  # says which sample it is, if that is the cause
            layer = self.layers.get(str(n.target), n.target)
            raise NetError(f"layer {layer!r} does not take blobs of shape {shapes}: {str(exc).splitlines()[0]}") from exc
        if n.name in self.nodes:
            self.seen[self.nodes[n.name]] = result
        return result

    def record(self, inputs: Iterable[Tensor]) -> dict[Value, Tensor]:
        """Every value of one pass."""
        self.run(*inputs)
        return self.seen
