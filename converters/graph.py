"""A net as a graph of steps with shapes: what each layer becomes, in order, before anything is built or allocated.

Blobs that are rewritten in place become versions, so that each value has one maker. What Caffe checks when it builds a net is
checked here: wiring, counts, rules for parameters, sharing, shapes. No torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from math import prod
from typing import Any, NamedTuple, cast

from prototxt import Message, NetError, ShapeUnknown, UnsupportedLayer
from prototxt.data.fillers import check as check_filler
from prototxt.net import Layer, Net, Param
from prototxt.rules import State

from .names import identifiers
from .recipe import ParamBlob, Recipe, Shape
from .registry import Inputs, Rule, Tracked, rule_for

MAX_AXES, MAX_COUNT = 32, 2**31 - 1  # Caffe's limits of a blob


class Value(NamedTuple):
    """A blob between two writes to it: version 0 is what its first layer made, 1 what the first in-place layer left, ..."""

    blob: str
    version: int = 0


@dataclass(frozen=True, slots=True)
class StepParam:
    """A parameter blob of a step. `owner` is (step index, blob index) of the one that it shares, or None."""

    blob: ParamBlob
    spec: Param
    owner: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """One layer as it will run. `key` names its submodule; `blocked[i]` cuts the gradient to bottom i (propagate_down: false)."""

    name: str
    type: str
    key: str
    place: str
    recipe: Recipe
    bottoms: tuple[Value, ...]
    bottom_shapes: tuple[Shape, ...]
    tops: tuple[Value, ...]
    loss_weights: tuple[float, ...]
    blocked: tuple[bool, ...]
    params: tuple[StepParam, ...]
    rule: Rule
    spec: Message | None = None  # the layer's definition; none of a step that no layer stands for

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """The shapes of the tops."""
        return self.recipe.tops

    @property
    def reads(self) -> tuple[int, ...]:
        """The bottoms that the module takes."""
        return tuple(range(len(self.bottoms))) if self.recipe.reads is None else self.recipe.reads


@dataclass(frozen=True, slots=True)
class DataLayer:
    """A layer that feeds the net, and the blobs that it feeds."""

    name: str
    type: str
    tops: tuple[str, ...]
    layer: Layer


@dataclass(frozen=True, slots=True)
class Graph:
    """The net. `inputs` are blobs that some step reads; `unused` those that the data layers make for nobody.

    `views` are blobs whose memory another blob's layer has overwritten, and the value that they show since then.
    """

    name: str
    state: State
    steps: tuple[Step, ...]
    inputs: tuple[str, ...]
    unused: tuple[str, ...]
    outputs: tuple[str, ...]
    data_layers: tuple[DataLayer, ...]
    values: Mapping[Value, Shape]
    views: Mapping[str, Value]
    force_backward: bool
    notes: tuple[str, ...]  # what was assumed

    @property
    def blob_shapes(self) -> dict[str, Shape]:
        """Shape by blob; a blob written in place has its last shape."""
        return {value.blob: shape for value, shape in self.values.items()}

    @property
    def param_shapes(self) -> dict[str, list[Shape]]:
        """Caffe's shapes of the parameter blobs by layer name, for the layers that have some."""
        return {step.name: [p.blob.shape for p in step.params] for step in self.steps if step.params}

    @property
    def last(self) -> dict[str, Value]:
        """The last version of each blob."""
        return {value.blob: value for value in self.values}

    @property
    def value_names(self) -> dict[Value, str]:
        """Name of each value: `conv1` for what a blob holds in the end, `conv1@0` for what was written over, there or through a view."""
        last = self.last
        return {v: v.blob if last[v.blob] == v and v.blob not in self.views else f"{v.blob}@{v.version}" for v in self.values}

    @property
    def losses(self) -> tuple[tuple[Value, float], ...]:
        """The values that count in the objective, with their weights."""
        return tuple((top, w) for step in self.steps for top, w in zip(step.tops, step.loss_weights, strict=True) if w)

    @property
    def parameters(self) -> int:
        """Number of parameters, a shared one once."""
        return sum(prod(p.blob.shape) for step in self.steps for p in step.params if p.owner is None)

    @property
    def macs(self) -> int:
        """Multiply-adds of one pass over the batch of the input shapes."""
        return sum(step.recipe.macs for step in self.steps)


def resolve(net: Net, shapes: Mapping[str, Sequence[int]] | None = None, *, strict: bool = True) -> Graph:
    """The graph of a net. `shapes` replace those of the data layers' tops, by blob; if `strict`, none may be of another blob.

    UnsupportedLayer lists every layer without a rule, with its place; NetError tells the first that Caffe would refuse.
    """
    found = _rules_of(net)
    builder = _Builder(net, {k: tuple(v) for k, v in (shapes or {}).items()})
    for layer, rule, key in zip(net.layers, found, builder.keys, strict=True):
        builder.add(layer, rule, key)
    strange = next((blob for blob in builder.given if blob not in builder.fed), None)
    if strict and strange is not None:
        inputs = ", ".join(builder.fed) or "it has none"
        raise NetError(f"a shape is given for {strange!r}, which is no input of the net: {inputs}")
    return builder.graph()


def _rules_of(net: Net) -> list[Rule]:
    found, missing = [], []
    for layer in net.layers:
        try:
            if not layer.type:
                raise UnsupportedLayer("the layer has no type")
            found.append(rule_for(layer.type))
        except UnsupportedLayer as exc:
            missing.append(f"  {layer.place}: layer {layer.name!r}: {exc}")
    if missing:
        count = f"{len(missing)} layers have" if len(missing) > 1 else "1 layer has"
        raise UnsupportedLayer(
            f"{count} a type that Decant does not know:\n" + "\n".join(missing) + "\nA plug-in can add a rule: see docs/adding-a-layer.md"
        )
    return found


_QUANTIZED = "computes in float; the low-precision arithmetic of quantization_param is left out"


class _Builder:
    """The state of one walk over the layers."""

    def __init__(self, net: Net, shapes: Mapping[str, Shape]) -> None:
        self.net, self.given = net, shapes
        self.values: dict[Value, Shape] = {}
        self.current: dict[str, Value] = {}
        self.readers: dict[Value, int] = {}
        self.memory: dict[Value, Value] = {}  # the value in whose memory another one lies
        self.views: dict[str, Value] = {}
        self.fed: list[str] = []
        self.steps: list[Step] = []
        self.data: list[DataLayer] = []
        self.owners: dict[str, _Owner] = {}
        self.notes: list[str] = []
        self.keys = identifiers([layer.name or layer.type for layer in net.layers], prefix="layer")

    def add(self, layer: Layer, rule: Rule, key: str) -> None:
        """Add one layer, under the name `key` of its submodule; NetError with its place."""
        try:
            self._add(layer, rule, key)
        except (UnsupportedLayer, ShapeUnknown) as exc:
            raise type(exc)(f"{layer}: {exc}") from None
        except NetError as exc:
            raise NetError(f"{layer}: {exc}") from None

    def _add(self, layer: Layer, rule: Rule, key: str) -> None:
        bottoms = self._bottoms(layer)
        shapes = tuple(self.values[b] for b in bottoms)
        tops = self._automatic(layer, rule)
        _check_counts(layer, rule, len(tops))
        spec = Tracked(layer.spec)
        made = rule.make(replace(layer, spec=cast(Message, spec), tops=tops), shapes)
        _check_fields(spec)
        if len(made.tops) != len(tops):
            raise NetError(f"makes {len(made.tops)} tops here, but the file names {len(tops)}")
        if isinstance(made, Inputs):
            self._feed(layer, made)
            return
        _check_shapes(made.tops)
        notes = (made.note, _QUANTIZED if layer.spec.has("quantization_param") else "")
        self.notes += [f"{layer.place}: {layer.name!r}: {note}" for note in notes if note]
        self._count_readers(layer, bottoms)
        weights = _loss_weights(layer, rule, len(tops))
        new = self._tops(layer, rule, bottoms, tops, made.tops)
        for top, weight in zip(new, weights, strict=True):
            if layer.spec.loss_weight and weight:
                self.readers[top] = 1  # Caffe counts the loss as a reader, and splits the blob for it
        if rule.shares == "always" or (rule.shares == "alone" and len(bottoms) == len(new) == 1):
            self.memory.update(dict.fromkeys(new, self._root(bottoms[0])))
        params = self._params(layer, made)
        blocked = tuple(not p for p in layer.spec.propagate_down) or (False,) * len(bottoms)
        if self.net.force_backward:
            blocked = (False,) * len(bottoms)
        self.steps.append(Step(layer.name, layer.type, key, layer.place, made, bottoms, shapes, new, weights, blocked, params, rule, layer.spec))

    def _bottoms(self, layer: Layer) -> tuple[Value, ...]:
        for bottom in layer.bottoms:
            if bottom not in self.current:
                later = any(bottom in other.tops for other in self.net.layers)
                near = get_close_matches(bottom, self.current, n=1)
                hint = "; a later layer makes it: move that one up" if later else f"; did you mean {near[0]!r}?" if near else ""
                raise NetError(f"reads the blob {bottom!r}, which no earlier layer makes{hint}")
        if layer.spec.propagate_down and len(layer.spec.propagate_down) != len(layer.bottoms):
            raise NetError(f"{len(layer.spec.propagate_down)} propagate_down for {len(layer.bottoms)} bottoms: one for each, or none")
        for blob in dict.fromkeys(layer.bottoms):
            self._look_through(blob)
        return tuple(self.current[b] for b in layer.bottoms)

    def _look_through(self, blob: str) -> None:
        """A blob that is read after its memory was overwritten through another one becomes a step of its own."""
        source = self.views.pop(blob, None)
        if source is None:
            return
        old = self.current[blob]
        shape = self.values[old]
        value = self.current[blob] = Value(blob, old.version + 1)
        self.values[value], self.memory[value] = shape, self._root(source)
        (key,) = identifiers([f"{blob}_view"], prefix="layer", taken=self.keys)
        self.keys = (*self.keys, key)
        recipe = Recipe("shape.Reshape", {"dims": (-1, *shape[1:]) if prod(shape[1:]) else shape}, (shape,))
        self.steps.append(
            Step(
                f"{blob} (overwritten)",
                "Reshape",
                key,
                "",
                recipe,
                (source,),
                (self.values[source],),
                (value,),
                (0.0,),
                (False,),
                (),
                rule_for("Reshape"),
            )
        )

    def _root(self, value: Value) -> Value:
        return self.memory.get(value, value)

    def _overwritten(self, old: Value, new: Value) -> None:
        """`new` was written into the memory of `old`: whatever else lies there shows it too (nets/random-04)."""
        root = self._root(old)
        self.memory[new] = root
        for blob, value in self.current.items():
            if blob != new.blob and self._root(value) == root:
                self.views[blob] = new

    def _count_readers(self, layer: Layer, bottoms: tuple[Value, ...]) -> None:
        for bottom in bottoms:
            self.readers[bottom] = self.readers.get(bottom, 0) + 1

    def _automatic(self, layer: Layer, rule: Rule) -> tuple[str, ...]:
        if not rule.automatic or layer.tops:
            return layer.tops
        name = layer.name or layer.type
        while name in self.current or any(name in other.tops for other in self.net.layers):
            name += "_loss"
        return (name,)

    def _feed(self, layer: Layer, made: Inputs) -> None:
        batch = next((self.given[top][0] for top in layer.tops if self.given.get(top)), None) if layer.type != "Input" else None
        for top, shape in zip(layer.tops, made.tops, strict=True):
            if top in self.current:
                raise NetError(f"the blob {top!r} is made by an earlier layer already")
            known = self.given.get(top, (batch, *shape[1:]) if batch is not None and shape else shape)  # a layer's tops have one batch size
            if known is None:
                raise ShapeUnknown(f"the shape of {top!r} stands in the data, which are not at hand; give it: --shape {top}=N,C,H,W")
            _check_shapes([known])
            value = self.current[top] = Value(top)
            self.values[value] = known
            self.fed.append(top)
        self.data.append(DataLayer(layer.name, layer.type, layer.tops, layer))
        if made.note and not all(top in self.given for top in layer.tops):
            self.notes.append(f"{layer.place}: {layer.name!r}: {made.note}")

    def _tops(self, layer: Layer, rule: Rule, bottoms: tuple[Value, ...], tops: tuple[str, ...], shapes: tuple[Shape, ...]) -> tuple[Value, ...]:
        new = []
        for i, (top, shape) in enumerate(zip(tops, shapes, strict=True)):
            version = 0
            if top in self.current:
                old = self.current[top]
                if i >= len(bottoms) or layer.bottoms[i] != top:
                    raise NetError(f"the blob {top!r} is made by an earlier layer already; give this top another name")
                if self.readers.get(old, 0) > 1:
                    raise NetError(
                        f"writes {top!r} in place, but another layer reads it as it was before; Caffe refuses this too: give this top another name"
                    )
                if rule.in_place or self.values[old] != shape:
                    why = rule.in_place or f"makes {list(shape)} of {list(self.values[old])}: Caffe overwrites what it still reads"
                    raise NetError(f"writes {top!r} in place, and {why}; give this top another name")
                version = old.version + 1
                self._overwritten(old, Value(top, version))
            value = Value(top, version)
            self.current[top] = value
            self.values[value] = shape
            new.append(value)
        return tuple(new)

    def _params(self, layer: Layer, recipe: Recipe) -> tuple[StepParam, ...]:
        specs = layer.params
        if len(specs) > len(recipe.blobs):
            raise NetError(f"{len(specs)} param for a layer of {len(recipe.blobs)} parameter blobs; remove those too many")
        params = []
        _check_shapes([blob.shape for blob in recipe.blobs], "a parameter")
        for i, blob in enumerate(recipe.blobs):
            spec = specs[i] if i < len(specs) else Param()
            if blob.filler is not None:
                check_filler(blob.filler, blob.shape)
            params.append(StepParam(blob, spec, self._owner(i, blob, layer, specs, spec)))
        return tuple(params)

    def _owner(self, i: int, blob: ParamBlob, layer: Layer, specs: tuple[Param, ...], spec: Param) -> tuple[int, int] | None:
        """Who owns this parameter, if its name was met before; the multipliers that either of them writes hold for both."""
        if not spec.name:
            return None
        written = {name: getattr(spec, name) for name in ("lr_mult", "decay_mult") if layer.spec.param[i].has(name)}
        if spec.name not in self.owners:
            self.owners[spec.name] = _Owner(len(self.steps), i, layer.name, blob.shape, written)
            return None
        owner = self.owners[spec.name]
        if spec.permissive and prod(owner.shape) != prod(blob.shape):
            raise NetError(f"{_sharing(i, spec, owner)}: {list(blob.shape)} here and {list(owner.shape)} there differ in count")
        if not spec.permissive and owner.shape != blob.shape:
            raise NetError(f"{_sharing(i, spec, owner)}: {list(blob.shape)} here, {list(owner.shape)} there; share_mode: PERMISSIVE would allow it")
        for name, value in written.items():
            if owner.multipliers.setdefault(name, value) != value:
                raise NetError(f"{_sharing(i, spec, owner)}: {name} is {value:g} here and {owner.multipliers[name]:g} there")
        return owner.step, owner.index

    def _with_split_weights(self, step: Step) -> Step:
        """A top with an explicit loss_weight that other layers read is split, and Caffe moves the weight to the split: the layer is
        left with its default, 1 for a loss (nets/loss-blob-consumed-weight-two)."""
        split = [bool(w) and self.readers.get(top, 0) > 1 for top, w in zip(step.tops, step.loss_weights, strict=True)]
        if not any(split) or step.spec is None or not step.spec.loss_weight:
            return step
        default = [1.0 if step.rule.automatic and i == 0 else 0.0 for i in range(len(split))]
        moved = [w if s else 0.0 for w, s in zip(step.loss_weights, split, strict=True)]
        return replace(step, loss_weights=tuple(d + m for d, m in zip(default, moved, strict=True)))

    def _with_multipliers(self, step: Step) -> Step:
        params = tuple(replace(p, spec=replace(p.spec, **self.owners[p.spec.name].multipliers)) if p.spec.name else p for p in step.params)
        return replace(step, params=params)

    def graph(self) -> Graph:
        read = {b for step in self.steps for b in step.bottoms}
        for blob in [b for b in self.views if self.current[b] not in read]:
            self._look_through(blob)
        inputs = tuple(b for b in self.fed if Value(b) in read)
        outputs = tuple(dict.fromkeys(v.blob for step in self.steps for v in step.tops if v == self.current[v.blob] and v not in read))
        if not inputs and not self.steps:
            inputs, outputs = tuple(self.fed), tuple(self.fed)
        unused = tuple(b for b in self.fed if b not in inputs)
        return Graph(
            self.net.name,
            self.net.state,
            tuple(self._with_split_weights(self._with_multipliers(step)) for step in self.steps),
            inputs,
            unused,
            outputs,
            tuple(self.data),
            self.values,
            self.views,
            self.net.force_backward,
            tuple(self.notes),
        )


@dataclass(frozen=True, slots=True)
class _Owner:
    """The first user of a shared parameter, and the multipliers that its users have written."""

    step: int
    index: int
    layer: str
    shape: Shape
    multipliers: dict[str, Any]


def _sharing(i: int, spec: Param, owner: _Owner) -> str:
    return f"parameter {i} shares {spec.name!r} with layer {owner.layer!r}"


def _check_counts(layer: Layer, rule: Rule, tops: int) -> None:
    for what, count, (low, high) in (("bottom", len(layer.bottoms), rule.bottoms), ("top", tops, rule.tops)):
        if count < low or (high is not None and count > high):
            wanted = f"{low}" if low == high else f"at least {low}" if high is None else f"{low} to {high}"
            raise NetError(f"has {count} {what}s; a {layer.type} layer takes {wanted}")
    if rule.equal_counts and len(layer.bottoms) != tops:
        raise NetError(f"has {len(layer.bottoms)} bottoms and {tops} tops; a {layer.type} layer takes as many of one as of the other")


def _check_fields(spec: Tracked) -> None:
    passed = spec.passed_over()
    if passed:
        raise UnsupportedLayer(
            f"{', '.join(passed)}: the rule of this type does not read {'this field' if len(passed) == 1 else 'these fields'}, which "
            "BVLC Caffe does not have; remove what has no meaning here, or add a rule by a plug-in: docs/adding-a-layer.md"
        )


def _check_shapes(shapes: Sequence[Shape], what: str = "a top") -> None:
    for shape in shapes:
        if len(shape) > MAX_AXES:
            raise NetError(f"{what} of {len(shape)} axes; a blob has at most {MAX_AXES}")
        if any(d < 0 for d in shape) or prod(shape) > MAX_COUNT:
            raise NetError(f"{what} of shape {list(shape)} is no blob: axes are not negative, and the count stays below 2^31")


def _loss_weights(layer: Layer, rule: Rule, tops: int) -> tuple[float, ...]:
    written = list(layer.spec.loss_weight)
    if not written:
        return tuple(1.0 if rule.automatic and i == 0 else 0.0 for i in range(tops))
    if len(written) != tops and not (rule.automatic and not layer.tops and len(written) <= tops):
        raise NetError(f"{len(written)} loss_weight for {tops} tops: one for each, or none")
    return tuple(written)
