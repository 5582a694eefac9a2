"""A net as everyone else reads it: upgraded, filtered by its state, frozen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .binary import as_filtered, is_binary, read_definition
from .errors import NetError
from .message import Message
from .rules import State, included
from .text import parse_text, read_text
from .upgrade import upgrade


@dataclass(frozen=True, slots=True)
class Param:
    """What a `param {}` says of one parameter blob. An empty name is not shared."""

    name: str = ""
    lr_mult: float = 1.0
    decay_mult: float = 1.0
    permissive: bool = False


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer. `spec` is its message: `spec.convolution_param.num_output`; `place` is where it stands, `net.prototxt:41`."""

    name: str
    type: str
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    spec: Message
    phase: str
    place: str
    folder: Path | None = None  # where relative paths inside the layer are tried when the working directory lacks them

    @property
    def params(self) -> tuple[Param, ...]:
        """Its `param {}`, which may be fewer than its blobs."""
        return tuple(Param(p.name, p.lr_mult, p.decay_mult, p.share_mode == "PERMISSIVE") for p in self.spec.param)

    def __str__(self) -> str:
        return f"{self.place}: layer {self.name!r} ({self.type})"


@dataclass(frozen=True, slots=True)
class Net:
    """The layers of one state of a net, in the order in which they run."""

    name: str
    layers: tuple[Layer, ...]
    state: State
    force_backward: bool


def read_net(path: str | Path, state: State | None = None) -> Net:
    """The net in a prototxt, for `state`; or the one that a .caffemodel carries, which its writer has filtered already."""
    if is_binary(path):
        return net_of(read_definition(path), state, source=str(path), folder=Path(path).parent, filtered=True)
    text = read_text(path)
    return net_of(parse_text(text, "net", path), state, source=str(path), text=text, folder=Path(path).parent)


def net_of(
    message: Message, state: State | None = None, *, source: str = "net", text: str = "", folder: Path | None = None, filtered: bool = False
) -> Net:
    """The net of a message, upgraded and filtered; `source` and `text` give the places in error messages."""
    try:
        message = upgrade(message)
    except NetError:
        raise
    except Exception as exc:
        raise type(exc)(f"{source}: {exc}") from exc
    if message.has("layers"):
        raise NetError(f"{source}: `layers` could not be upgraded")
    if filtered:
        message = as_filtered(message)
    state = state or State()
    state = State(state.phase, state.level, (*message.state.stage, *state.stages))
    lines = _lines(text, [layer.at for layer in message.layer])
    layers = []
    for spec, line in zip(message.layer, lines, strict=True):
        place = f"{source}:{line}" if line else source
        try:
            if included(spec, state):
                phase = spec.phase if spec.has("phase") else state.phase
                layers.append(Layer(spec.name, spec.type, tuple(spec.bottom), tuple(spec.top), spec, phase, place, folder))
        except NetError as exc:
            raise NetError(f"{place}: layer {spec.name!r} {exc}") from None
    return Net(message.name, tuple(layers), state, message.force_backward)


def _lines(text: str, offsets: list[int]) -> list[int]:
    """Line numbers of offsets; 0 for what has none. One walk over the text."""
    lines, at, line = [], 0, 1
    for offset in offsets:
        if offset <= 0 or not text:
            lines.append(0 if offset < 0 or not text else 1)
            continue
        if offset < at:
            at, line = 0, 1
        line += text.count("\n", at, offset)
        at = offset
        lines.append(line)
    return lines
