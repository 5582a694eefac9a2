"""A task: what a head predicts, which loss trains it, what a missing label means, how its scores are read. One frozen value.

kind         logits                         target of a batch        loss by default
binary       [N, 1]                         float [N], 0 or 1        bce
multiclass   [N, C]                         int64 [N]                ce
multilabel   [N, K]                         float [N, K], 0 or 1     bce
age          [N, bins] or [N, bins - 1]     float [N], years         expectation

A mask beside each target, of the target's shape, says which labels are there; what stands in the target where it is False never
counts, whatever it is. No torch here: a task is read from a label file or a bundle before anything heavy is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import asdict, dataclass, field, fields
from difflib import get_close_matches
from inspect import signature
from math import isfinite
from typing import TYPE_CHECKING, Any

from prototxt.errors import TaskError

if TYPE_CHECKING:
    from torch import Tensor

# By kind: the losses by name, each with its home in pycls/losses; the first is the default.
LOSSES: dict[str, dict[str, str]] = {
    "binary": {"bce": "bce.bce", "focal": "focal.sigmoid_focal", "asymmetric": "asymmetric.asymmetric"},
    "multiclass": {
        "ce": "cross_entropy.cross_entropy",
        "nll": "cross_entropy.nll",
        "focal": "focal.softmax_focal",
        "ldam": "ldam.ldam",
        "logit_adjusted": "logit_adjustment.logit_adjusted",
        "seesaw": "seesaw.seesaw",
    },
    "multilabel": {
        "bce": "bce.bce",
        "soft_margin": "multilabel_margin.soft_margin",
        "margin": "multilabel_margin.margin",
        "focal": "focal.sigmoid_focal",
        "asymmetric": "asymmetric.asymmetric",
    },
    "age": {"expectation": "age.age_expectation", "bins": "age.age_bins", "ordinal": "age.age_ordinal"},
}
NORMALIZATIONS = ("valid", "full", "batch_size", "none", "torch")
NA_MEANINGS = ("ignore", "class", "negative")


@dataclass(frozen=True, slots=True)
class Task:
    """One task. TaskError if its parts do not fit.

    `classes` are the classes or labels by name; an int stands for that many, "0", "1", ... A binary task has none, or its two.
    `na` is what a missing label means: "ignore" (not annotated), "class" ("cannot tell" is a class of its own, behind the others;
    multiclass), "negative" (what is not marked is not there; binary and multilabel). `normalization` is what the loss is divided
    by, in Caffe's words, or "torch". `options` go to the loss: gamma, weight, counts, label_smoothing, ...
    Age runs from `low` to `high` in bins of `step` years; the last bin means "`high` or more".
    """

    name: str
    kind: str
    classes: tuple[str, ...] = ()
    loss: str = ""
    weight: float = 1.0
    na: str = "ignore"
    normalization: str = "valid"
    options: Mapping[str, Any] = field(default_factory=dict)
    low: int = 0
    high: int = 100
    step: int = 1

    def __post_init__(self) -> None:
        if not self.name or not isinstance(self.name, str):
            raise TaskError("a task needs a name")
        one_of(self.kind, LOSSES, f"task {self.name!r}: kind")
        classes = tuple(str(i) for i in range(self.classes)) if isinstance(self.classes, int) else tuple(self.classes)
        object.__setattr__(self, "classes", classes)
        object.__setattr__(self, "loss", self.loss or next(iter(LOSSES[self.kind])))
        object.__setattr__(self, "options", dict(self.options))
        one_of(self.loss, LOSSES[self.kind], f"task {self.name!r}: loss of a {self.kind} task")
        one_of(self.normalization, NORMALIZATIONS, f"task {self.name!r}: normalization")
        one_of(self.na, NA_MEANINGS, f"task {self.name!r}: na")
        problem = self._problem()
        if problem:
            raise TaskError(f"task {self.name!r}: {problem}")

    def _problem(self) -> str:
        n = len(self.classes)
        if len(set(self.classes)) != n:
            return f"a class stands twice in {list(self.classes)}"
        if self.kind == "binary" and n not in (0, 2):
            return f"a binary task has two classes, negative first, or none by name; not {n}"
        if self.kind in ("multiclass", "multilabel") and n == 0:
            return f"a {self.kind} task needs its classes"
        if self.kind == "age" and n:
            return "an age task has no classes; give low, high and step"
        if self.kind == "age" and not (self.step > 0 and self.high >= self.low + self.step):
            return f"ages from {self.low} to {self.high} in steps of {self.step} make fewer than two bins"
        if self.na == "class" and self.kind != "multiclass":
            return f"na: class needs a multiclass task, and this one is {self.kind}; make it multiclass with the classes it has"
        if self.na == "class" and "NA" in self.classes:
            return 'na: class adds the class "NA", which is there already; use na: ignore'
        if self.na == "negative" and self.kind not in ("binary", "multilabel"):
            return f"na: negative is for binary and multilabel tasks, not for {self.kind}"
        if not self.weight >= 0:
            return f"its weight is {self.weight}; a weight is not negative"
        return ""

    @property
    def names(self) -> tuple[str, ...]:
        """The classes or labels that the head tells apart: "NA" last where that is a class; of a binary task two; of age its bins."""
        if self.kind == "age":
            starts = range(self.low, self.low + self.step * self.bins, self.step)
            spans = [str(a) if self.step == 1 else f"{a}..{a + self.step - 1}" for a in starts]
            return (*spans[:-1], f"{starts[-1]}+")
        if self.kind == "binary":
            return self.classes or ("no", "yes")
        return (*self.classes, "NA") if self.na == "class" else self.classes

    @property
    def bins(self) -> int:
        """Number of age bins; 0 of other kinds."""
        return (self.high - self.low) // self.step + 1 if self.kind == "age" else 0

    @property
    def outputs(self) -> int:
        """Number of logits of the head."""
        if self.kind == "binary":
            return 1
        if self.kind == "age":
            return self.bins - 1 if self.loss == "ordinal" else self.bins
        return len(self.names)

    @property
    def activation(self) -> str:
        """What makes probabilities of the head's outputs: "sigmoid", "softmax", or "exp" behind a LogSoftmax (loss nll)."""
        if self.kind in ("binary", "multilabel") or self.loss == "ordinal":
            return "sigmoid"
        return "exp" if self.loss == "nll" else "softmax"

    def probabilities(self, logits: Tensor) -> Tensor:
        """Logits [N, outputs] -> probabilities of one shape: of the classes, of each label, of each bin; of an ordinal age P(age > k)."""
        if self.activation == "exp":
            return logits.exp()
        return logits.sigmoid() if self.activation == "sigmoid" else logits.softmax(1)

    def activate(self, logits: Tensor) -> Tensor:
        """What a reader wants: `probabilities`, or of an age task the years [N]."""
        return self.years(self.probabilities(logits)) if self.kind == "age" else self.probabilities(logits)

    def years(self, probabilities: Tensor) -> Tensor:
        """Probabilities of an age task -> years [N]: the likeliest bin's middle, the expectation, or the count of P(age > k)."""
        middle = self.low + (self.step - 1) / 2
        if self.loss == "ordinal":
            return middle + self.step * probabilities.sum(1)
        if self.loss == "bins":
            return middle + self.step * probabilities.argmax(1).to(probabilities.dtype)
        index = probabilities.new_tensor(range(self.bins))
        return middle + self.step * (probabilities * index).sum(1)

    def decide(self, logits: Tensor, threshold: float | Tensor = 0.5) -> Tensor:
        """Logits -> decisions: a class index int64 [N], 0 or 1 int64 [N] or [N, K], or years [N]. `threshold` is of the probability."""
        if self.kind == "age":
            return self.activate(logits)
        if self.kind == "multiclass":
            return logits.argmax(1)
        decided = (self.probabilities(logits) >= threshold).long()
        return decided.squeeze(1) if self.kind == "binary" else decided

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON and YAML."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Task:
        """The task of `to_dict`; TaskError names a key that it does not know."""
        known = [f.name for f in fields(cls)]
        for key in values:
            one_of(key, known, "a task's key")
        missing = [key for key in ("name", "kind") if key not in values]
        if missing:
            raise TaskError(f"a task needs {' and '.join(missing)}; given are {sorted(values)}")
        return cls(**values)


def one_of(value: Any, known: Any, what: str) -> None:
    """TaskError with the nearest spelling unless `value` is one of `known`."""
    if value in known:
        return
    near = get_close_matches(str(value), [str(k) for k in known], n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"one of {', '.join(map(str, known))}"
    raise TaskError(f"{what} {value!r} is not known; {hint}")


def check_options(function: Callable[..., Any], options: Mapping[str, Any], what: str, *, given: Container[str] = ()) -> None:
    """TaskError unless a function takes these options: its keywords but for those that are `given` by others, numbers where it wants numbers."""
    known = {p.name: p for p in signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY and p.name not in given}
    for name, value in options.items():
        if not known:
            raise TaskError(f"{what} takes no options, and {name!r} is given; leave it out")
        one_of(name, known, f"{what}: the option")
        kind = known[name].annotation
        if kind == "bool" and not isinstance(value, bool):
            raise TaskError(f"{what}: {name} takes true or false, not {value!r:.40}")
        if (kind == "int" and (not isinstance(value, int) or isinstance(value, bool))) or (kind == "float" and not _is_number(value)):
            raise TaskError(f"{what}: {name} takes a {'whole ' if kind == 'int' else ''}number, not {value!r:.40}{_written(value)}")
    lacking = [p.name for p in known.values() if p.default is p.empty and p.name not in options]
    if lacking:
        raise TaskError(f"{what} needs the option {lacking[0]!r}")


def check_numbers(value: Any, count: int, what: str, *, one: bool) -> None:
    """TaskError unless a value is a list of `count` numbers; with `one`, a single number will do."""
    listed = [value] if one and not isinstance(value, (list, tuple)) else value
    if not isinstance(listed, (list, tuple)) or not all(map(_is_number, listed)):
        raise TaskError(f"{what} takes {'a number, or ' if one else ''}a list of {count} numbers, not {value!r:.40}")
    if len(listed) != count and not (one and len(listed) == 1):
        raise TaskError(f"{what} has {len(listed)} numbers, and the task {count} {'output' if count == 1 else 'outputs'}: one for each")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value)


def _written(value: Any) -> str:
    """How YAML wants a number that it took for a word."""
    try:
        return f"; YAML reads {float(value)!r} as one" if isinstance(value, str) and isfinite(float(value)) else ""
    except ValueError:
        return ""


def check_tasks(tasks: Any) -> tuple[Task, ...]:
    """The tasks as a tuple; TaskError if there is none or two have one name."""
    tasks = tuple(tasks)
    names = [task.name for task in tasks]
    if not tasks or len(set(names)) != len(names):
        raise TaskError(f"the tasks {names} need names of their own" if tasks else "there is no task")
    return tasks
