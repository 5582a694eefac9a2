"""Samplers: frequencies, resumption, and processes that share one draw."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import chisquare

from prototxt.errors import TaskError
from pycls.samplers import DRAWS, drawn_counts, make_sampler
from pycls.samplers.repeat_factor import repeat_factors

COUNTS = [60, 25, 7]
CLASSES = np.random.default_rng(0).permutation(np.repeat([0, 1, 2, -1], [*COUNTS, 8]))
OPTIONS: dict[str, dict[str, Any]] = {"progressive": {"epochs": 5}, "m_per_class": {"m": 3, "batch_size": 6}}


def sampler(name: str, **kwargs: Any) -> Any:
    return make_sampler(name, CLASSES, **{"seed": 1, **OPTIONS.get(name, {}), **kwargs})


@pytest.mark.parametrize("name", DRAWS)
def test_processes_share_one_draw(name: str) -> None:
    whole = sampler(name)
    parts = [sampler(name, rank=rank, world=3) for rank in range(3)]
    for epoch in (0, 4):
        drawn = []
        for s in (whole, *parts):
            s.set_epoch(epoch)
            drawn.append(list(s))
            assert len(drawn[-1]) == len(s)
            assert list(s) == drawn[-1]
        assert len({len(d) for d in drawn[1:]}) == 1
        step = parts[0].chunk
        chunks = [d[i : i + step] for i in range(0, len(drawn[1]), step) for d in drawn[1:]]
        joined = [i for chunk in chunks for i in chunk]
        assert joined == whole.indices().tolist()[: len(joined)]
        assert len(whole.indices()) - len(joined) < 3 * step
    before = drawn[0]
    whole.set_epoch(3)
    assert list(whole) != before


SHARES: dict[str, tuple[dict[str, Any], list[float]]] = {
    "class_balanced": ({}, [1 / 3] * 3),
    "sqrt": ({}, [n**0.5 for n in COUNTS]),
    "progressive": ({"epochs": 1}, COUNTS),
}


@pytest.mark.parametrize("name", SHARES)
def test_frequencies(name: str) -> None:
    options, shares = SHARES[name]
    made = drawn_counts(sampler(name, size=9000, **options), CLASSES)
    expected = np.array(shares) / np.sum(shares) * made.sum()
    assert chisquare(made, expected).pvalue > 1e-3


def test_progressive_ends_balanced() -> None:
    s = sampler("progressive", size=9000)
    s.set_epoch(4)
    assert chisquare(drawn_counts(s, CLASSES)).pvalue > 1e-3
    s.set_epoch(2)
    half = [(n / 92 + 1 / 3) / 2 for n in COUNTS]
    made = drawn_counts(s, CLASSES)
    assert chisquare(made, np.array(half) * made.sum()).pvalue > 1e-3


def test_draws_without_chance() -> None:
    labelled = np.flatnonzero(CLASSES >= 0)
    assert sorted(sampler("instance").indices()) == list(range(100))
    assert drawn_counts(sampler("under"), CLASSES).tolist() == [7, 7, 7]
    over = sampler("over").indices()
    assert drawn_counts(sampler("over"), CLASSES).tolist() == [60, 60, 60]
    assert set(over) == set(labelled)
    aware = sampler("class_aware").indices()
    assert set(np.bincount(CLASSES[aware])) <= {30, 31}
    assert all(len(set(CLASSES[aware[i : i + 3]])) == 3 for i in range(0, 90, 3))
    for c, n in enumerate(COUNTS):
        seen = aware[CLASSES[aware] == c]
        assert len(set(seen[: min(n, len(seen))])) == min(n, len(seen))
    batches = sampler("m_per_class").indices().reshape(-1, 6)
    assert all(sorted(np.bincount(CLASSES[b], minlength=3)) == [0, 3, 3] for b in batches)


def test_repeat_factors() -> None:
    labels = np.array([[1, 0, np.nan], [1, 0, 0], [1, 1, 0], [1, 0, 0]] * 25)
    assert repeat_factors(labels, 0.64).tolist() == pytest.approx([1, 1, 1.6, 1] * 25)
    s = make_sampler("repeat_factor", labels, threshold=0.64)
    drawn = [len(s.indices()) for epoch in range(40) if s.set_epoch(epoch) is None]
    assert np.mean(drawn) == pytest.approx(115, abs=1.5)
    assert drawn_counts(s, labels)[1] > 25


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: sampler("squrt"), "did you mean 'sqrt'"),
        (lambda: sampler("m_per_class", m=4).indices(), "need 1.5 classes"),
        (lambda: sampler("m_per_class", m=0).indices(), "both are at least 1"),
        (lambda: sampler("m_per_class", n=4), "the sampler 'm_per_class': the option 'n' is not known"),
        (lambda: make_sampler("m_per_class", CLASSES), "needs the option 'batch_size'"),
        (lambda: make_sampler("repeat_factor", CLASSES, treshold=0.5), "did you mean 'threshold'"),
        (lambda: make_sampler("repeat_factor", CLASSES, threshold="1e-3"), "takes a number, not '1e-3'; YAML reads 0.001 as one"),
        (lambda: sampler("under", m=4), "takes no options, and 'm' is given"),
        (lambda: sampler("instance", rank=2, world=2), "ranks run from 0 to 1"),
        (lambda: make_sampler("sqrt", []), "the list is empty"),
        (lambda: make_sampler("over", np.full(5, -1)).indices(), "no sample has a label"),
        (lambda: make_sampler("over", np.ones((5, 2))).indices(), "repeat_factor takes several"),
        (lambda: list(make_sampler("instance", np.zeros(2), world=3)), "does not fill a batch of 1 on each of 3"),
        (lambda: sampler("progressive", epochs=0).indices(), "it needs one at least"),
        (lambda: make_sampler("repeat_factor", np.ones((5, 2)), threshold=0).indices(), "a share of the samples above 0"),
    ],
)
def test_what_it_refuses(make: Any, match: str) -> None:
    with pytest.raises(TaskError, match=match):
        make()
