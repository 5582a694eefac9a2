"""A checkpoint: one safetensors file, whose tensors are the state and whose header holds the rest as JSON; written all or nothing, no pickle."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prototxt import TrainingError
from prototxt.files import atomic_path, check_file

KEY = "decant"


def write_state(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write tensors by name, and facts that JSON can hold. Tensors that share memory are written apart."""
    from safetensors.torch import save_file

    apart = {name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
    with atomic_path(path) as temporary:
        save_file(apart, temporary, metadata={KEY: json.dumps(facts)})


def read_state(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the facts of a checkpoint. TrainingError if the file is none of ours."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(check_file(path), framework="pt") as file:  # type: ignore[no-untyped-call]
            facts = json.loads((file.metadata() or {})[KEY])
            return {name: file.get_tensor(name) for name in file.keys()}, facts  # noqa: SIM118  it is no dict
    except (SafetensorError, ValueError, KeyError, OSError) as exc:
        raise TrainingError(f"{path}: is no checkpoint of a run: {exc}") from exc


def below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors under `prefix.`, without it."""
    return {name[len(prefix) + 1 :]: tensor for name, tensor in tensors.items() if name.startswith(f"{prefix}.")}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state as `<parameter's number>.<name>`; all of torch's rules hold tensors, but for counters, which become some."""
    state = optimizer.state_dict()["state"]
    return {f"{i}.{name}": torch.as_tensor(value) for i, held in state.items() for name, value in held.items() if value is not None}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put the state back; the groups, which the config makes, stay. ValueError if it is of parameters of other shapes."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        number, _, key = name.partition(".")
        if int(number) >= len(parameters) or (tensor.dim() and tensor.shape != parameters[int(number)].shape):
            raise ValueError(f"the optimizer's {name} is of another parameter")
        state.setdefault(int(number), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def random_tensors() -> dict[str, Tensor]:
    """torch's generators."""
    made = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        made["cuda"] = torch.cuda.get_rng_state()
    return made


def random_facts() -> dict[str, Any]:
    """Python's and NumPy's generators, for what a plug-in may draw."""
    name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    return {"python": random.getstate(), "numpy": [name, np.asarray(keys).tolist(), position, has_gauss, gauss]}


def restore_random(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """All generators as they were."""
    torch.set_rng_state(tensors["cpu"])
    if "cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["cuda"])
    version, words, gauss = facts["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, position, has_gauss, gauss = facts["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, gauss))
