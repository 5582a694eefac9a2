"""Caffe's learning rate policies: pure functions of the iteration, and torch's schedulers by them. Conformance: solvers/lr_*.

A solver's numbers come as anything with base_lr, gamma, power, stepsize, stepvalue and max_iter. As in C, what has no value is inf or nan.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


def fixed(iteration: int, s: Any) -> float:
    """base_lr."""
    return float(s.base_lr)


def step(iteration: int, s: Any) -> float:
    """base_lr * gamma ^ floor(iteration / stepsize)."""
    return float(s.base_lr * _power(s.gamma, iteration // s.stepsize))


def exp(iteration: int, s: Any) -> float:
    """base_lr * gamma ^ iteration."""
    return float(s.base_lr * _power(s.gamma, iteration))


def inv(iteration: int, s: Any) -> float:
    """base_lr * (1 + gamma * iteration) ^ -power."""
    return float(s.base_lr * _power(1 + s.gamma * iteration, -s.power))


def multistep(iteration: int, s: Any) -> float:
    """base_lr * gamma ^ (steps passed); at most one step an iteration (`lr_multistep_repeated`)."""
    return float(s.base_lr * _power(s.gamma, steps_passed(iteration, s.stepvalue)))


def poly(iteration: int, s: Any) -> float:
    """base_lr * (1 - iteration / max_iter) ^ power."""
    return float(s.base_lr * _power(1 - iteration / s.max_iter, s.power))


def sigmoid(iteration: int, s: Any) -> float:
    """base_lr / (1 + exp(-gamma * (iteration - stepsize)))."""
    with np.errstate(over="ignore"):
        return float(s.base_lr / (1 + np.exp(np.float64(-s.gamma * (iteration - s.stepsize)))))


def _power(base: float, exponent: float) -> float:
    """C's pow: beyond the largest number inf, of a negative number with a broken exponent nan."""
    with np.errstate(all="ignore"):
        return float(np.float64(base) ** np.float64(exponent))


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


@dataclass(frozen=True, slots=True)
class Numbers:
    """What the policies read, where no solver says it."""

    base_lr: float
    gamma: float = 0.0
    power: float = 0.0
    stepsize: int = 1
    stepvalue: tuple[int, ...] = ()
    max_iter: int = 1


class PolicyLR(LRScheduler):
    """A policy as a scheduler: `step()` once an iteration. Each group's base_lr is the rate that it had at first."""

    policy: Callable[[int, Any], float]

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1, **numbers: Any) -> None:
        self.numbers = numbers
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:  # type: ignore[override]
        """The rates of the current iteration."""
        return [type(self).policy(self.last_epoch, Numbers(float(base), **self.numbers)) for base in self.base_lrs]


class FixedLR(PolicyLR):
    """base_lr."""

    policy = staticmethod(fixed)


class StepLR(PolicyLR):
    """gamma, stepsize."""

    policy = staticmethod(step)


class ExpLR(PolicyLR):
    """gamma."""

    policy = staticmethod(exp)


class InvLR(PolicyLR):
    """gamma, power."""

    policy = staticmethod(inv)


class MultiStepLR(PolicyLR):
    """gamma, stepvalue."""

    policy = staticmethod(multistep)


class PolyLR(PolicyLR):
    """power, max_iter."""

    policy = staticmethod(poly)


class SigmoidLR(PolicyLR):
    """gamma, stepsize."""

    policy = staticmethod(sigmoid)


SCHEDULERS: dict[str, type[PolicyLR]] = {
    "exp": ExpLR,
    "fixed": FixedLR,
    "inv": InvLR,
    "multistep": MultiStepLR,
    "poly": PolyLR,
    "sigmoid": SigmoidLR,
    "step": StepLR,
}


# Not Caffe's ----------------------------------------------------------------------------------------------------------
#
# Of a config of `decant classify`: numbers come as anything that also has floor, peak and warmup.


def cosine(iteration: int, s: Any) -> float:
    """floor + (base_lr - floor) (1 + cos(pi t)) / 2, t = iteration / max_iter. Loshchilov & Hutter, SGDR, 2017, without restarts."""
    t = min(iteration / s.max_iter, 1.0)
    return float(s.floor + (s.base_lr - s.floor) * (1 + math.cos(math.pi * t)) / 2)


def one_cycle(iteration: int, s: Any) -> float:
    """From base_lr / 25 up to base_lr at the share `peak` of the run, then down to base_lr / 250000; both ways a cosine. As torch's OneCycleLR."""
    low, last = s.base_lr / 25, s.max_iter - 1
    top = s.peak * s.max_iter - 1
    up = iteration <= top
    a, b = (low, s.base_lr) if up else (s.base_lr, low / 1e4)
    t = iteration / top if up and top > 0 else min((iteration - top) / max(last - top, 1e-9), 1.0)
    return float(b + (a - b) * (1 + math.cos(math.pi * t)) / 2)


SCHEDULES: dict[str, Callable[[int, Any], float]] = {**POLICIES, "cosine": cosine, "one_cycle": one_cycle, "plateau": fixed}


def scheduled(policy: str, iteration: int, s: Any) -> float:
    """The rate of an iteration; the first `warmup` ones rise to what it then is in a line. Goyal et al., 2017."""
    if iteration < s.warmup:
        return SCHEDULES[policy](s.warmup, s) * (iteration + 1) / s.warmup
    return SCHEDULES[policy](iteration, s)


@dataclass
class Plateau:
    """A factor on the rate: times `gamma` after more than `patience` observations without one better by `min_delta`. As torch's ReduceLROnPlateau."""

    gamma: float
    patience: int
    min_delta: float
    rising: bool
    factor: float = 1.0
    best: float | None = None
    waited: int = 0

    def observe(self, value: float) -> None:
        """A new figure."""
        sign = 1 if self.rising else -1
        if self.best is None or sign * (value - self.best) > self.min_delta:
            self.best, self.waited = value, 0
            return
        self.waited += 1
        if self.waited > self.patience:
            self.factor, self.waited = self.factor * self.gamma, 0
