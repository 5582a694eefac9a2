"""Metrics, calibration and thresholds against torchmetrics, scikit-learn, SciPy, and search by trying everything."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn import metrics as sk
from torch import Tensor
from torchmetrics.functional import classification as tm

from prototxt.errors import TaskError
from pycls import calibration, thresholds
from pycls.metrics import (
    Counts,
    auroc,
    average_precision,
    confusion,
    counts_of,
    cumulative_score,
    evaluate,
    instances,
    label_counts,
    shots,
    wilson,
)
from pycls.tasks import Task


@pytest.fixture
def labels(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Scores, labels and a mask [N, K]; nan where a label is missing; the last label has no positive."""
    n, k = 61, 5
    scores = torch.rand(n, k, generator=generator)
    target = (torch.rand(n, k, generator=generator) < 0.2 + 0.6 * scores).float()
    target[:, -1] = 0
    mask = torch.rand(n, k, generator=generator) < 0.7
    return scores, target.masked_fill(~mask, math.nan), mask


def test_the_three_macro_means() -> None:
    y, p = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 0, 1, 0])
    counts = counts_of(confusion(p, y, None, 3))
    assert counts.macro_f1("seen") == pytest.approx(sk.f1_score(y, p, average="macro"))
    assert [round(counts.macro_f1(c), 6) for c in ("seen", "all", "true")] == [0.733333, 0.488889, 0.733333]
    predicted_only = counts_of(confusion(torch.tensor([0, 2]), torch.tensor([0, 0]), None, 3))
    assert [predicted_only.macro_f1(c) for c in ("seen", "all", "true")] == pytest.approx([1 / 3, 2 / 9, 2 / 3])
    with pytest.raises(TaskError, match="did you mean 'seen'"):
        counts.macro_f1("sen")


def test_counts_are_torchmetrics(labels: tuple[Tensor, Tensor, Tensor], generator: torch.Generator) -> None:
    scores, target, mask = labels
    ignoring = torch.where(mask, target, -1).long()
    counts = label_counts(scores >= 0.5, target, mask)
    want = tm.multilabel_stat_scores(scores, ignoring, num_labels=5, average=None, ignore_index=-1)
    torch.testing.assert_close(torch.stack(counts, 1), want[:, :4][:, [0, 1, 3, 2]])
    torch.testing.assert_close(
        counts.f1().nan_to_num(0.0).float(), tm.multilabel_f1_score(scores, ignoring, num_labels=5, average=None, ignore_index=-1)
    )
    assert counts.macro_f1("all") == pytest.approx(float(tm.multilabel_f1_score(scores, ignoring, num_labels=5, ignore_index=-1)))
    assert counts.micro_f1() == pytest.approx(float(tm.multilabel_f1_score(scores, ignoring, num_labels=5, average="micro", ignore_index=-1)))
    halves = [label_counts(scores[s] >= 0.5, target[s], mask[s]) for s in (slice(0, 20), slice(20, None))]
    assert all(a.equal(b) for a, b in zip(halves[0].added(halves[1]), counts, strict=True))
    balanced = [sk.balanced_accuracy_score(target[mask[:, k], k], scores[mask[:, k], k] >= 0.5) for k in range(4)]
    assert Counts(*(c[:4] for c in counts)).mean_accuracy() == pytest.approx(np.mean(balanced))
    y, p = torch.randint(4, (53,), generator=generator), torch.randint(4, (53,), generator=generator)
    there = torch.rand(53, generator=generator) < 0.6
    assert confusion(p, y.masked_fill(~there, 255), there, 4).tolist() == sk.confusion_matrix(y[there], p[there]).tolist()


def test_masked_labels_count_for_nothing() -> None:
    """The example of the multi-label losses: F1 by label [1, 0, 1], the missing element neither right nor wrong."""
    scores, target = torch.tensor([[0.6, 0.3, 0.9], [0.4, 0.5, 0.9]]), torch.tensor([[1.0, 0, 1], [0, math.nan, 1]])
    assert label_counts(scores > 0.5, target, ~target.isnan()).f1().nan_to_num(0).tolist() == [1, 0, 1]


def test_ranking_metrics_leave_out_what_has_no_positive(labels: tuple[Tensor, Tensor, Tensor]) -> None:
    scores, target, mask = labels
    for ours, theirs in ((average_precision, sk.average_precision_score), (auroc, sk.roc_auc_score)):
        made = ours(scores, target, mask)
        assert made[-1].isnan()
        assert made[:4].tolist() == pytest.approx([theirs(target[mask[:, k], k], scores[mask[:, k], k]) for k in range(4)], rel=1e-5)


def test_agreement_by_sample(labels: tuple[Tensor, Tensor, Tensor]) -> None:
    scores, target, _ = labels
    decided, target = scores >= 0.4, target.nan_to_num(0)
    rows = (decided | (target > 0)).any(1)
    made = instances(decided, target)
    assert made.exact == pytest.approx(sk.accuracy_score(target, decided))
    assert made.hamming == pytest.approx(sk.hamming_loss(target, decided))
    assert made.accuracy == pytest.approx(sk.jaccard_score(target[rows], decided[rows], average="samples"))
    assert made.recall == pytest.approx(sk.recall_score(target, decided, average="samples", zero_division=np.nan))
    half = instances(torch.tensor([[1, 1, 0]]), torch.tensor([[1.0, math.nan, 1.0]]), torch.tensor([[True, False, True]]))
    assert half[:3] == pytest.approx((0.5, 1.0, 0.5))


def test_wilsons_interval_is_scipys() -> None:
    from scipy.stats import binomtest

    for hits, n in ((3, 3), (0, 7), (41, 63)):
        want = binomtest(hits, n).proportion_ci(method="wilson")
        assert wilson(hits, n) == pytest.approx((hits / n, want.low, want.high), abs=1e-6)
    assert math.isnan(wilson(0, 0).value)


def test_small_things() -> None:
    assert shots([500, 100, 20, 19]) == {"many": [0], "medium": [1, 2], "few": [3]}
    years, true = torch.tensor([30.0, 41, 9]), torch.tensor([35.0, 30, math.nan])
    assert cumulative_score(years, true, ~true.isnan()) == 0.5


@pytest.mark.parametrize("kind", ["binary", "multiclass", "multilabel", "age"])
def test_the_summary_of_a_task(kind: str, generator: torch.Generator) -> None:
    import json

    task = Task("t", kind, {"binary": (), "multiclass": 4, "multilabel": 4, "age": ()}[kind], high=3)  # type: ignore[arg-type]
    logits = torch.randn(40, task.outputs, generator=generator)
    target = torch.randint(3, (40,), generator=generator)
    if kind in ("binary", "multilabel"):
        target = (torch.rand(40, 4, generator=generator) < 0.5).float()
        target = target[:, 0] if kind == "binary" else target
    mask = torch.rand(target.shape, generator=generator) < 0.7
    made = evaluate(task, logits, target, mask, train_counts=[500, 50, 5, 5])
    json.dumps(made, allow_nan=False)
    assert made["labels"] + made["missing"] == target.numel()
    wild = target.masked_fill(~mask, 255)
    assert evaluate(task, logits, wild, mask, train_counts=[500, 50, 5, 5]) == made
    if kind == "multiclass":
        kept, predicted = mask, logits.argmax(1)
        assert made["metrics"]["accuracy"] == pytest.approx(sk.accuracy_score(target[kept], predicted[kept]))
        assert made["metrics"]["macro_f1_seen"] == pytest.approx(sk.f1_score(target[kept], predicted[kept], average="macro"))
        assert made["metrics"]["NLL"] == pytest.approx(sk.log_loss(target[kept], logits[kept].double().softmax(1), labels=range(4)))
        assert made["classes"][3]["n"] == 0
        assert made["classes"][3]["recall"] is None
    if kind == "binary":
        want = sk.brier_score_loss(target[mask], logits.sigmoid()[mask, 0])
        assert made["metrics"]["Brier"] == pytest.approx(want, rel=1e-6)
    nothing = evaluate(task, logits, target, torch.zeros_like(mask))
    assert nothing["labels"] == 0
    assert nothing["metrics"] == {}


# Calibration ----------------------------------------------------------------------------------------------------------


def test_calibration_errors(generator: torch.Generator) -> None:
    assert calibration.ece(torch.tensor([0.8, 0.6, 0.7, 0.55]), torch.tensor([1.0, 0, 1, 0])) == pytest.approx(0.4125)
    logits, target = 2 * torch.randn(300, 4, generator=generator), torch.randint(4, (300,), generator=generator)
    task = Task("t", "multiclass", 4)  # type: ignore[arg-type]
    confidence, right = calibration.believed(task, logits, target)
    assert calibration.ece(confidence, right) == pytest.approx(
        float(tm.multiclass_calibration_error(logits.softmax(1), target, 4, n_bins=15)), abs=1e-6
    )
    equal = calibration.reliability(confidence, right, 7, adaptive=True)
    assert equal.samples.max() - equal.samples.min() <= 1
    order = confidence.argsort()
    sizes = [int(n) for n in equal.samples]
    at = np.cumsum([0, *sizes])
    want = sum(abs(float(confidence[order[a:b]].double().sum() - right[order[a:b]].double().sum())) for a, b in pairwise(at)) / 300
    assert equal.error == pytest.approx(want)


@pytest.mark.parametrize("kind", ["multiclass", "multilabel", "binary"])
def test_a_temperature_undoes_a_scale(kind: str, generator: torch.Generator) -> None:
    task = Task("t", kind, {"binary": (), "multiclass": 3, "multilabel": 2}[kind])  # type: ignore[arg-type]
    logits = torch.randn(4000, task.outputs, generator=generator)
    if kind == "multiclass":
        target = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    else:
        target = torch.bernoulli(logits.sigmoid(), generator=generator).reshape(4000, -1)
        target = target[:, 0] if kind == "binary" else target
    mask = torch.rand(target.shape, generator=generator) < 0.8
    hot = 3 * logits
    t = calibration.fit_temperature(task, hot, target.masked_fill(~mask, 0), mask)
    assert t.item() == pytest.approx(3.0, rel=0.08)
    assert calibration.nll(task, hot / t, target, mask) < calibration.nll(task, hot, target, mask)
    assert (hot / t).argmax(1).equal(hot.argmax(1))
    if kind == "multilabel":
        each = calibration.fit_temperature(task, hot * torch.tensor([1.0, 2.0]), target, mask, per_label=True)
        assert each.tolist() == pytest.approx([3.0, 6.0], rel=0.1)
    with pytest.raises(TaskError, match="no label to fit"):
        calibration.fit_temperature(task, hot, target, torch.zeros_like(mask))


# Thresholds -----------------------------------------------------------------------------------------------------------


def test_a_sweep_finds_what_trying_everything_finds(generator: torch.Generator) -> None:
    for n in (1, 2, 9, 40):
        scores = (torch.rand(n, generator=generator) * 8).round() / 8  # with ties
        target = (torch.rand(n, generator=generator) < 0.4).float()
        target[0] = 1
        found = thresholds.best_threshold(scores, target)
        tried = [sk.f1_score(target, scores >= t, zero_division=0) for t in torch.linspace(-0.01, 1.01, 103)]
        assert found.f1 == pytest.approx(max(tried))
        assert sk.f1_score(target, scores >= found.value) == pytest.approx(found.f1)
    nothing = thresholds.best_threshold(torch.tensor([0.2, 0.9]), torch.zeros(2))
    assert (nothing.value, nothing.sound) == (0.5, False)


def test_thresholds_by_label(labels: tuple[Tensor, Tensor, Tensor]) -> None:
    scores, target, mask = labels
    values, chosen = thresholds.tune(scores, target, mask)
    assert [c.sound for c in chosen] == [True] * 4 + [False]
    tuned = label_counts(thresholds.decided(scores, values), target, mask).f1()
    assert tuned[:4].tolist() == pytest.approx([c.f1 for c in chosen[:4]])
    common = thresholds.tune(scores, target, mask, shrink=1e9)[0]
    assert common.tolist() == pytest.approx([thresholds.best_threshold(scores[mask], target[mask]).value] * 5)
    honest = thresholds.nested_f1(scores, target, mask)
    assert (honest[:4] <= tuned[:4] + 1e-9).all()
    for rate in (0.0, 0.25, 1.0):
        assert float((scores[:, 0] >= thresholds.match_rate(scores[:, 0], rate)).float().mean()) == pytest.approx(rate, abs=0.5 / len(scores))
    on = thresholds.decided(scores * 0.1, 0.5, at_least_one=True)
    assert on.sum(1).tolist() == [1] * len(scores)
    sure = torch.tensor([0.9, 0.8, 0.1, 0.05])
    assert 0.1 < thresholds.expected_f1_threshold(sure) < 0.8


def test_when_not_to_answer(generator: torch.Generator) -> None:
    confidence = torch.tensor([0.9, 0.9, 0.8, 0.6, 0.5])
    right = torch.tensor([1.0, 1, 1, 0, 1])
    curve = thresholds.risk_coverage(confidence, right)
    assert curve.coverage.tolist() == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert curve.risk.tolist() == pytest.approx([0, 0, 0, 0.25, 0.2])
    assert thresholds.abstain_below(confidence, right, 0.0) == pytest.approx(0.8)
    assert thresholds.abstain_below(confidence, right, 0.2) == pytest.approx(0.5)
    assert thresholds.abstain_below(confidence, 1 - right, 0.1) > 1
    noisy = torch.rand(2000, generator=generator)
    good = thresholds.risk_coverage(noisy, torch.bernoulli(noisy, generator=generator))
    assert good.area < float(good.risk[-1])  # confidence that means something: the first answers are better than all
