"""Repeat-factor sampling: an image as often as its rarest label asks for. Gupta, Dollar & Girshick, LVIS, 2019."""

from __future__ import annotations

from typing import Any

import numpy as np

from prototxt.errors import TaskError

from .base import Array


def repeat_factor(labels: Array, generator: np.random.Generator, *, size: int | None, threshold: float = 0.1, **_: Any) -> Array:
    """r = max over the image's labels of max(1, sqrt(threshold / f)), f the share of images with the label.

    The fraction of r is rounded up by chance, anew each epoch. Labels 0/1 [N, K], nan missing, or classes [N]; a sample without a
    label comes once.
    """
    if not threshold > 0:
        raise TaskError(f"the threshold of repeat-factor sampling is a share of the samples above 0, not {threshold}")
    factors = repeat_factors(labels, threshold)
    whole = np.floor(factors)
    repeats = (whole + (generator.random(len(factors)) < factors - whole)).astype(np.int64)
    return generator.permutation(np.repeat(np.arange(len(factors)), repeats))[:size]


def repeat_factors(labels: Array, threshold: float) -> Array:
    """The factor of each sample [N]."""
    hot = np.nan_to_num(labels) > 0.5 if labels.ndim > 1 else labels[:, None] == np.arange(int(labels.max()) + 1)
    share = hot.mean(axis=0)
    by_label = np.maximum(1.0, np.sqrt(threshold / np.maximum(share, 1e-12)))
    return np.where(hot, by_label, 1.0).max(axis=1)
