"""Caffe's learning rate policies: pure functions of the iteration. Conformance: solvers/lr_*.

A solver's numbers come as anything with base_lr, gamma, power, stepsize, stepvalue and max_iter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any


def fixed(iteration: int, s: Any) -> float:
    """base_lr."""
    return float(s.base_lr)


def step(iteration: int, s: Any) -> float:
    """base_lr * gamma ^ floor(iteration / stepsize)."""
    return float(s.base_lr * s.gamma ** (iteration // s.stepsize))


def exp(iteration: int, s: Any) -> float:
    """base_lr * gamma ^ iteration."""
    return float(s.base_lr * s.gamma**iteration)


def inv(iteration: int, s: Any) -> float:
    """base_lr * (1 + gamma * iteration) ^ -power."""
    return float(s.base_lr * (1 + s.gamma * iteration) ** -s.power)


def multistep(iteration: int, s: Any) -> float:
    """base_lr * gamma ^ (steps passed); at most one step an iteration (`lr_multistep_repeated`)."""
    return float(s.base_lr * s.gamma ** steps_passed(iteration, s.stepvalue))


def poly(iteration: int, s: Any) -> float:
    """base_lr * (1 - iteration / max_iter) ^ power."""
    return float(s.base_lr * (1 - iteration / s.max_iter) ** s.power)


def sigmoid(iteration: int, s: Any) -> float:
    """base_lr / (1 + exp(-gamma * (iteration - stepsize)))."""
    return float(s.base_lr / (1 + math.exp(-s.gamma * (iteration - s.stepsize))))


POLICIES: dict[str, Callable[[int, Any], float]] = {
    "exp": exp,
    "fixed": fixed,
    "inv": inv,
    "multistep": multistep,
    "poly": poly,
    "sigmoid": sigmoid,
    "step": step,
}


def steps_passed(iteration: int, stepvalue: Sequence[int]) -> int:
    """Caffe's current_step at an iteration of a run from 0: it moves by one at a time, when the iteration has reached the next value."""
    passed = last = 0
    for value in stepvalue:
        last = max(value, last + 1) if passed else value
        if iteration < last:
            break
        passed += 1
    return passed
