"""A solver as everyone else reads it: upgraded, checked, its nets found and resolved. Frozen. TRAINING.md has each rule."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .errors import SolverError
from .files import find_file, inside
from .message import Message
from .net import Net, net_of
from .rules import State
from .text import parse, parse_text, read_text
from .upgrade import upgrade

TYPES = ("AdaDelta", "AdaGrad", "Adam", "Nesterov", "RMSProp", "SGD")
POLICIES = ("exp", "fixed", "inv", "multistep", "poly", "sigmoid", "step")
TRAIN_FIELDS = ("net", "net_param", "train_net", "train_net_param")


@dataclass(frozen=True, slots=True)
class SolverSettings:
    """Caffe's fields under their own names, and the nets: `train`, and `tests` in order with one `test_iter` each."""

    train: Net
    tests: tuple[Net, ...]
    test_iter: tuple[int, ...]
    test_interval: int
    test_initialization: bool
    type: str
    base_lr: float
    lr_policy: str
    gamma: float
    power: float
    stepsize: int
    stepvalue: tuple[int, ...]
    max_iter: int
    iter_size: int
    momentum: float
    momentum2: float
    delta: float
    rms_decay: float
    weight_decay: float
    regularization_type: str
    clip_gradients: float
    average_loss: int
    display: int
    snapshot: int
    snapshot_prefix: str
    snapshot_format: str
    snapshot_after_train: bool
    random_seed: int
    weights: tuple[Path, ...]


_PLAIN = (
    "test_interval", "test_initialization", "type", "base_lr", "lr_policy", "gamma", "power", "stepsize", "max_iter", "iter_size", "momentum",
    "momentum2", "delta", "rms_decay", "weight_decay", "regularization_type", "clip_gradients", "average_loss", "display", "snapshot",
    "snapshot_prefix", "snapshot_format", "snapshot_after_train", "random_seed",
)  # fmt: skip


def read_solver(path: str | Path) -> SolverSettings:
    """The solver in a prototxt. SolverError for whatever Caffe refuses, its nets' own errors for what is wrong in them."""
    path = Path(path)
    try:
        message = upgrade(parse(path, kind="solver"))
        _check(message)
        inside(Path(message.snapshot_prefix or "."))
        tests = _test_nets(message, path.parent)
        return SolverSettings(
            train=_train_net(message, path.parent),
            tests=tests,
            test_iter=tuple(message.test_iter),
            stepvalue=tuple(message.stepvalue),
            weights=tuple(find_file(name.strip(), path.parent) for listed in message.weights for name in listed.split(",")),
            **{name: getattr(message, name) for name in _PLAIN},
        )
    except SolverError as exc:
        raise SolverError(f"{path}: {exc}") from None


def _check(s: Message) -> None:
    """What Caffe checks, and the policies, which it would only miss at the first update."""
    if s.type not in TYPES:
        raise SolverError(f"type {s.type!r} is unknown; there are {', '.join(TYPES)}")
    if s.lr_policy not in POLICIES:
        raise SolverError(f"lr_policy {s.lr_policy!r} is unknown; there are {', '.join(POLICIES)}")
    if s.lr_policy == "step" and s.stepsize <= 0:
        raise SolverError("lr_policy 'step' needs a stepsize above 0")
    if s.lr_policy == "sigmoid" and s.gamma < 0:
        raise SolverError(f"lr_policy 'sigmoid' needs a gamma of at least 0, not {s.gamma:g}")
    if s.lr_policy == "poly" and s.max_iter <= 0:
        raise SolverError("lr_policy 'poly' needs a max_iter above 0")
    if s.type == "Adam" and not (0 <= s.momentum < 1 and 0 <= s.momentum2 < 1):
        raise SolverError(f"Adam with momentum {s.momentum:g} and momentum2 {s.momentum2:g}: each is at least 0 and below 1")
    if s.regularization_type not in ("L1", "L2"):
        raise SolverError(f"regularization_type {s.regularization_type!r} is unknown; there are L1 and L2")
    if s.type in ("AdaGrad", "RMSProp") and s.momentum != 0:
        raise SolverError(f"{s.type} has no momentum; remove it")
    if s.type == "RMSProp" and not 0 <= s.rms_decay < 1:
        raise SolverError(f"rms_decay {s.rms_decay:g}: at least 0 and below 1")
    if s.average_loss < 1 or s.iter_size < 1:
        raise SolverError("average_loss and iter_size must be at least 1")
    if s.snapshot and not Path(s.snapshot_prefix or ".").parent.is_dir():
        raise SolverError(f"snapshot_prefix {s.snapshot_prefix!r}: there is no folder {str(Path(s.snapshot_prefix).parent)!r}; make it first")


def _train_net(s: Message, folder: Path) -> Net:
    given = [name for name in TRAIN_FIELDS if s.has(name)]
    if len(given) != 1:
        what = "has no train net" if not given else f"has more than one train net: {', '.join(given)}"
        raise SolverError(f"{what}; write one of {', '.join(TRAIN_FIELDS)}")
    (name,) = given
    return _net(getattr(s, name), "TRAIN", s.train_state, folder)


def _test_nets(s: Message, folder: Path) -> tuple[Net, ...]:
    """First those of test_net_param, then of test_net, then the generic net for what is left of test_iter."""
    listed: list[Message | str] = [*s.test_net_param, *s.test_net]
    generic = s.net_param if s.has("net_param") else s.net if s.has("net") else None
    extra = len(s.test_iter) - len(listed)
    if extra < 0 or (extra > 0 and generic is None):
        raise SolverError(f"{len(s.test_iter)} test_iter for {len(listed)} test nets: one for each")
    listed += [generic] * extra if generic is not None else []
    if s.test_state and len(s.test_state) != len(listed):
        raise SolverError(f"{len(s.test_state)} test_state for {len(listed)} test nets: one for each, or none")
    if any(count < 0 for count in s.test_iter):
        raise SolverError(f"test_iter {min(s.test_iter)}: a test takes at least 0 batches")
    if listed and s.test_interval <= 0:
        raise SolverError("test_interval must be above 0 where there are test nets")
    states = s.test_state or [None] * len(listed)
    return tuple(_net(source, "TEST", state, folder) for source, state in zip(listed, states, strict=True))


def _net(source: Message | str, phase: str, state: Message | None, folder: Path) -> Net:
    """A net by its file, which is upgraded, or inline, which Caffe does not upgrade; in the phase, the net's own state and the solver's."""
    if isinstance(source, str):
        path = find_file(source, folder)
        text = read_text(path)
        message, place, home = parse_text(text, "net", path), str(path), path.parent
    else:
        text, message, place, home = "", source, "the net in the solver", folder
        if message.has("layers") or message.has("input"):
            raise SolverError("the net in the solver is of an older form, which Caffe does not upgrade there; put it into a file of its own")
    merged = State(phase)
    for part in (message.state, state):
        if part is not None:
            merged = State(part.phase if part.has("phase") else merged.phase, part.level if part.has("level") else merged.level,
                           (*merged.stages, *part.stage))  # fmt: skip
    return net_of(message, merged, source=place, text=text, folder=home)
