"""Editing a net: cut it at a blob, rename its blobs, freeze its first layers; and the trunk that heads are put on.

cut(net, ["pool5"]) -> CaffeNet      only the layers that those blobs need
rename(net, {"prob": "species"}) -> CaffeNet
Each gives a new net on the modules of the old one: the parameters are the same, not copies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

import torch
from torch import fx, nn

from prototxt import NetError

from .graph import Graph, Step, StepParam, Value
from .modes import modes_kept
from .net import CaffeNet
from .recipe import Shape
from .to_torch import Built, class_name, wire


def cut(net: CaffeNet, at: Sequence[str]) -> CaffeNet:
    """The net up to the blobs `at`, which become its outputs; `conv1@0` is the blob before anything was written over it.

    Layers that lead to none of them go. NetError with the nearest names if a blob is not there.
    """
    wanted = [_value(net.graph, name, "cut at") for name in at]
    if len({value.blob for value in wanted}) != len(wanted):
        raise NetError(f"{list(at)} names a blob twice; its versions cannot both be outputs under one name")
    return _rewired(net, _reduced(net.graph, wanted))


def rename(net: CaffeNet, blobs: Mapping[str, str]) -> CaffeNet:
    """The net with other names for some of its blobs; the layers and their parameters keep theirs. NetError if a name is taken."""
    for old in blobs:
        if _value(net.graph, old, "rename") != net.graph.last.get(old):
            raise NetError(f"{old!r} is a blob before it was written over; rename the blob, which all its versions go with")
    names = {blob: blobs.get(blob, blob) for blob in net.graph.last}
    if len(set(names.values())) != len(names):
        raise NetError(f"{dict(blobs)} would give two blobs one name")

    def new(value: Value) -> Value:
        return Value(names[value.blob], value.version)

    def listed(old: Sequence[str]) -> tuple[str, ...]:
        return tuple(names.get(blob, blob) for blob in old)

    graph = net.graph
    steps = tuple(replace(s, bottoms=tuple(map(new, s.bottoms)), tops=tuple(map(new, s.tops))) for s in graph.steps)
    renamed = replace(
        graph,
        steps=steps,
        inputs=listed(graph.inputs),
        unused=listed(graph.unused),
        outputs=listed(graph.outputs),
        data_layers=tuple(replace(d, tops=listed(d.tops)) for d in graph.data_layers),
        values={new(value): shape for value, shape in graph.values.items()},
        views={names[blob]: new(value) for blob, value in graph.views.items()},
    )
    return _rewired(net, renamed)


def freeze(net: CaffeNet, until: str) -> None:
    """Freeze the layers up to and with `until`: no gradient to their parameters, as with lr_mult 0. NetError if there is no such layer."""
    names = [step.name for step in net.graph.steps]
    if until not in names:
        near = get_close_matches(until, names, n=1)
        raise NetError(f"the net has no layer {until!r} to freeze up to" + (f"; did you mean {near[0]!r}?" if near else ""))
    for name in names[: names.index(until) + 1]:
        for tensor in net.params().get(name, []):
            tensor.requires_grad_(False)


def joined(net: CaffeNet) -> tuple[CaffeNet, tuple[str, ...], dict[str, tuple[int, int]]]:
    """The net over one batch, where it joins several inputs along the batch axis and cuts the batch apart again behind the trunk.

    Returned are the net whose input is the joined blob, the inputs that were joined, and the rows that each cut-off blob had, by the
    net's own batch sizes. A net without this comes back as it is, with nothing joined.
    """
    graph = net.graph
    fed = {Value(blob) for blob in graph.inputs}
    joins = [s for s in graph.steps if s.type == "Concat" and s.recipe.args["dim"] == 0 and len(s.bottoms) > 1 and set(s.bottoms) <= fed]
    if len(joins) != 1:
        return net, (), {}
    (join,) = joins
    cuts = [s for s in graph.steps if s.type == "Slice" and s.recipe.args["dim"] == 0 and _leads(graph, join.tops[0], s.bottoms[0])]
    source, rows = dict[Value, Value](), dict[str, tuple[int, int]]()
    for step in cuts:
        start = 0
        for top, shape in zip(step.tops, step.shapes, strict=True):
            source[top] = source.get(step.bottoms[0], step.bottoms[0])
            rows[top.blob] = (start, start + shape[0])
            start += shape[0]
    gone = {id(step) for step in (join, *cuts)}
    kept = [i for i, step in enumerate(graph.steps) if id(step) not in gone]
    steps = tuple(replace(s, bottoms=tuple(source.get(b, b) for b in s.bottoms)) for s in _reowned(graph, kept))
    inputs = (join.tops[0].blob, *(blob for blob in graph.inputs if Value(blob) not in join.bottoms))
    values = {value: shape for value, shape in graph.values.items() if value not in source and value not in join.bottoms}
    one = replace(graph, steps=steps, inputs=inputs, values=values)
    return _rewired(net, one), tuple(b.blob for b in join.bottoms), rows


def _leads(graph: Graph, source: Value, target: Value) -> bool:
    """Whether the second value is made of the first."""
    made = {source}
    for step in graph.steps:
        if made & set(step.bottoms):
            made |= set(step.tops)
    return target in made


def _rewired(net: CaffeNet, graph: Graph) -> CaffeNet:
    """A net of that graph with the modules of this one."""
    root = nn.Module()
    for step in graph.steps:
        if step.tops:
            root.add_module(step.key, net.module.get_submodule(step.key))
    wired, nodes = wire(graph)
    module = fx.GraphModule(root, wired, class_name=class_name(graph.name))
    module.training = net.module.training  # and not train(), which would set the shared modules too
    return CaffeNet(graph, Built(module, nodes))


def _value(graph: Graph, name: str, doing: str) -> Value:
    blob, _, version = name.rpartition("@")
    if blob and version.isdigit() and Value(blob, int(version)) in graph.values:
        return Value(blob, int(version))
    if name in graph.last:
        return graph.last[name]
    near = get_close_matches(name, graph.last, n=3)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"it has {', '.join(list(graph.last)[-8:])} and others"
    raise NetError(f"the net has no blob {name!r} to {doing}; {hint}")


def _reduced(graph: Graph, wanted: Sequence[Value]) -> Graph:
    """The graph of the steps that the values need; a blob that has several versions ends with the wanted one."""
    needed, kept = set(wanted), list[int]()
    for i in reversed(range(len(graph.steps))):
        if needed & set(graph.steps[i].tops):
            needed |= set(graph.steps[i].bottoms)
            kept.insert(0, i)
    steps = _reowned(graph, kept)
    held = {value for step in steps for value in (*step.bottoms, *step.tops)} | set(wanted)
    inputs = tuple(blob for blob in graph.inputs if Value(blob) in held)
    return replace(
        graph,
        steps=steps,
        inputs=inputs,
        unused=(),
        outputs=tuple(dict.fromkeys(value.blob for value in wanted)),
        data_layers=tuple(d for d in graph.data_layers if set(d.tops) & set(inputs)),
        values={value: shape for value, shape in graph.values.items() if value in held},
        views={},
    )


def _reowned(graph: Graph, kept: Sequence[int]) -> tuple[Step, ...]:
    """The kept steps; of a parameter whose owner is not among them the first user is the owner."""
    places = {old: new for new, old in enumerate(kept)}
    owners: dict[tuple[int, int], tuple[int, int]] = {}
    steps = []
    for old in kept:
        params: list[StepParam] = []
        for i, param in enumerate(graph.steps[old].params):
            source = param.owner or (old, i)
            owner = (places[source[0]], source[1]) if source[0] in places else owners.get(source)
            owners.setdefault(source, (places[old], i))
            params.append(replace(param, owner=None if param.owner is None else owner))
        steps.append(replace(graph.steps[old], params=tuple(params)))
    return tuple(steps)


@dataclass(frozen=True, slots=True)
class Trunk:
    """What heads stand on: a module whose output is the features, a tensor or {output: tensor}, and what is known of it.

    `places` are {blob or submodule as it was asked for: output}; `shapes` of the features by place, batch included. `layers` are
    {layer: key of its submodule} in the order they run. `multipliers` are Caffe's (lr_mult, decay_mult) by the name of the parameter,
    where the net has some. `input` is the input's name, `image` its shape without the batch.
    """

    module: nn.Module
    places: Mapping[str, str]
    shapes: Mapping[str, Shape]
    layers: Mapping[str, str]
    multipliers: Mapping[str, tuple[float, float]]
    input: str
    image: Shape


def trunk_of(net: Any, at: Sequence[str], input_shape: Sequence[int]) -> Trunk:
    """The part of a converted net, or of any module that torch.fx can trace, up to the blobs or submodules `at`."""
    if isinstance(net, CaffeNet):
        return _converted(cut(net, at), at)
    return _traced(net, at, input_shape)


def _converted(net: CaffeNet, at: Sequence[str]) -> Trunk:
    graph = net.graph
    if len(graph.inputs) != 1:
        raise NetError(f"the net up to {', '.join(at)} needs the inputs {list(graph.inputs)}; heads stand on a net of one input")
    outputs = dict(zip(at, graph.outputs, strict=True))
    shapes = {place: graph.values[graph.last[blob]] for place, blob in outputs.items()}
    multipliers = {}
    for step in graph.steps:
        for param in step.params:
            if param.owner is None:
                multipliers[f"{step.key}.{param.blob.name}"] = (param.spec.lr_mult, param.spec.decay_mult)
    layers = {step.name: step.key for step in graph.steps if step.tops}
    (source,) = graph.inputs
    return Trunk(net.module, outputs, shapes, layers, multipliers, source, graph.values[Value(source)][1:])


def _traced(module: Any, at: Sequence[str], input_shape: Sequence[int]) -> Trunk:
    if not isinstance(module, nn.Module):
        raise NetError(f"heads stand on a net of converters.load or a torch module, not on {type(module).__name__}")
    with modes_kept(module):
        return _extracted(module, at, input_shape)


def _extracted(module: nn.Module, at: Sequence[str], input_shape: Sequence[int]) -> Trunk:
    from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

    try:
        names = get_graph_node_names(module)[1]
    except Exception as exc:  # torch.fx says in many ways that it cannot trace
        raise NetError(f"torch.fx cannot trace {type(module).__name__}: {str(exc).splitlines()[0]}") from exc
    for place in at:
        if not any(name == place or name.startswith(f"{place}.") for name in names):
            near = get_close_matches(place, names, n=3)
            raise NetError(f"{type(module).__name__} has no module or node {place!r} to cut at; near are {near or names[-5:]}")
    training = module.training
    extractor = create_feature_extractor(module, return_nodes={place: place for place in at})
    extractor.eval()
    try:
        with torch.no_grad():
            made = extractor(torch.zeros(1, *input_shape, device=next(extractor.parameters(), torch.empty(0)).device))
    except (RuntimeError, IndexError, TypeError, ValueError) as exc:
        raise NetError(f"{type(module).__name__} does not take an input of {[1, *input_shape]}: {str(exc).splitlines()[0][:300]}") from exc
    extractor.train(training)
    layers = {str(node.target): str(node.target) for node in extractor.graph.nodes if node.op in ("call_module", "get_attr")}
    return Trunk(
        extractor, {place: place for place in at}, {place: tuple(made[place].shape) for place in at}, layers, {}, "input", tuple(input_shape)
    )
