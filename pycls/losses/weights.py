"""Weights of classes and labels from their counts."""

from __future__ import annotations

import math
import statistics
import warnings
from collections.abc import Sequence

from prototxt.errors import TaskError

from ..tasks import one_of

SCHEMES = ("inverse", "sqrt", "effective", "median")


def class_weights(counts: Sequence[float], scheme: str = "inverse", *, beta: float = 0.999) -> list[float]:
    """One weight a class, for the option `weight` of a loss or `alpha` of the focal one.

    inverse     N / (C n)                          scikit-learn's "balanced"
    sqrt        1 / sqrt(n), scaled to sum to C
    effective   (1 - beta) / (1 - beta^n), scaled to sum to C. Cui et al., Class-Balanced Loss, 2019; beta 0 weighs nothing
    median      median of the counts / n           Eigen & Fergus, 2015

    N and C are of the classes that are there. A class without samples gets 0, and a warning.
    """
    one_of(scheme, SCHEMES, "a scheme of class weights")
    there = [float(n) for n in counts if n > 0]
    if not there:
        raise TaskError(f"no class has a sample in the counts {list(counts)}; weights need some")
    if len(there) < len(counts):
        absent = [i for i, n in enumerate(counts) if not n > 0]
        warnings.warn(f"classes {absent} have no sample; their weight is 0", stacklevel=2)
    if scheme == "effective" and not 0 <= beta < 1:
        raise TaskError(f"beta is {beta}; the effective number needs 0 <= beta < 1")
    raw = [_raw(float(n), there, scheme, beta) if n > 0 else 0.0 for n in counts]
    return raw if scheme in ("inverse", "median") else [value * len(there) / sum(raw) for value in raw]


def _raw(n: float, there: list[float], scheme: str, beta: float) -> float:
    if scheme == "inverse":
        return sum(there) / (len(there) * n)
    if scheme == "sqrt":
        return n**-0.5
    if scheme == "median":
        return statistics.median(there) / n
    return 1.0 if beta == 0 else math.expm1(math.log(beta)) / math.expm1(n * math.log(beta))  # 1 - beta^n, also for beta near 1


def label_weights(positives: Sequence[float], totals: Sequence[float]) -> dict[str, list[float]]:
    """Options for `bce` from the positives and the annotated of each label: exp(1 - r) of a positive, exp(r) of a negative.

    r is the rate of positives. Li, Chen & Huang, Multi-attribute Learning for Pedestrian Attribute Recognition (DeepMAR), 2015.
    """
    rates = [p / t if t > 0 else 0.5 for p, t in zip(positives, totals, strict=True)]
    return {"weight": [math.exp(r) for r in rates], "pos_weight": [math.exp(1 - 2 * r) for r in rates]}
