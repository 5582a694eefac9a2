"""Two runners, one feed -> a Report: blobs are paired as they come, measured, and let go."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from prototxt import DecantError

from ..convert import file_name
from . import sources
from .results import BlobResult, LayerNode, NonFinite, Report, Tolerance
from .runners.base import Array, Runner, as_far_as_it_goes
from .runners.pytorch import HookedRunner
from .runners.saved import SavedRun
from .sources import Context, Source
from .statistics import Facts, compare_blob, tolerance_for

if TYPE_CHECKING:
    from ..graph import Graph
    from ..net import CaffeNet


@dataclass(frozen=True, slots=True)
class Pair:
    """Both runners, the net that explains them if there is one, and what they are fed."""

    a: Runner
    b: Runner
    net: CaffeNet | None
    feed: Mapping[str, Array]
    told: str  # of the feed
    name: str = ""  # of the net

    @property
    def graph(self) -> Graph | None:
        """The graph of the net."""
        return self.net.graph if self.net else None


def compare(
    a: Any,
    b: Any,
    inputs: Mapping[str, Any] | None = None,
    *,
    weights: str | Path | None = None,
    net: Any = None,
    blobs: Sequence[str] = (),
    names: Mapping[str, str] | None = None,
    tolerance: Tolerance | None = None,
    gradients: bool = False,
    previews: bool = False,
    context: Context | None = None,
) -> Report:
    """Compare `a` with the reference `b`, blob by blob.

    Each is a runner, a CaffeNet, a torch module, or text as on the command line (see sources.py). `inputs` are {blob: array}; without
    them a recorded run's are taken, else seeded ones. `net` (a CaffeNet or a prototxt) explains two sides of which neither is a
    prototxt. `names` are {blob: A's name of it}: a submodule of a user's module, or a blob. `previews` adds what a page shows: histograms,
    values around the worst one, error maps. Raises Unavailable where a side cannot run here.
    """
    context = context or Context()
    context = context.with_(weights=weights or context.weights, names=names or context.names)
    pair = paired(a, b, inputs, net, context)
    return report_of(pair, blobs=blobs, tolerance=tolerance, gradients=gradients, previews=previews)


# Both sides -----------------------------------------------------------------------------------------------------------


def paired(a: Any, b: Any, inputs: Mapping[str, Any] | None, net: Any, context: Context) -> Pair:
    """The runners of both sides; recorded runs first, as their inputs have shapes that the other side must take."""
    given = [_source(side) for side in (a, b)]
    ready: list[Runner | None] = [side if isinstance(side, Runner) else None for side in given]
    for i, side in enumerate(given):
        if isinstance(side, Source) and side.runner == "saved":
            ready[i] = sources.made(side, context, None, None)
    feed = {name: np.asarray(value) for name, value in (inputs or {}).items()}
    recorded = [runner for runner in reversed(ready) if isinstance(runner, SavedRun)]
    told = "given inputs"
    if not feed and recorded:
        feed, told = recorded[0].feed(), f"the inputs of {recorded[0].name}"
    wanted = context.shapes
    context = context.with_(shapes={**{name: value.shape for name, value in feed.items()}, **context.shapes})
    explaining = _net(net, given, context)
    order = sorted((i for i in (0, 1) if ready[i] is None), key=lambda i: _rank(given[i]))
    for i in order:
        base = next((s for s in (given[1 - i], given[i]) if isinstance(s, Source) and s.path), None)
        ready[i] = _runner(given[i], context, base, explaining)
    first, second = ready
    if context.names and first is not None and not isinstance(first, HookedRunner):
        first = Renamed(first, context.names)
    assert first is not None and second is not None  # noqa: PT018  for the type checker
    for one, other in ((first, second), (second, first)):
        if not one.recorded:
            one.inputs, one.outputs = one.inputs or other.inputs, one.outputs or other.outputs
            one.inner = one.inner or one.outputs
    if not feed:
        feed, told = _seeded(first, second, explaining, context.seed)
    strange = [name for name in wanted if name not in (*first.inputs, *second.inputs)]
    if strange:
        raise DecantError(f"a shape is given for {strange[0]!r}, which is no input of either side: {', '.join(first.inputs)}")
    missing = [name for runner in (first, second) if not runner.recorded for name in runner.inputs if name not in feed]
    if missing:
        raise DecantError(f"the input {missing[0]!r} is not fed; the feed has {', '.join(feed) or 'nothing'}")
    files = [Path(side.path) for side in (net, *given) if isinstance(side, Source) and side.path.endswith(".prototxt")]
    name = (file_name(explaining.graph.name, files[0]) if files else explaining.graph.name) if explaining else ""
    return Pair(first, second, explaining, {blob: np.ascontiguousarray(value, np.float32) for blob, value in feed.items()}, told, name)


class Renamed(Runner):
    """A runner whose blobs have other names: `names` are {blob: the runner's own name}."""

    def __init__(self, runner: Runner, names: Mapping[str, str]) -> None:
        unknown = [own for own in names.values() if own not in runner.inner]
        if unknown:
            raise DecantError(f"--map: {runner.name} has no blob {unknown[0]!r}")
        taken = [blob for blob in names if blob in runner.inner and blob not in names.values()]
        if taken:
            raise DecantError(f"--map: {runner.name} has a blob {taken[0]!r} of its own already; give that another name too: --map OTHER={taken[0]}")
        self.runner, self.side, self.inputs, self.recorded = runner, runner.side, runner.inputs, runner.recorded
        self.own = {blob: blob for blob in runner.inner if blob not in names.values()} | dict(names)
        blobs = {own: blob for blob, own in self.own.items()}
        self.inner, self.outputs = (tuple(blobs[own] for own in listed) for listed in (runner.inner, runner.outputs))

    def stream(self, feed: Mapping[str, Array], wanted: Sequence[str]) -> Iterator[tuple[str, Array]]:
        """The runner's blobs under their other names."""
        blobs = {self.own[blob]: blob for blob in wanted}
        for own, value in self.runner.stream(feed, list(blobs)):
            yield blobs[own], value

    def some(self, feed: Mapping[str, Array], wanted: Sequence[str]) -> dict[str, Array]:
        """The blobs of one pass that are `wanted`."""
        return dict(self.stream(feed, wanted))

    def gradients(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        """The runner's."""
        return self.runner.gradients(feed)


def _source(side: Any) -> Any:
    return sources.parse(str(side)) if isinstance(side, (str, Path)) else side


def _rank(side: Any) -> int:
    """Sides that name files come first: those without take the others' files."""
    return 0 if isinstance(side, Source) and side.path and side.runner != "user" else 1


def _net(net: Any, given: Sequence[Any], context: Context) -> CaffeNet | None:
    """The net that explains: given, or the reference's, or the other side's."""
    from ..net import CaffeNet

    if net is not None:
        return net if isinstance(net, CaffeNet) else context.net(str(net), str(context.weights or ""))
    for side in reversed(given):
        held = side if isinstance(side, CaffeNet) else getattr(side, "net", None) if isinstance(side, Runner) else None
        if isinstance(held, CaffeNet) and _intact(held):
            return held
        if isinstance(side, Source) and side.path and Path(side.path).suffix not in (".onnx", ".py", ".npz") and side.runner != "user":
            return context.net(side.path, side.weights or str(context.weights or ""))
    return None


def _intact(net: CaffeNet) -> bool:
    """Whether the net still has the modules that its graph asks for: only then can it say what a layer should give."""
    from ..modules.sharing import SharedParameters

    modules = {step.key: net.module.get_submodule(step.key) for step in net.graph.steps if step.tops}
    return all(type(modules[step.key]) in (step.recipe.module_class(), SharedParameters) for step in net.graph.steps if step.tops)


def _runner(side: Any, context: Context, base: Source | None, net: CaffeNet | None) -> Runner:
    from ..net import CaffeNet

    if isinstance(side, Source):
        return sources.made(side, context, base, net)
    if isinstance(side, CaffeNet):
        from .runners.pytorch import NetRunner

        return NetRunner(side)
    if callable(side):
        from .runners.user import user_runner

        return user_runner(side, net.graph if net else None, context.names)
    raise DecantError(f"a {type(side).__name__} is no side of a comparison: give a runner, a CaffeNet, a torch module or text")


def _seeded(a: Runner, b: Runner, net: CaffeNet | None, seed: int) -> tuple[dict[str, Array], str]:
    if net is not None:
        from ..samples import sample_inputs

        made = {name: tensor.numpy() for name, tensor in sample_inputs(net.graph, seed=seed).items()}
        return made, f"inputs drawn from N(0, 1), labels from the classes, seed {seed}"
    for runner in (b, a):
        shapes = getattr(getattr(runner, "onnx", None), "shapes", {})
        if shapes and all(name in shapes for name in runner.inputs):
            generator = np.random.default_rng(seed)
            made = {name: generator.standard_normal([d or 1 for d in shapes[name]]).astype(np.float32) for name in runner.inputs}
            return made, f"inputs drawn from N(0, 1), seed {seed}"
    raise DecantError("the shapes of the inputs are not known: give --input X.npz, or --net NET.prototxt that explains both sides")


# The comparison -------------------------------------------------------------------------------------------------------


def report_of(
    pair: Pair, *, blobs: Sequence[str] = (), tolerance: Tolerance | None = None, gradients: bool = False, previews: bool = False
) -> Report:
    """Run both, and measure every blob that both can show, or those of `blobs`.

    What an in-place layer wrote over is measured for a page, which has a row for each layer, and where its blob differs or is not finite:
    a framework that need not show it can fuse.
    """
    tolerance = tolerance or tolerance_for(pair.a.side.precision, pair.b.side.precision)
    layers, facts = described(pair)
    wanted, missing, extra, unmatched = _wanted(pair, blobs, facts)
    stopped: list[str] = []
    before = {} if blobs or previews else _written_over(pair, wanted)
    found = _measured(pair, [name for name in wanted if name not in before], facts, tolerance, previews, stopped)
    doubtful = [name for name, last in before.items() if last not in found or _doubtful(found[last])]
    if doubtful:  # which of the layers that wrote the blob is it?
        found |= _measured(pair, doubtful, facts, tolerance, previews, [*stopped])
    lost = [name for name in wanted if name not in found and (name not in before or name in doubtful)]
    results = [*_inputs(pair, tolerance, previews), *(found[name] for name in wanted if name in found)]
    report = Report(
        pair.name,
        pair.a.side,
        pair.b.side,
        tuple(results),
        tolerance,
        tuple(missing + lost),
        tuple(extra),
        tuple(unmatched),
        layers,
        nonfinite=_nonfinite(results),
        inputs=pair.told,
        notes=(*_notes(pair), *stopped),
    )
    if any(not blob.ok for blob in results) or stopped:
        from .divergence import first_divergence

        report = replace(report, divergence=first_divergence(pair, report))
    if gradients:
        report = replace(report, gradients=compare_gradients(pair, tolerance, previews))
    return report


def described(pair: Pair) -> tuple[tuple[LayerNode, ...], dict[str, Facts]]:
    """The layers of the net, and what is known of each blob."""
    outputs = {*pair.a.outputs, *pair.b.outputs} if not (pair.a.recorded or pair.b.recorded) else set()
    graph = pair.graph
    if graph is None:
        return (), {name: Facts(name, output=name in outputs) for name in (*pair.a.inner, *pair.b.inner)}

    names = graph.value_names
    layers = tuple(
        LayerNode(
            s.name,
            s.type,
            tuple(names[b] for b in s.bottoms),
            tuple(names[t] for t in s.tops),
            tuple(map(tuple, s.shapes)),
            s.place,
        )
        for s in graph.steps
    )
    outputs |= set(graph.outputs)
    facts = {names[top]: Facts(names[top], step.name, step.type, output=names[top] in outputs) for step in graph.steps for top in step.tops}
    for blob, value in graph.views.items():
        facts[blob] = Facts(blob, facts[names[value]].layer, facts[names[value]].layer_type, output=blob in outputs)
    return layers, facts


def _wanted(pair: Pair, blobs: Sequence[str], facts: Mapping[str, Facts]) -> tuple[list[str], list[str], list[str], list[str]]:
    """The blobs to compare in the net's order, those that A lacks, those that B lacks, and inner ones that one side cannot show."""
    a, b = set(pair.a.inner), set(pair.b.inner)
    unknown = [name for name in blobs if name not in a | b]
    if unknown:
        raise DecantError(
            f"--blobs: neither side has a blob {unknown[0]!r}; they have {', '.join([*dict.fromkeys([*pair.a.inner, *pair.b.inner])][:12])}, ..."
        )
    inner = {name for name in facts if pair.graph and not facts[name].output}  # a recording takes all that it holds for outputs
    required_a, required_b = (set(blobs), set(blobs)) if blobs else (set(pair.b.outputs) - inner, set(pair.a.outputs) - inner)
    order = list(dict.fromkeys([*facts, *pair.b.inner, *pair.a.inner]))
    both = [name for name in order if name in a and name in b and (not blobs or name in blobs)]
    order = [name for name in order if name in facts or name not in pair.feed]  # a recording may hold its inputs among its blobs
    missing = [name for name in order if name in required_a and name in b and name not in a]
    extra = [name for name in order if name in required_b and name in a and name not in b]
    unmatched = [] if blobs else [name for name in order if (name in a) != (name in b) and name not in (*missing, *extra)]
    return both, missing, extra, unmatched


def _measured(
    pair: Pair, names: Sequence[str], facts: Mapping[str, Facts], tolerance: Tolerance, previews: bool, stopped: list[str]
) -> dict[str, BlobResult]:
    return {
        name: compare_blob(facts.get(name, Facts(name)), left, right, tolerance, preview=previews)
        for name, left, right in _together(pair, names, stopped)
    }


def _written_over(pair: Pair, wanted: Sequence[str]) -> dict[str, str]:
    """{name of a value that a later layer writes over: name of its blob's last value}, for blobs whose last value is `wanted` too."""
    if pair.graph is None:
        return {}
    names, last, shown = pair.graph.value_names, pair.graph.last, set(wanted)
    behind = {name: names[last[value.blob]] for value, name in names.items()}
    return {name: behind[name] for name in wanted if behind.get(name, name) != name and behind[name] in shown}


def _doubtful(found: BlobResult) -> bool:
    return not found.ok or bool(found.nan_a + found.nan_b + found.inf_a + found.inf_b)


def _together(pair: Pair, wanted: Sequence[str], stopped: list[str]) -> Iterator[tuple[str, Any, Any]]:
    """(name, A's, B's) as soon as both are there. Each side is asked in turn; what waits for the other is held, and no more."""
    streams = [as_far_as_it_goes(runner, pair.feed, wanted, stopped) for runner in (pair.a, pair.b)]
    waiting: list[dict[str, Any]] = [{}, {}]
    running = [True, True]
    while any(running):
        for side in (0, 1):
            if not running[side] or (len(waiting[side]) > len(waiting[1 - side]) + 1 and running[1 - side]):
                continue
            got = next(streams[side], None)
            if got is None:
                running[side] = False
                continue
            name, value = got
            if name in waiting[1 - side]:
                other = waiting[1 - side].pop(name)
                yield (name, value, other) if side == 0 else (name, other, value)
            else:
                waiting[side][name] = value


def _inputs(pair: Pair, tolerance: Tolerance, previews: bool) -> Iterator[BlobResult]:
    """Where both sides are recordings, what they were fed may differ too."""
    if isinstance(pair.a, SavedRun) and isinstance(pair.b, SavedRun):
        theirs = pair.b.feed()
        for name, value in pair.a.feed().items():
            if name in theirs:
                yield compare_blob(Facts(name, layer_type="Input"), value, theirs[name], tolerance, preview=previews)


def _nonfinite(results: Sequence[BlobResult]) -> NonFinite | None:
    for r in results:
        sides = [side for side, count in (("a", r.nan_a + r.inf_a), ("b", r.nan_b + r.inf_b)) if count]
        if sides:
            return NonFinite(r.name, r.layer, "both" if len(sides) == 2 else sides[0])
    return None


def _notes(pair: Pair) -> tuple[str, ...]:
    notes = list(pair.graph.notes) if pair.graph else ["neither side is a prototxt: blobs are compared by name, and causes cannot be tested (--net)"]
    coarse = [runner.side.precision for runner in (pair.a, pair.b) if runner.side.precision != "float32"]
    if coarse:
        notes.append(f"the tolerance is that of {coarse[0]}")
    return tuple(notes)


def compare_gradients(pair: Pair, tolerance: Tolerance, previews: bool = False) -> tuple[BlobResult, ...]:
    """Parameter gradients of one backward pass, by layer/index. One that a side lacks fails."""
    left, right = pair.a.gradients(pair.feed), pair.b.gradients(pair.feed)
    types = {step.name: step.type for step in pair.graph.steps} if pair.graph else {}
    results = []
    for name in dict.fromkeys([*right, *left]):
        facts = Facts(name, name.rpartition("/")[0], types.get(name.rpartition("/")[0], ""))
        absent = np.empty(0, np.float32)
        results.append(compare_blob(facts, left.get(name, absent), right.get(name, absent), tolerance, preview=previews))
    return tuple(results)
