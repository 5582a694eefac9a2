"""Classification in PyTorch: heads, losses, labels, samplers, metrics, solver, trainer.

solver = pycls.Solver("solver.prototxt", weights=None, restore=None)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .solver import Solver

__all__ = ["Solver"]


def __getattr__(name: str) -> Any:  # torch is imported when something needs it, not before
    if name != "Solver":
        raise AttributeError(f"module 'pycls' has no attribute {name!r}")
    from importlib import import_module

    return import_module("pycls.solver").Solver
