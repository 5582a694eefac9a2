"""Where two runs part, and why: the first blob past its tolerance, its layer replayed alone, the known causes tried on it.

Each side's own inputs of the layer are used, which agree up to there: so no error travels into the replay. The side whose values the
prototxt's layer does not give is the one that does something else; the cause is the change that gives exactly those.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..graph import Value
from .causes import hypotheses
from .inputs import input_hypotheses, recorded_inputs
from .precision import coarse_formats
from .replay import Replay, Segment, apart, segment
from .results import BlobResult, Divergence, Report
from .runners.base import Array, Runner, as_far_as_it_goes
from .runners.saved import Sampled, SavedRun

if TYPE_CHECKING:
    from .engine import Pair

SHARE = 0.1  # a cause must leave less than this share of the error that it explains
TOLD = 8  # tried causes that a report lists


def first_divergence(pair: Pair, report: Report) -> Divergence | None:
    """The first blob of the report that does not agree, and why as far as it can be found; None where all that came agrees."""
    bad = next((blob for blob in report.blobs if not blob.ok), None)
    if bad is None:
        return None
    place = next((layer.place for layer in report.layers if layer.name == bad.layer), "")
    plain = Divergence(bad.name, bad.layer, bad.layer_type, bad.worst_rel, place)
    if bad.layer_type == "Input" and isinstance(pair.a, SavedRun) and isinstance(pair.b, SavedRun):
        return recorded_inputs(plain, pair.a.feed()[bad.name], pair.b.feed()[bad.name])
    if pair.net is None:
        return replace(plain, explanation="neither side is a prototxt, so no layer can be replayed; --net NET.prototxt names one")
    target = next((value for value, name in pair.net.graph.value_names.items() if name == bad.name), None)
    if target is None:
        return plain
    return _Search(pair, report, bad, target).explained(plain)


@dataclass(frozen=True, slots=True)
class Trial:
    """A side's segment, its values, and what the prototxt's own layers make of them."""

    side: str
    runner: Runner
    part: Segment
    given: Mapping[Value, Tensor]
    seen: Tensor
    error: float


class _Search:
    """The search for one blob's cause."""

    def __init__(self, pair: Pair, report: Report, bad: BlobResult, target: Value) -> None:
        assert pair.net is not None
        self.pair, self.bad, self.limit = pair, bad, report.tolerance.rtol
        self.replay = Replay(pair.net)
        self.graph = pair.net.graph
        self.names = self.graph.value_names
        agreeing = {blob.name for blob in report.blobs if blob.ok}
        self.known = {value for value, name in self.names.items() if name in agreeing}
        self.target = target

    def explained(self, plain: Divergence) -> Divergence:
        """The divergence with the departing side, and its cause."""
        trials = [trial for side in ("a", "b") if (trial := self._trial(side))]
        departing = [trial for trial in trials if trial.error > self.limit]
        for trial in sorted(departing, key=lambda t: t.error, reverse=True):
            found = self._cause(trial)
            where = self._where(plain, trial)
            if found.cause:
                return replace(where, **_told(found))
        if departing:
            trial = departing[0]
            found = self._cause(trial)
            where = self._where(plain, trial)
            name = self._who(trial.side)
            text = f"{name} computes something else than the prototxt's layer, and none of the known causes gives its values"
            return replace(where, side=trial.side, replay=trial.error, explanation=text, tried=found.tried)
        if len(trials) == 2:
            text = (
                "each side's layer is right for the inputs that it had: they differ within the tolerance, and the layers up to here magnify that. "
                "Look at the blobs before, or widen the tolerance"
            )
            return replace(plain, replay=max(t.error for t in trials), explanation=text)
        return replace(plain, explanation="the values around this blob are not at hand on both sides, so its layer cannot be replayed")

    def _where(self, plain: Divergence, trial: Trial) -> Divergence:
        """A side may show blobs that the other does not: then its first wrong one is the place."""
        step = next(step for step in self.graph.steps if trial.part.target in step.tops)
        return replace(plain, blob=self.names[trial.part.target], layer=step.name, layer_type=step.type, place=step.place)

    # Values of a side -------------------------------------------------------------------------------------------------

    def _trial(self, side: str) -> Trial | None:
        runner = self.pair.a if side == "a" else self.pair.b
        part = segment(self.graph, self.target, self.known)
        inner = [top for step in part.steps for top in step.tops if self.names[top] in runner.inner]
        names = [self.names[value] for value in (*part.sources, *inner, self.target)]
        values = self._fetched(runner, names)
        given = self._given(part, values, runner)
        seen = values.get(self.names[self.target])
        if seen is None or not part.steps or given is None:
            return None
        return self._narrowed(Trial(side, runner, part, given, seen, self._error(part, given, seen)), values)

    def _narrowed(self, trial: Trial, values: Mapping[str, Tensor]) -> Trial:
        """The same with the first blob of the segment that this side shows and that the prototxt's layers do not give."""
        if trial.error <= self.limit:
            return trial
        right = self.replay.values(trial.part, trial.given)
        shown = dict(trial.given)
        for step in trial.part.steps:
            for top in step.tops:
                if self.names[top] not in values:
                    continue
                seen = values[self.names[top]]
                if apart(seen, right[top]) > self.limit:
                    part = segment(self.graph, top, set(shown))
                    given = {value: shown[value] for value in part.sources}
                    error = self._error(part, given, seen)
                    return Trial(trial.side, trial.runner, part, given, seen, error) if error > self.limit else trial
                shown[top] = seen
        return trial

    def _fetched(self, runner: Runner, names: list[str]) -> dict[str, Tensor]:
        wanted = [name for name in dict.fromkeys(names) if name in runner.inner]
        stream = as_far_as_it_goes(runner, self.pair.feed, wanted, [])
        return {name: _tensor(value) for name, value in stream if not isinstance(value, Sampled)}

    def _given(self, part: Segment, values: Mapping[str, Tensor], runner: Runner) -> dict[Value, Tensor] | None:
        given = {}
        for value in part.sources:
            name = self.names[value]
            if name in values:
                given[value] = values[name]
            elif value.version == 0 and value.blob in self.pair.feed:
                given[value] = _tensor(self.pair.feed[value.blob])
            else:
                return None
        return given

    def _error(self, part: Segment, given: Mapping[Value, Tensor], seen: Tensor) -> float:
        try:
            return apart(self.replay.target(part, given), seen)
        except (RuntimeError, IndexError, ValueError):
            return float("inf")

    # Causes -----------------------------------------------------------------------------------------------------------

    def _cause(self, trial: Trial) -> Divergence:
        """The change that leaves least, if it leaves little; all that were tried, the nearest first."""
        best = Divergence("", "", "", 0.0, side=trial.side, replay=trial.error)
        tried: dict[str, float] = {}
        allowed = min(self.limit, SHARE * trial.error)
        for cause, explanation, fix, left, limit in self._attempts(trial):
            tried[cause] = min(left, tried.get(cause, float("inf")))
            if left <= (allowed if limit is None else limit) and (best.left is None or left < best.left * 0.5):
                best = replace(best, cause=cause, explanation=f"{self._who(trial.side)} {explanation}", fix=fix, left=left)
        near = sorted(tried.items(), key=lambda item: item[1])[:TOLD]
        return replace(best, tried=tuple(near))

    def _attempts(self, trial: Trial) -> Iterator[tuple[str, str, str, float, float | None]]:
        """(cause, explanation, fix, what it leaves, how much it may leave if not as usual)."""
        for h in hypotheses(trial.part, self.replay):
            try:
                left = apart(self.replay.target(trial.part, trial.given, {h.key: h.run}), trial.seen)
            except (RuntimeError, IndexError, ValueError):  # the change does not fit this layer
                continue
            yield h.cause, h.explanation, h.fix, left, None
        yield from self._dropout(trial)
        yield from coarse_formats(trial, self.replay)
        yield from input_hypotheses(trial, self.replay, self.graph)

    def _dropout(self, trial: Trial) -> Iterator[tuple[str, str, str, float, float | None]]:
        """Zeros and 1 / (1 - p) times the rest; or, where layers lie behind, values that change from run to run."""
        drops = [step for step in trial.part.steps if step.type == "Dropout"]
        if not drops:
            return
        step = drops[-1]
        told = (
            "dropout left on",
            f"still drops values in layer {step.name!r}",
            "put the module into eval mode (module.eval()), or convert the TEST phase",
        )
        if step is trial.part.steps[-1]:
            right = self.replay.target(trial.part, trial.given)
            ratio = float(step.recipe.args.get("p", 0.5))
            if right.shape == trial.seen.shape:
                zero = (trial.seen == 0) & (right != 0)
                if zero.any():
                    scaled = right / (1 - ratio) if ratio < 1 else right
                    yield (*told, apart(torch.where(trial.seen == 0, torch.zeros(()), scaled), trial.seen), None)
            return
        if trial.runner.recorded:
            return
        again = self._fetched(trial.runner, [self.names[trial.part.target]]).get(self.names[trial.part.target])
        if again is not None and apart(again, trial.seen) > self.limit:
            yield (*told, 0.0, None)

    def _who(self, side: str) -> str:
        runner = self.pair.a if side == "a" else self.pair.b
        return f"{side.upper()} ({runner.name})"


def _told(found: Divergence) -> dict[str, Any]:
    return {name: getattr(found, name) for name in ("side", "replay", "cause", "explanation", "fix", "left", "tried")}


def _tensor(value: Array) -> Tensor:
    return torch.from_numpy(np.array(value, np.float32))
