"""Number formats as a cause: half precision, half-precision weights, TF32."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .replay import Replay, Run, apart

if TYPE_CHECKING:
    from .divergence import Trial

HALVES = {"float16": torch.float16, "bfloat16": torch.bfloat16}
DISTINCT = 16  # different values that must all be of a half format before it is named
Attempt = tuple[str, str, str, float, float | None]


def coarse_formats(trial: Trial, replay: Replay) -> Iterator[Attempt]:
    """Attempts (cause, explanation, fix, what it leaves, how much it may leave)."""
    yield from _values(trial, replay)
    products = [step for step in trial.part.steps if isinstance(replay.module(step), (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d))]
    if not products:
        return
    for name, kind in HALVES.items():
        rounding = {step.key: _rounded(replay.module(step), partial(_half, kind), inputs=False) for step in products}
        yield (
            "half precision",
            f"holds the weights in {name}",
            "take the weights over in float32",
            _left(trial, replay, rounding),
            None,
        )
    for bits in (_tf32_nearest, _tf32_cut):
        rounding = {step.key: _rounded(replay.module(step), bits, inputs=True) for step in products}
        yield (
            "TF32",
            "multiplies in TF32, which keeps 10 bits of each factor",
            "torch.backends.cuda.matmul.allow_tf32 = False and torch.backends.cudnn.allow_tf32 = False; for other engines NVIDIA_TF32_OVERRIDE=0",
            _left(trial, replay, rounding),
            None,
        )


def _values(trial: Trial, replay: Replay) -> Iterator[Attempt]:
    """All values of the blob are of a half format, the replay's are not, and the two are as far apart as such rounding goes."""
    if len(torch.unique(trial.seen[trial.seen != 0][:4096])) < DISTINCT:
        return
    right = replay.target(trial.part, trial.given)
    for name, kind in HALVES.items():
        if torch.equal(trial.seen.to(kind).float(), trial.seen) and not torch.equal(right.to(kind).float(), right):
            reach = 32 * torch.finfo(kind).eps
            yield (
                "half precision",
                f"computes in {name}: every value of the blob is one",
                "run it in float32, or compare with the tolerance of that format",
                apart(right, trial.seen),
                reach,
            )


def _half(kind: torch.dtype, t: Tensor) -> Tensor:
    return t.to(kind).float()


def _rounded(module: Any, to: Callable[[Tensor], Tensor], *, inputs: bool) -> Run:
    weight, bias = to(module.weight.detach()), module.bias.detach() if module.bias is not None else None

    def run(x: Sequence[Tensor]) -> Tensor:
        given = to(x[0]) if inputs else x[0]
        if isinstance(module, nn.Linear):
            return F.linear(given if given.dim() == 2 else given.flatten(getattr(module, "axis", 1)), weight, bias)
        return module._conv_forward(given, weight, bias)

    return run


def _left(trial: Trial, replay: Replay, changed: dict[str, Run]) -> float:
    try:
        return apart(replay.target(trial.part, trial.given, changed), trial.seen)
    except (RuntimeError, IndexError, ValueError):
        return float("inf")


def _tf32_nearest(t: Tensor) -> Tensor:
    """Rounded to 10 bits behind the point."""
    bits = t.contiguous().view(torch.int32)
    return ((bits + 0x0FFF + ((bits >> 13) & 1)) & ~0x1FFF).view(torch.float32)


def _tf32_cut(t: Tensor) -> Tensor:
    """Cut to 10 bits behind the point."""
    return (t.contiguous().view(torch.int32) & ~0x1FFF).view(torch.float32)
