"""Training and evaluation as modes of modules, which a caller has set part by part and gets back as they were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def modes_kept(module: nn.Module) -> Iterator[None]:
    """Each part back in its own mode after the block."""
    modes = {part: part.training for part in module.modules()}
    try:
        yield
    finally:
        for part, training in modes.items():
            part.training = training


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode for the block, each part back in its own mode afterwards."""
    with modes_kept(module):
        module.eval()
        yield
