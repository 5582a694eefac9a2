"""Each of our own modules beside the obvious torch code for it, forward and backward, one thread: `python benchmarks/layers.py [PART OF A JOB ...]`.

PriorBox, DetectionOutput, DetectionEvaluate, MultiBoxLoss, Proposal, AnchorTargets, ProposalTargets, HardestRegions, RegionDetections,
MaskedDetections and Filter have no counterpart in torch or torchvision. Of classes that are one implementation, one stands for all.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from measure import medians, report
from peers import Row, all_rows
from torch import Tensor, nn

ROUND = 0.05  # seconds of passes that are timed together


class Layer(nn.Module):
    """A peer that is a function, as the layer of a net that it would be: a module, like ours and torch's."""

    def __init__(self, run: Callable[..., Any]) -> None:
        super().__init__()
        self.forward = run


def passed(run: Callable[..., Any], row: Row) -> None:
    """One pass, with gradients to the first input where it has any."""
    if not row.backward:
        run(*row.inputs)
        return
    first = row.inputs[0].detach().requires_grad_(True)
    made = run(first, *row.inputs[1:])
    made = made if isinstance(made, tuple) else (made,)
    torch.autograd.backward([m.sum() for m in made if m.requires_grad])


def repeated(run: Callable[..., Any], row: Row, times: int) -> None:
    """Several passes."""
    for _ in range(times):
        passed(run, row)


def same(row: Row) -> bool:
    """Whether both compute the same: a peer that does less is none. Of what chance decides, the mean and the spread."""
    made = [run(*row.inputs) for run in (row.ours, row.theirs)]
    left, right = (m if isinstance(m, tuple) else (m,) for m in made)
    pairs = zip(left, right, strict=True)
    if row.random:
        return all(a.shape == b.shape and torch.allclose(moments(a), moments(b), atol=0.02) for a, b in pairs)
    return all(a.shape == b.shape and torch.allclose(a, b, rtol=1e-3, atol=1e-3) for a, b in pairs)


def moments(t: Tensor) -> Tensor:
    """Its mean and its mean square."""
    return torch.stack((t.mean(), t.square().mean()))


def main(parts: list[str]) -> None:
    """Print the table."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    table = []
    for row in all_rows():
        if parts and not any(part in row.job for part in parts):
            continue
        if not same(row):
            sys.exit(f"{row.job}: {row.peer} computes something else")
        theirs = row.theirs if isinstance(row.theirs, nn.Module) else Layer(row.theirs)
        passed(theirs, row)
        start = time.perf_counter()
        passed(theirs, row)
        times = 1 + int(ROUND / (time.perf_counter() - start))  # a pass below a millisecond is noise
        t = medians({name: lambda r=run, n=times, row=row: repeated(r, row, n) for name, run in (("ours", row.ours), ("theirs", theirs))}, 15)
        ratio = t["theirs"] / t["ours"]
        goal = ">= 3x" if row.job.startswith("LRN 64") else "not slower"
        times_of = [f"{1e3 * t[name] / times:.2f} ms" for name in ("ours", "theirs")]
        table.append((row.job, f"{times_of[0]}, {row.peer} {times_of[1]}: **{ratio:.2f}x**", goal))
    report("Layers, forward and backward, one thread, CPU time", table)


if __name__ == "__main__":
    main(sys.argv[1:])
