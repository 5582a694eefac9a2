"""NetState: which layers belong to a phase, a level and a set of stages. Conformance: nets/net-state@*, state-in-file@*."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import NetError
from .message import Message

PHASES = ("TRAIN", "TEST")


@dataclass(frozen=True, slots=True)
class State:
    """What the caller asks for; a `state` in the file adds its stages and nothing else."""

    phase: str = "TEST"
    level: int = 0
    stages: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.phase not in PHASES:
            raise NetError(f"phase is TRAIN or TEST, not {self.phase!r}")


def included(layer: Message, state: State) -> bool:
    """Whether the layer is part of the net in `state`: one include rule must hold, or no exclude rule may."""
    if layer.include and layer.exclude:
        raise NetError("has include and exclude rules; a layer may have one of the two")
    if layer.exclude:
        return not any(meets(rule, state) for rule in layer.exclude)
    return not layer.include or any(meets(rule, state) for rule in layer.include)


def meets(rule: Message, state: State) -> bool:
    """Whether `state` meets all that one rule names."""
    return (
        (not rule.has("phase") or rule.phase == state.phase)
        and (not rule.has("min_level") or state.level >= rule.min_level)
        and (not rule.has("max_level") or state.level <= rule.max_level)
        and all(stage in state.stages for stage in rule.stage)
        and not any(stage in state.stages for stage in rule.not_stage)
    )
