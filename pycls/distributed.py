"""Several processes that train one net, as torchrun starts them; a single process is a world of one, on the same path.

    torchrun --nproc-per-node 2 cli.py train solver.prototxt --device cuda      nccl
    torchrun --nproc-per-node 2 cli.py train solver.prototxt                    gloo

Each process has batches of the prototxt's batch_size, as each GPU of Caffe had, and takes turns in the records: n processes with 1/n of the
batch each see what one process sees. What is one process's alone (printing, tests, files) is rank 0's.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from prototxt import SolverError


@dataclass(frozen=True, slots=True)
class World:
    """Who this process is among how many. All calls but the properties are collective: every process makes them, in the same order."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0  # among those of this machine

    @property
    def main(self) -> bool:
        """Whether this is the process that prints and writes."""
        return self.rank == 0

    @property
    def share(self) -> tuple[int, int]:
        """(rank, of how many), as prototxt.data takes it."""
        return self.rank, self.size

    def sum_(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def mean_(self, tensors: Sequence[Tensor]) -> None:
        """Each tensor becomes its mean over all processes; one transfer for all of them."""
        if self.size > 1 and tensors:
            flat = self.sum_(torch.cat([t.detach().reshape(-1) for t in tensors])).div_(self.size)
            for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
                tensor.detach().copy_(part.view_as(tensor))

    def copy_(self, tensors: Sequence[Tensor]) -> None:
        """Every process gets the values of rank 0."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor.detach(), 0)

    def any(self, flag: bool, device: torch.device | str = "cpu") -> bool:
        """Whether any process says yes."""
        return flag if self.size == 1 else bool(self.sum_(torch.tensor(float(flag), device=device)).item())

    def barrier(self) -> None:
        """Wait for all."""
        if self.size > 1:
            dist.barrier()


def join(device: str = "cpu") -> tuple[World, str]:
    """Join the world that torchrun's environment describes; (world, this process's device: cuda becomes cuda:<local rank>).

    SolverError where torchrun started more processes than there are GPUs.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return World(), device
    world = World(int(os.environ["RANK"]), size, int(os.environ["LOCAL_RANK"]))
    if device.startswith("cuda"):
        count = torch.cuda.device_count()
        if device != "cuda" or world.local_rank >= count:
            raise SolverError(
                f"--device {device} for process {world.local_rank} of this machine, which has {count} GPUs; give --device cuda, one GPU each"
            )
        device = f"cuda:{world.local_rank}"
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    return world, device


def leave() -> None:
    """Leave the world, if one was joined."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
