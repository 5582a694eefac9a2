"""What may have happened to the input in front of the first layer: channels exchanged, mean or scale lost.

Where the first layers are linear, what the side must have been fed, s x + o with an offset for each channel, is solved for. Elsewhere
the means and scales in common use are tried.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..graph import Graph, Value
from .replay import Replay, Segment, apart
from .results import Divergence
from .runners.base import Array

if TYPE_CHECKING:
    from .divergence import Trial

LINEAR = ("Convolution", "DepthwiseConvolution", "InnerProduct", "BatchNorm", "Scale", "Bias", "Flatten", "Reshape", "Dropout", "Split")
MEANS = ((104.0, 117.0, 123.0), (103.939, 116.779, 123.68), (104.00698793, 116.66876762, 122.67891434), (127.5,), (128.0,))
SCALES = (1 / 255, 1 / 256, 0.017, 1 / 127.5, 1 / 128)
EQUATIONS = 4096
Attempt = tuple[str, str, str, float, float | None]


def input_hypotheses(trial: Trial, replay: Replay, graph: Graph) -> Iterator[Attempt]:
    """Attempts on each image-like input that the segment starts from."""
    for value in trial.part.sources:
        if value.blob in graph.inputs and value.version == 0 and trial.given[value].dim() == 4:
            yield from _of_input(trial, replay, value)


def _of_input(trial: Trial, replay: Replay, value: Value) -> Iterator[Attempt]:
    x = trial.given[value]
    flipped = x.flip(1) if x.shape[1] == 3 else None
    if flipped is not None:
        yield _attempt(trial, replay, value, flipped, flip=True)
    fits = [fit for start in (x, flipped) if start is not None and (fit := _solved(trial, replay, value, start)) is not None]
    for start, scale, offset in fits:
        yield _attempt(trial, replay, value, scale * start + offset, flip=start is flipped, scale=scale, offset=offset)
    if fits:
        return
    for scale, offset in _usual(x.shape[1]):
        yield _attempt(trial, replay, value, scale * x + offset, scale=scale, offset=offset)
        if flipped is not None:
            yield _attempt(trial, replay, value, scale * flipped + offset, flip=True, scale=scale, offset=offset)


def _usual(channels: int) -> Iterator[tuple[float, Tensor]]:
    """Factors and offsets that a forgotten, or a doubled, mean or scale gives."""
    means = [torch.tensor(m if len(m) == channels else m * channels).view(1, -1, 1, 1) for m in MEANS if len(m) in (1, channels)]
    zero = torch.zeros(1, 1, 1, 1)
    for scale in (*SCALES, *(1 / s for s in SCALES)):
        yield scale, zero
    for mean in means:
        yield 1.0, mean
        yield 1.0, -mean
        for scale in SCALES:
            yield scale, -mean * scale
            yield 1 / scale, mean


def _attempt(
    trial: Trial, replay: Replay, value: Value, fed: Tensor, *, flip: bool = False, scale: float = 1.0, offset: Tensor | None = None
) -> Attempt:
    try:
        left = apart(replay.target(trial.part, {**trial.given, value: fed}), trial.seen)
    except (RuntimeError, IndexError, ValueError):
        left = float("inf")
    return (*described(value.blob, flip, scale, offset, float(trial.given[value].abs().max())), left, None)


def described(blob: str, flip: bool, scale: float, offset: Tensor | None, peak: float) -> tuple[str, str, str]:
    """(cause, explanation, fix) of an input that is s x + o, with its channels exchanged or not."""
    shifts = [float(v) for v in offset.flatten()] if offset is not None else []
    shifted = any(abs(v) > 1e-4 * max(peak * abs(scale), 1e-3) for v in shifts)
    scaled = abs(scale - 1) > 1e-4
    names = ["BGR order"] * flip + ["mean lost"] * shifted + ["scale lost"] * scaled
    if shifted and scaled:
        names[-2:] = ["mean and scale lost"]
    formula = f"{scale:.6g} * {blob}" if scaled else blob
    formula += f" + ({', '.join(f'{v:.6g}' for v in shifts)})" if shifted else ""
    seen = f"sees {formula}" + (" with its channels in the other order" if flip else "")
    fixes = ["feed the channels in the order that the net was trained with: B G R for Caffe's own images"] * flip
    fixes += ["subtract the mean, in the net's channel order, exactly once"] * shifted
    fixes += ["multiply by the scale of transform_param exactly once, behind the mean: x = (pixel - mean) * scale"] * scaled
    return " and ".join(names) or "another input", seen, "; ".join(fixes)


def _solved(trial: Trial, replay: Replay, value: Value, start: Tensor) -> tuple[Tensor, float, Tensor] | None:
    """Least squares for s and the offsets, where every layer of the segment is linear but for a ReLU at its end; None elsewhere."""
    steps = trial.part.steps
    relu = steps[-1].type == "ReLU"
    inner = steps[:-1] if relu else steps
    if any(step.type not in LINEAR for step in inner) or not inner or trial.part.sources != (value,):
        return None
    part = Segment(inner, trial.part.sources, inner[-1].tops[0])
    zero = torch.zeros_like(start)
    channels = start.shape[1]
    rest = replay.target(part, {value: zero})
    if rest.shape != trial.seen.shape:
        return None
    columns = [replay.target(part, {value: start}) - rest]
    for channel in range(channels):
        one = zero.clone()
        one[:, channel] = 1
        columns.append(replay.target(part, {value: one}) - rest)
    rows = (trial.seen > 0).flatten().nonzero().flatten() if relu else torch.arange(trial.seen.numel())
    rows = rows[:: max(1, len(rows) // EQUATIONS)]
    if len(rows) < 10 * len(columns):
        return None
    matrix = torch.stack([c.flatten()[rows] for c in columns], 1).double().numpy()
    wanted = (trial.seen - rest).flatten()[rows].double().numpy()
    solution, *_ = np.linalg.lstsq(matrix, wanted, rcond=None)
    return start, float(solution[0]), torch.tensor(solution[1:], dtype=torch.float32).view(1, -1, 1, 1)


def recorded_inputs(plain: Divergence, a: Array, b: Array) -> Divergence:
    """Two recordings that were fed differently: A's input as a function of B's."""
    if a.shape != b.shape or a.ndim != 4:
        return replace(plain, side="a", explanation="the two recordings were made with different inputs")
    x, y = torch.from_numpy(np.array(b, np.float32)), torch.from_numpy(np.array(a, np.float32))
    for flip in (False, True) if x.shape[1] == 3 else (False,):
        start = x.flip(1) if flip else x
        matrix = torch.zeros(start.numel(), 1 + x.shape[1], dtype=torch.float64)
        matrix[:, 0] = start.flatten()
        for channel in range(x.shape[1]):
            one = torch.zeros_like(x)
            one[:, channel] = 1
            matrix[:, 1 + channel] = one.flatten()
        solution, *_ = np.linalg.lstsq(matrix.numpy(), y.double().flatten().numpy(), rcond=None)
        scale, offset = float(solution[0]), torch.tensor(solution[1:], dtype=torch.float32).view(1, -1, 1, 1)
        left = apart(scale * start + offset, y)
        if left <= 1e-4:
            cause, explanation, fix = described(plain.blob, flip, scale, offset, float(x.abs().max()))
            return replace(plain, side="a", cause=cause, explanation=f"A {explanation}", fix=fix, left=left)
    return replace(plain, side="a", explanation="the two recordings were made with different inputs")
