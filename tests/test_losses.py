"""Losses against numbers and code that are not ours: torch.nn, plain loops, figures worked out by hand; what must hold whatever the labels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from prototxt.errors import TaskError
from pycls.losses import loss_of
from pycls.losses.age import age_bins, age_expectation, age_ordinal
from pycls.losses.asymmetric import asymmetric
from pycls.losses.bce import bce
from pycls.losses.cross_entropy import cross_entropy, nll
from pycls.losses.focal import sigmoid_focal, softmax_focal
from pycls.losses.ldam import drw_weight, ldam, margins
from pycls.losses.logit_adjustment import adjusted, log_prior, logit_adjusted, moved
from pycls.losses.multi_task import label_divisors, loss_options, multi_task_loss
from pycls.losses.multilabel_margin import margin, multi_hot_to_indices, soft_margin
from pycls.losses.reduction import Loss
from pycls.losses.seesaw import seesaw
from pycls.losses.weights import class_weights, label_weights
from pycls.tasks import LOSSES, NORMALIZATIONS, Task

Z, T, W = torch.tensor([[1.0, 2, 3], [1, 1, 1]]), torch.tensor([2, 0]), [1.0, 2, 10]
ZL, YL = torch.tensor([[0.5, -1, 2], [3, 0, -2]]), torch.tensor([[1.0, 0, 1], [0, math.nan, 1]])
ML = torch.tensor([[True, True, True], [True, False, True]])
WHOLE = torch.tensor([[1.0, 0, 1], [0, 0, 1]])
RARE = torch.tensor([[2.0, 0], [0, 2]])

ORACLES: dict[str, tuple[Any, float]] = {
    "weighted as torch": (lambda: cross_entropy(Z, T, weight=W, normalization="torch"), 0.470425),
    "weighted as Caffe's Infogain": (lambda: cross_entropy(Z, T, weight=W), 2.587336),
    "smoothed and weighted": (lambda: cross_entropy(Z, T, weight=W, label_smoothing=0.1, normalization="torch"), 0.494839),
    "all ignored": (lambda: cross_entropy(Z, torch.tensor([-1, 255]), torch.zeros(2, dtype=torch.bool)), 0.0),
    "masked bce, none": (lambda: bce(ZL, YL, ML, normalization="none"), 6.089782),
    "masked bce, batch_size": (lambda: bce(ZL, YL, ML, normalization="batch_size"), 3.044891),
    "masked bce, full": (lambda: bce(ZL, YL, ML, normalization="full"), 1.014964),
    "masked bce, valid": (lambda: bce(ZL, YL, ML), 1.217956),
    "pos_weight of a positive": (lambda: bce(torch.zeros(1), torch.ones(1), pos_weight=3.0), 2.079442),
    "pos_weight of a negative": (lambda: bce(torch.zeros(1), torch.zeros(1), pos_weight=3.0), 0.693147),
    "soft margin": (lambda: soft_margin(ZL, WHOLE), 1.130488),
    "soft margin, weighted": (lambda: soft_margin(ZL, WHOLE, weight=[1.0, 2, 3]), 2.049508),
    "margin": (lambda: margin(torch.tensor([[0.1, 0.2, 0.4, 0.8]]), torch.tensor([[1.0, 0, 0, 1]])), 0.85),
    "margin without positives": (lambda: margin(torch.tensor([[0.1, 0.2, 0.4, 0.8]]), torch.zeros(1, 4)), 0.0),
    "softmax focal, easy": (lambda: softmax_focal(RARE[:1], torch.tensor([0])), 0.001804),
    "softmax focal, hard": (lambda: softmax_focal(RARE[1:], torch.tensor([0])), 1.650078),
    "sigmoid focal at 0": (lambda: sigmoid_focal(torch.tensor([0.0]), torch.ones(1), alpha=0.25), 4.332170e-2),
    "sigmoid focal at 2": (lambda: sigmoid_focal(torch.tensor([2.0]), torch.ones(1), alpha=0.25), 4.508911e-4),
    "sigmoid focal at -3": (lambda: sigmoid_focal(torch.tensor([-3.0]), torch.zeros(1), alpha=0.25), 8.196241e-5),
    "asymmetric": (lambda: asymmetric(ZL, WHOLE, normalization="none"), 3.637979),
    "asymmetric without focus is bce": (
        lambda: asymmetric(ZL, WHOLE, gamma_negative=0.0, gamma_positive=0.0, margin=0.0, normalization="none"),
        6.782929,
    ),
    "an easy negative of the asymmetric loss": (lambda: asymmetric(torch.tensor([-3.0]), torch.zeros(1)), 0.0),
    "a hopeless positive of the asymmetric loss": (lambda: asymmetric(torch.tensor([-20.0]), torch.ones(1), gamma_positive=0.0), 20.0),
    "logit adjustment at equal logits": (lambda: logit_adjusted(torch.zeros(1, 3), torch.tensor([2]), prior=[0.9, 0.09, 0.01]), 4.605170),
}


@pytest.mark.parametrize("name", ORACLES)
def test_known_numbers(name: str) -> None:
    made, want = ORACLES[name]
    assert made().item() == pytest.approx(want, rel=2e-6, abs=6e-7)


EFFECTIVE = {0.9: [0.998276, 0.998276, 1.003448], 0.99: [0.661041, 0.665413, 1.673546], 0.999: [0.125629, 0.317017, 2.557354]}


@pytest.mark.parametrize(("beta", "want"), [*EFFECTIVE.items(), (0.9999, [0.034107, 0.275167, 2.690725]), (0.0, [1.0, 1.0, 1.0])])
def test_effective_number(beta: float, want: list[float]) -> None:
    assert class_weights([5000, 500, 50], "effective", beta=beta) == pytest.approx(want, rel=2e-5)


def test_class_weights_of_other_schemes() -> None:
    from sklearn.utils.class_weight import compute_class_weight

    counts = [7, 2, 40]
    classes = [c for c, n in enumerate(counts) for _ in range(n)]
    assert class_weights(counts) == pytest.approx(list(compute_class_weight("balanced", classes=np.arange(3), y=classes)))
    near_one = class_weights(counts, "effective", beta=1 - 1e-12)
    assert near_one == pytest.approx([w * 3 / sum(class_weights(counts)) for w in class_weights(counts)], rel=1e-3)
    assert class_weights(counts, "median") == pytest.approx([1.0, 3.5, 7 / 40])
    roots = class_weights(counts, "sqrt")
    assert sum(roots) == pytest.approx(3)
    assert roots[0] / roots[1] == pytest.approx(math.sqrt(2 / 7))
    with pytest.warns(UserWarning, match=r"classes \[1\] have no sample"):
        assert class_weights([3, 0, 3]) == [1.0, 0.0, 1.0]
    with pytest.raises(TaskError, match="did you mean 'inverse'"):
        class_weights(counts, "invers")
    made = label_weights([1, 5], [10, 10])
    assert made["weight"][0] * made["pos_weight"][0] == pytest.approx(math.exp(0.9))


# Beside torch.nn and plain loops --------------------------------------------------------------------------------------


def test_torchs_multi_label_losses(generator: torch.Generator) -> None:
    z, y = torch.randn(7, 5, generator=generator), (torch.rand(7, 5, generator=generator) < 0.4).float()
    weight = torch.rand(5, generator=generator)
    torch.testing.assert_close(margin(z, y), F.multilabel_margin_loss(z, multi_hot_to_indices(y)))
    torch.testing.assert_close(soft_margin(z, y, weight=weight), F.multilabel_soft_margin_loss(z, y, weight=weight))
    assert multi_hot_to_indices(torch.tensor([[1.0, 0, 0, 1]])).tolist() == [[0, 3, -1, -1]]


def test_focal_is_torchvisions_and_cross_entropy_without_gamma(generator: torch.Generator) -> None:
    from torchvision.ops import sigmoid_focal_loss

    z, y = 3 * torch.randn(6, 4, generator=generator), (torch.rand(6, 4, generator=generator) < 0.5).float()
    target = torch.randint(4, (6,), generator=generator)
    for gamma in (0.5, 2.0, 3.5):
        want = sigmoid_focal_loss(z, y, alpha=0.3, gamma=gamma, reduction="mean")
        torch.testing.assert_close(sigmoid_focal(z, y, gamma=gamma, alpha=0.3), want)
    assert softmax_focal(z, target, gamma=0.0).equal(cross_entropy(z, target))
    two = torch.stack([torch.zeros(24), z.flatten()], 1)  # a softmax over two is a sigmoid of the difference
    torch.testing.assert_close(softmax_focal(two, y.flatten().long()), sigmoid_focal(z, y))


def test_losses_of_long_tails_equal_loops(generator: torch.Generator) -> None:
    z, target, counts = torch.randn(6, 3, generator=generator), torch.randint(3, (6,), generator=generator), [50.0, 10, 2]
    cuts = margins(counts)
    assert cuts == pytest.approx([0.5 * (2 / n) ** 0.25 for n in counts])
    wants = {"ldam": 0.0, "seesaw": 0.0, "adjusted": 0.0}
    for row, y in zip(z.double(), target.tolist(), strict=True):
        p = row.softmax(0)
        cut = [30 * (v - (cuts[y] if j == y else 0)) for j, v in enumerate(row.tolist())]
        wants["ldam"] += (math.log(sum(map(math.exp, cut))) - cut[y]) / 6
        s = [1 if j == y else min(1, counts[j] / counts[y]) ** 0.8 * max(1, float(p[j] / p[y])) ** 2 for j in range(3)]
        wants["seesaw"] += (math.log(sum(w * math.exp(v) for w, v in zip(s, row.tolist(), strict=True))) - row.tolist()[y]) / 6
        prior = [n / 62 * math.exp(v) for n, v in zip(counts, row.tolist(), strict=True)]
        wants["adjusted"] += -math.log(prior[y] / sum(prior)) / 6
    assert ldam(z, target, counts=counts).item() == pytest.approx(wants["ldam"], rel=1e-5)
    assert seesaw(z, target, counts=counts).item() == pytest.approx(wants["seesaw"], rel=1e-5)
    assert logit_adjusted(z, target, prior=counts).item() == pytest.approx(wants["adjusted"], rel=1e-5)
    assert drw_weight(counts, 3, start=5) is None
    assert drw_weight(counts, 5, start=5) == class_weights(counts, "effective", beta=0.9999)


def test_prior_correction() -> None:
    z = torch.zeros(1, 3)
    assert (adjusted(z, [0.9, 0.09, 0.01]) + log_prior([0.9, 0.09, 0.01], z)).equal(z)
    assert moved(z, learned=[1, 1, 1], used=[0.9, 0.09, 0.01]).softmax(1)[0].tolist() == pytest.approx([0.9, 0.09, 0.01])


def test_ages() -> None:
    ages, task = torch.tensor([3.0, 7.9, 250.0, 0.0]), Task("age", "age", low=2, high=10, step=2)
    assert task.names == ("2..3", "4..5", "6..7", "8..9", "10+")
    z = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    bins = torch.tensor([0, 2, 4, 0])
    torch.testing.assert_close(age_bins(z, ages, low=2, step=2), F.cross_entropy(z, bins))
    middle = (z.softmax(1) * torch.arange(5)).sum(1)
    torch.testing.assert_close(age_expectation(z, ages, low=2, step=2, distance=0.5), F.cross_entropy(z, bins) + 0.5 * (middle - bins).abs().mean())
    above = torch.tensor([[0.0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]])
    want = F.binary_cross_entropy_with_logits(z[:, :4], above, reduction="none").sum(1).mean()
    torch.testing.assert_close(age_ordinal(z[:, :4], ages, low=2, step=2), want)
    sure = torch.full((1, 5), -50.0).index_fill(1, torch.tensor(2), 50.0)
    ordinal = Task("age", "age", loss="ordinal", low=2, high=10, step=2)
    assert task.activate(sure).item() == pytest.approx(6.5)
    assert Task("age", "age", loss="bins", low=2, high=10, step=2).activate(sure).item() == 6.5
    assert ordinal.activate(torch.tensor([[50.0, 50, -50, -50]])).item() == pytest.approx(6.5)


# What holds for every loss --------------------------------------------------------------------------------------------

OPTIONS: dict[str, dict[str, Any]] = {
    "multiclass/ldam": {"counts": [50, 9, 2, 1], "scale": 3.0},
    "multiclass/logit_adjusted": {"prior": [50, 9, 2, 1]},
    "multiclass/seesaw": {"counts": [50, 9, 2, 1], "q": 0.0},
    "multiclass/ce": {"weight": [0.5, 1, 2, 4], "label_smoothing": 0.1},
    "multiclass/focal": {"gamma": 1.5, "alpha": [0.5, 1, 2, 4]},
    "binary/focal": {"gamma": 0.5, "alpha": 0.7},
    "binary/bce": {"pos_weight": 3.0},
    "multilabel/focal": {"gamma": 0.5},
    "multilabel/asymmetric": {"margin": 0.0},
    "age/expectation": {"distance": 0.3},
}
KINDS = [f"{kind}/{name}" for kind, names in LOSSES.items() for name in names]


def example(which: str, generator: torch.Generator, rows: int = 5, dtype: torch.dtype = torch.float64) -> tuple[Task, Tensor, Tensor, Tensor]:
    """A task, logits, a target and a mask with labels that are there and labels that are not."""
    kind, loss = which.split("/")
    classes = {"binary": (), "multiclass": 4, "multilabel": 3, "age": ()}[kind]
    task = Task("t", kind, classes, loss=loss, options=OPTIONS.get(which, {}), low=0, high=6, step=2)  # type: ignore[arg-type]
    logits = torch.randn(rows, task.outputs, generator=generator, dtype=dtype)
    if loss == "nll":
        logits = logits.log_softmax(1)
    if kind == "multiclass":
        target = torch.randint(0, 4, (rows,), generator=generator)
    elif kind == "age":
        target = 9 * torch.rand(rows, generator=generator, dtype=dtype)
    else:
        target = (torch.rand(rows, task.outputs, generator=generator) < 0.5).to(dtype)
        target = target[:, 0] if kind == "binary" else target
    mask = torch.rand(target.shape, generator=generator) < 0.6
    mask[0], mask[1] = True, False
    return task, logits, target, mask


def run(task: Task, logits: Tensor, target: Tensor, mask: Tensor | None, normalization: str = "valid") -> Tensor:
    return loss_of(task)(logits, target, mask, normalization=normalization, **loss_options(task))


@pytest.mark.parametrize("which", KINDS)
def test_gradients_against_finite_differences(which: str, generator: torch.Generator) -> None:
    task, logits, target, mask = example(which, generator)
    torch.autograd.gradcheck(lambda z: run(task, z, target, mask), logits.requires_grad_())


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("which", KINDS)
def test_a_missing_label_is_nothing(which: str, normalization: str, generator: torch.Generator) -> None:
    """Whatever stands there, and even if the sample's own scores are not finite: same loss, same gradient, none of it from there."""
    task, logits, target, mask = example(which, generator)
    whole = run(task, logits.requires_grad_(), target, mask, normalization)
    (want,) = torch.autograd.grad(whole, logits)
    rows = ~mask if mask.shape == logits.shape else (~mask).reshape(-1, 1).expand_as(logits)
    assert not want[rows].any()
    for filler in (math.nan, 255, -1):
        if target.is_floating_point() or filler == filler:
            wild = logits.detach().masked_fill(rows, math.inf).requires_grad_()
            loss = run(task, wild, target.masked_fill(~mask, filler), mask, normalization)
            assert loss.equal(whole)
            assert torch.autograd.grad(loss, wild)[0].equal(want)
    nothing = run(task, logits, target, torch.zeros_like(mask), normalization)
    assert nothing == 0
    assert not torch.autograd.grad(nothing, logits)[0].any()


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("which", KINDS)
def test_the_sum_over_parts_is_the_whole(which: str, normalization: str, generator: torch.Generator) -> None:
    task, logits, target, mask = example(which, generator, rows=7)
    loss, options = loss_of(task), loss_options(task)
    whole = loss.sums(logits, target, mask, normalization=normalization, **options)
    parts = [loss.sums(logits[s], target[s], mask[s], normalization=normalization, **options) for s in (slice(0, 2), slice(2, 7))]
    torch.testing.assert_close(sum(p.numerator for p in parts), whole.numerator)
    torch.testing.assert_close(sum(p.divisor for p in parts), whole.divisor)
    torch.testing.assert_close(loss.divisor(target, mask, normalization=normalization, **options).double(), whole.divisor)


@pytest.mark.parametrize("which", KINDS)
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_finite_at_extreme_logits(which: str, sign: float, generator: torch.Generator) -> None:
    task, logits, target, _ = example(which, generator, dtype=torch.float32)
    logits = (sign * 1e4 * logits.sign()).requires_grad_()
    values = logits.log_softmax(1) if task.loss == "nll" else logits
    for gamma in (0.0, 0.3, 2.0, 5.0) if task.loss == "focal" else (None,):
        loss = loss_of(task)(values, target, **({**loss_options(task), **({} if gamma is None else {"gamma": gamma})}))
        (gradient,) = torch.autograd.grad(loss, logits, retain_graph=True)
        assert loss.isfinite()
        assert gradient.isfinite().all()


@pytest.mark.parametrize("name", list(LOSSES["multiclass"]))
def test_one_class(name: str) -> None:
    z = torch.tensor([[3.0], [-2.0]], requires_grad=True)
    options = {"ldam": {"counts": [5]}, "logit_adjusted": {"prior": [5]}, "seesaw": {"counts": [5]}}.get(name, {})
    task = Task("t", "multiclass", 1, loss=name, options=options)  # type: ignore[arg-type]
    loss = run(task, z.log_softmax(1) if name == "nll" else z, torch.tensor([0, 0]), None)
    loss.backward()
    assert abs(float(loss.detach())) < 1e-6
    assert z.grad is not None
    assert not z.grad.any()


def test_a_hopeless_sample_still_pulls() -> None:
    """Clamped probabilities, as in published code, would have no gradient here."""
    for loss in (bce, sigmoid_focal, asymmetric):
        z = torch.tensor([-30.0], requires_grad=True)
        loss(z, torch.ones(1)).backward()
        assert z.grad is not None
        assert z.grad.item() == pytest.approx(-1.0, abs=1e-5)


def test_softmax_losses_do_not_move_with_a_shift(generator: torch.Generator) -> None:
    for which in (k for k in KINDS if k.startswith("multiclass") and not k.endswith("nll")):
        task, logits, target, mask = example(which, generator)
        torch.testing.assert_close(run(task, logits + 7, target, mask), run(task, logits, target, mask))


def test_half_precision_is_computed_in_float32() -> None:
    z = torch.full((600, 3), 0.1, dtype=torch.bfloat16)
    assert bce(z, torch.ones(600, 3), normalization="none").dtype == torch.float32


def test_spatial_and_paired_targets(generator: torch.Generator) -> None:
    """Logits [N, 2, K] against labels [N, K], Caffe's softmax of pairs, are K labels each."""
    z, y = torch.randn(4, 2, 3, generator=generator), torch.randint(2, (4, 3), generator=generator)
    torch.testing.assert_close(cross_entropy(z, y), bce(z[:, 1] - z[:, 0], y.float()))
    assert isinstance(nll, Loss)
    torch.testing.assert_close(nll(z.log_softmax(1), y, weight=[1.0, 3.0], normalization="torch"), F.cross_entropy(z, y, torch.tensor([1.0, 3.0])))


# Several tasks --------------------------------------------------------------------------------------------------------


def test_the_loss_of_tasks(generator: torch.Generator) -> None:
    examples = {which: example(which, generator, rows=6) for which in ("multiclass/ce", "multilabel/bce", "binary/focal", "age/ordinal")}
    tasks = [Task(which, t.kind, t.classes, loss=t.loss, weight=w, options=t.options, high=6, step=2)
             for w, (which, (t, *_)) in enumerate(examples.items(), 1)]  # fmt: skip
    outputs, targets, masks = ({which: e[i] for which, e in examples.items()} for i in (1, 2, 3))
    total, parts = multi_task_loss(outputs, targets, masks, tasks)
    torch.testing.assert_close(total, sum(t.weight * parts[t.name].loss for t in tasks))
    backwards, same = multi_task_loss(outputs, targets, masks, tasks[::-1])
    torch.testing.assert_close(backwards, total)
    assert all(same[name].loss.equal(parts[name].loss) for name in parts)
    halves = [slice(0, 4), slice(4, 6)]

    def cut(batch: dict[str, Tensor], s: slice) -> dict[str, Tensor]:
        return {name: value[s] for name, value in batch.items()}

    counted = [label_divisors(cut(targets, s), cut(masks, s), tasks) for s in halves]
    divisors = {name: counted[0][name] + counted[1][name] for name in parts}
    summed = sum(multi_task_loss(cut(outputs, s), cut(targets, s), cut(masks, s), tasks, divisors=divisors)[0] for s in halves)
    torch.testing.assert_close(summed, total)


def test_the_meanings_of_na() -> None:
    z, mask = torch.tensor([[2.0, 0, 1], [0, 3, 1]]), torch.tensor([True, False])
    task = Task("glasses", "multiclass", ("none", "some"), na="class")
    assert task.names == ("none", "some", "NA")
    total, _ = multi_task_loss({"glasses": z}, {"glasses": torch.tensor([1, -7])}, {"glasses": mask}, [task])
    torch.testing.assert_close(total, F.cross_entropy(z, torch.tensor([1, 2])))
    label = Task("hat", "binary", na="negative")
    total, _ = multi_task_loss({"hat": z[:, :1]}, {"hat": torch.tensor([1.0, math.nan])}, {"hat": mask}, [label])
    torch.testing.assert_close(total, F.binary_cross_entropy_with_logits(z[:, 0], torch.tensor([1.0, 0])))
