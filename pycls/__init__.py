"""Classification in PyTorch: heads, losses, labels, samplers, metrics, solver, trainer.

solver = pycls.Solver("solver.prototxt", weights=None, restore=None)
model = pycls.attach_heads(net, at="pool5", tasks=[pycls.Task("gender", "binary"), ...])
total, parts = pycls.multi_task_loss(model(x), targets, masks, model.tasks)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .heads import Branch, MultiTaskModel, attach_heads, export_onnx
    from .idioms import model_of, tasks_of
    from .losses.multi_task import multi_task_loss
    from .solver import Solver
    from .tasks import Task

__all__ = ["Branch", "MultiTaskModel", "Solver", "Task", "attach_heads", "export_onnx", "model_of", "multi_task_loss", "tasks_of"]

_HOMES = {
    "Branch": "heads",
    "MultiTaskModel": "heads",
    "Solver": "solver",
    "Task": "tasks",
    "attach_heads": "heads",
    "export_onnx": "heads",
    "model_of": "idioms",
    "multi_task_loss": "losses.multi_task",
    "tasks_of": "idioms",
}


def __getattr__(name: str) -> Any:  # torch is imported when something needs it, not before
    if name not in _HOMES:
        raise AttributeError(f"module 'pycls' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"pycls.{_HOMES[name]}"), name)
