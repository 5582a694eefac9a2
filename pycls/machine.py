"""Where and how the arithmetic of training runs."""

from __future__ import annotations

import os
from dataclasses import dataclass

from prototxt import SolverError

PRECISIONS = ("bf16", "fp16")


@dataclass(frozen=True, slots=True)
class Machine:
    """None of it changes what is computed, up to rounding; `amp` rounds more.

    device          cpu, cuda, cuda:1
    amp             bf16 or fp16 (with a scaled loss) for the layers that torch.autocast picks; weights and updates stay float32
    compile         torch.compile the train net
    channels_last   images and filters with the channels innermost, which is faster on most machines
    workers         processes that read the data layers; 0 is a thread of this one
    deterministic   the same bits in every run on one device
    """

    device: str = "cpu"
    amp: str | None = None
    compile: bool = False
    channels_last: bool = True
    workers: int = 0
    deterministic: bool = False

    def __post_init__(self) -> None:
        if self.amp is not None and self.amp not in PRECISIONS:
            raise SolverError(f"--amp {self.amp}: there are {' and '.join(PRECISIONS)}")


def prepare(machine: Machine) -> Machine:
    """Set the process up for a machine: torch's own switches, which are global. Call it once, before anything runs.

    float32 is float32: convolutions and products use no TF32, unless mixed precision was asked for.
    """
    import torch

    torch.backends.cudnn.benchmark = not machine.deterministic
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = machine.amp is not None
    if machine.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
        torch.use_deterministic_algorithms(True)
    return machine
