"""Center, contrastive, triplet and margin losses, miners and retrieval: the papers' arithmetic, Caffe's, and pytorch-metric-learning's."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from pytorch_metric_learning import distances as pml_distances
from pytorch_metric_learning import losses as pml_losses
from pytorch_metric_learning import miners as pml_miners
from pytorch_metric_learning import reducers as pml_reducers
from sklearn.metrics import roc_auc_score, roc_curve
from torch import Tensor, nn

from prototxt import SolverError
from pycls.losses.center import CenterLoss, step
from pycls.losses.contrastive import contrastive_loss, contrastive_of_batch
from pycls.losses.margin import MarginSoftmax
from pycls.losses.triplet import triplet_loss
from pycls.miners import MINERS, batch_hard, distances
from pycls.retrieval import retrieval, spread, verification

N, C, D = 12, 4, 5


def some_batch(seed: int = 0, n: int = N) -> tuple[Tensor, Tensor]:
    """Features [n, D] and classes [n] of C."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, D, generator=generator), torch.randint(0, C, (n,), generator=generator)


# Center loss ----------------------------------------------------------------------------------------------------------


def moved_by_a_loop(centers: Tensor, x: Tensor, y: Tensor, alpha: float) -> Tensor:
    """Algorithm 1, step 6, row by row."""
    out = centers.clone()
    for j in range(len(centers)):
        mine = [x[i] for i in range(len(x)) if y[i] == j]
        out[j] -= alpha * sum((centers[j] - row for row in mine), torch.zeros(centers.shape[1], dtype=x.dtype)) / (1 + len(mine))
    return out


def test_center_loss_by_hand() -> None:
    loss = CenterLoss(2, 2)
    loss.centers.copy_(torch.tensor([[0.0, 0], [1, 1]]))
    x, y = torch.tensor([[2.0, 0], [0, 2], [3, 1]], requires_grad=True), torch.tensor([0, 0, 1])
    assert loss.eval()(x, y).item() == 2
    total = loss.train()(x, y, divisor=1)
    assert total.item() == 6
    total.backward()
    assert x.grad is not None
    assert x.grad.equal(torch.tensor([[2.0, 0], [0, 2], [2, 0]]))
    loss.update()
    torch.testing.assert_close(loss.centers, torch.tensor([[1 / 3, 1 / 3], [1.5, 1]]), rtol=0, atol=1e-7)


def test_centers_follow_algorithm_1() -> None:
    x, y = some_batch()
    x = x.double()
    y[y == 2] = 1  # a class that is absent keeps its center
    loss = CenterLoss(C, D, alpha=0.3).double()
    loss.centers.normal_(generator=torch.Generator().manual_seed(1))
    before = loss.centers.clone()
    loss(x, y)
    loss.update()
    torch.testing.assert_close(loss.centers, moved_by_a_loop(before, x, y, 0.3), rtol=0, atol=1e-7)
    assert loss.centers[2].equal(before[2])


def test_centers_know_no_rate_no_lambda_and_no_optimizer() -> None:
    x, y = some_batch()
    ends = []
    for weight, rate in ((0.001, 1.0), (10.0, 0.01)):
        loss = CenterLoss(C, D)
        assert not list(loss.parameters())
        features = x.clone().requires_grad_(True)
        (weight * loss(features, y)).backward()
        step(torch.optim.SGD([features], rate), loss)
        ends.append(loss.centers)
    assert ends[0].equal(ends[1])


def test_missing_rows_change_nothing() -> None:
    x, y = some_batch()
    plain, holed = CenterLoss(C, D), CenterLoss(C, D)
    more = torch.cat([x, torch.full((3, D), math.nan)]).requires_grad_(True)
    classes = torch.cat([y, torch.tensor([-1, 2, 255])])
    here = torch.arange(len(more)) < len(x)
    loss = holed(more, classes, present=here)
    torch.testing.assert_close(loss, plain(x, y))
    loss.backward()
    assert more.grad is not None
    assert more.grad.isfinite().all()
    plain.update(), holed.update()
    torch.testing.assert_close(holed.centers, plain.centers, rtol=0, atol=1e-7)
    empty = CenterLoss(C, D)
    assert empty(x.requires_grad_(True), torch.full((N,), -1)).item() == 0
    empty.update()
    assert not empty.centers.any()


def test_micro_batches_count_as_one() -> None:
    x, y = some_batch()
    whole, parts = CenterLoss(C, D), CenterLoss(C, D)
    want = whole(x, y)
    got = sum(parts(x[rows], y[rows], divisor=N) for rows in (slice(0, 5), slice(5, N)))
    torch.testing.assert_close(got, want)
    whole.update(), parts.update()
    torch.testing.assert_close(parts.centers, whole.centers, rtol=0, atol=1e-7)


def test_a_step_that_the_scaler_skips_moves_no_center() -> None:
    x, y = some_batch()
    loss, weight = CenterLoss(C, D), nn.Parameter(torch.ones(D))
    optimizer = torch.optim.SGD([weight], 0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for poison, taken in ((math.inf, False), (1.0, True)):
        before = loss.centers.clone()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            value = loss((x * weight).bfloat16(), y)
        assert value.dtype == torch.float32
        scaler.scale(value * poison).backward()
        assert step(optimizer, loss, scaler=scaler) is taken
        assert loss.centers.equal(before) is not taken
        optimizer.zero_grad()
    fresh = CenterLoss(C, D)
    fresh(x.bfloat16(), y)
    fresh.update()
    assert loss.centers.equal(fresh.centers), "the skipped step's rows were kept"


@pytest.mark.parametrize("mode", ["paper", "caffe"])
def test_resume_goes_on_exactly(mode: str) -> None:
    def run(loss: CenterLoss, seeds: range) -> CenterLoss:
        for seed in seeds:
            loss(*some_batch(seed))
            loss.update()
        return loss

    made = {"mode": mode, "momentum": 0.9 if mode == "caffe" else 0.0}
    straight = run(CenterLoss(C, D, **made), range(4))
    second = CenterLoss(C, D, **made)
    second.load_state_dict(run(CenterLoss(C, D, **made), range(2)).state_dict())
    assert run(second, range(2, 4)).centers.equal(straight.centers)


def test_caffes_layer_under_caffes_solver() -> None:
    """Loss over 2 N, delta c in the diff whatever the loss weight; then rate, momentum and decay, on absent classes too."""
    centers, velocity = torch.rand(C, D, generator=torch.Generator().manual_seed(2)), torch.zeros(C, D)
    loss = CenterLoss(C, D, mode="caffe", momentum=0.9, decay=0.001, first=centers)
    for iteration, rate in enumerate((0.1, 0.1, 0.01)):
        x, y = some_batch(iteration)
        y[y == 3] = 0
        assert loss(x, y).item() == pytest.approx(float((x - centers[y]).square().sum()) / (2 * N), rel=1e-6)
        delta = centers - moved_by_a_loop(centers, x, y, 1.0)
        velocity = 0.9 * velocity + rate * (delta + 0.001 * centers)
        centers = centers - velocity
        loss.update(rate)
        torch.testing.assert_close(loss.centers, centers, rtol=0, atol=1e-6)
    two = CenterLoss(C, D, mode="caffe")
    x, y = some_batch()
    two(x[:5], y[:5]), two(x[5:], y[5:])
    two.update(1.0)
    zero = torch.zeros(C, D)
    want = (moved_by_a_loop(zero, x[:5], y[:5], 1.0) + moved_by_a_loop(zero, x[5:], y[5:], 1.0)) / 2
    torch.testing.assert_close(two.centers, want, rtol=0, atol=1e-6)


def _one_process(rank: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    x, y = some_batch()
    for mode in ("paper", "caffe"):
        loss = CenterLoss(C, D, mode=mode)
        rows = slice(0, 5) if rank == 0 else slice(5, N)
        loss(x[rows], y[rows])
        loss.update()
        torch.save(loss.centers, f"{folder}/{mode}{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_equal_one(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_one_process, (str(tmp_path),), nprocs=2)
    x, y = some_batch()
    for mode, batches in (("paper", [slice(0, N)]), ("caffe", [slice(0, 5), slice(5, N)])):
        alone = CenterLoss(C, D, mode=mode)
        for rows in batches:
            alone(x[rows], y[rows])
        alone.update()
        first, second = (torch.load(tmp_path / f"{mode}{rank}.pt", weights_only=True) for rank in (0, 1))
        assert first.equal(second)
        torch.testing.assert_close(first, alone.centers, rtol=0, atol=1e-7)


def test_center_loss_refuses_what_has_no_meaning() -> None:
    for wrong in ({"mode": "wen"}, {"momentum": 0.9}, {"alpha": -1.0}):
        with pytest.raises(SolverError, match="center loss"):
            CenterLoss(C, D, **wrong)


# Contrastive and triplet ----------------------------------------------------------------------------------------------


def test_contrastive_by_hand() -> None:
    a, b = torch.zeros(3, 2), torch.tensor([[3.0, 4], [0, 0.5], [3, 4]])
    similar = torch.tensor([1, 0, 0])
    assert contrastive_loss(a, b, similar).item() == pytest.approx(4.208333, abs=1e-6)
    assert contrastive_loss(a, b, similar, legacy=True).item() == pytest.approx(4.291667, abs=1e-6)
    a.requires_grad_(True)
    contrastive_loss(a, b, similar).backward()
    assert a.grad is not None
    assert a.grad[1, 1].item() == pytest.approx(0.5 * 0.5 / 0.5001 / 3, rel=1e-5)  # (margin - d) / (d + 1e-4) * difference / N


def test_contrastive_positives_equal_pytorch_metric_learning() -> None:
    """Its positive part is the mean of d^2 over the pairs of one class in both orders; ours is half of d^2 over the pairs."""
    x, _ = some_batch()
    y = torch.zeros(N, dtype=torch.long)
    peer = pml_losses.ContrastiveLoss(
        pos_margin=0, distance=pml_distances.LpDistance(normalize_embeddings=False, power=2), reducer=pml_reducers.MeanReducer()
    )
    torch.testing.assert_close(2 * contrastive_of_batch(x, y), peer(x, y))


E = torch.tensor([[0.0, 0], [0, 1], [1, 0], [2, 2]])
Y = torch.tensor([0, 0, 1, 1])


def test_triplets_by_hand() -> None:
    assert triplet_loss(E, Y, margin=1).item() == pytest.approx(0.881419, abs=1e-6)
    assert triplet_loss(E, Y, margin=1, reduction="violating").item() == pytest.approx(1.175225, abs=1e-6)
    assert triplet_loss(E, Y, margin=1, miner="hard").item() == pytest.approx(1.205464, abs=1e-6)
    assert batch_hard(distances(E), Y, 1.0)[2].tolist() == [2, 2, 0, 1]


@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("miner", MINERS)
def test_triplets_equal_pytorch_metric_learning(miner: str, squared: bool, swap: bool) -> None:
    x, y = some_batch(3)
    distance = pml_distances.LpDistance(normalize_embeddings=False, power=2 if squared else 1)
    theirs = {
        "all": None,
        "hard": pml_miners.BatchHardMiner(distance=distance),
        "semihard": pml_miners.TripletMarginMiner(margin=0.7, type_of_triplets="semihard", distance=distance),
    }[miner]
    for reduction, reducer in (("mean", pml_reducers.MeanReducer()), ("violating", pml_reducers.AvgNonZeroReducer())):
        peer = pml_losses.TripletMarginLoss(margin=0.7, swap=swap, distance=distance, reducer=reducer)
        ours, theirs_x = x.clone().requires_grad_(True), x.clone().requires_grad_(True)
        got = triplet_loss(ours, y, margin=0.7, miner=miner, squared=squared, swap=swap, reduction=reduction)
        want = peer(theirs_x, y, theirs(theirs_x, y) if theirs else None)
        torch.testing.assert_close(got, want)
        got.backward(), want.backward()
        torch.testing.assert_close(ours.grad, theirs_x.grad)


@pytest.mark.parametrize("kind", ["arcface", "cosface"])
def test_margins_equal_pytorch_metric_learning(kind: str) -> None:
    x, y = some_batch(4)
    ours = MarginSoftmax(C, D, kind=kind, scale=16)
    peer = pml_losses.ArcFaceLoss(C, D, math.degrees(0.5), 16) if kind == "arcface" else pml_losses.CosFaceLoss(C, D, scale=16)
    peer.W.data = ours.weight.detach().T.clone()
    x[0] = -4 * ours.weight[y[0]].detach()  # past pi - m
    torch.testing.assert_close(ours(x, y), peer(x, y), rtol=1e-5, atol=1e-5)
    holed = torch.cat([y, torch.tensor([-1])])
    torch.testing.assert_close(ours(torch.cat([x, x[:1]]), holed), ours(x, y))


def test_gradients_are_finite_where_features_meet() -> None:
    """Equal rows, rows along a class weight, batches without a pair, a triplet, a class."""
    y = torch.tensor([0, 0, 1, 1])
    margin = MarginSoftmax(2, D)
    alike = torch.ones(4, D)
    along = margin.weight.detach()[y] * 2
    for x, classes in ((alike, y), (along, y), (alike, torch.zeros(4).long()), (alike, torch.full((4,), -1)), (1e4 * alike, y)):
        for loss in (triplet_loss, contrastive_of_batch, margin, CenterLoss(2, D)):
            features = x.clone().requires_grad_(True)
            value = loss(features, classes)
            value.backward()
            assert value.isfinite()
            assert features.grad is not None
            assert features.grad.isfinite().all()


def test_gradients_are_those_of_the_values() -> None:
    x, y = (t.double() if t.is_floating_point() else t for t in some_batch(5, 7))
    center, margin = CenterLoss(C, D).double().eval(), MarginSoftmax(C, D, scale=4).double()
    center.centers.normal_(generator=torch.Generator().manual_seed(1))
    for loss in (center, margin, lambda f, c: triplet_loss(f, c, margin=0.5), lambda f, c: triplet_loss(f, c, miner="hard", squared=True)):
        assert torch.autograd.gradcheck(lambda f, loss=loss: loss(f, y), x.clone().requires_grad_(True))


# Retrieval ------------------------------------------------------------------------------------------------------------


def test_retrieval_equals_pytorch_metric_learning() -> None:
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

    x, y = some_batch(6, 37)
    x[:, :C] += 0.7 * F.one_hot(y, C)

    def neighbours(query, k, reference, same_source):  # of the library's place for one's own search
        order = torch.cdist(query, reference).argsort(1)[:, 1 : k + 1]
        return torch.cdist(query, reference).gather(1, order), order

    theirs = AccuracyCalculator(
        include=("precision_at_1", "r_precision", "mean_average_precision_at_r"), knn_func=neighbours, device=torch.device("cpu")
    ).get_accuracy(x, y, x, y, ref_includes_query=True)
    ours = retrieval(x, y, ks=(1, 4))
    assert ours.recall[1] == pytest.approx(theirs["precision_at_1"])
    assert ours.r_precision == pytest.approx(theirs["r_precision"])
    assert ours.map_at_r == pytest.approx(theirs["mean_average_precision_at_r"])
    order = torch.cdist(x, x).argsort(1)[:, 1:5]
    assert ours.recall[4] == pytest.approx((y[order] == y[:, None]).any(1).float().mean().item())
    alone = retrieval(torch.cat([x, x[:1], x[:1]]), torch.cat([y, torch.tensor([C, -1])]), ks=(1, 4))  # neither may ask
    assert alone.queries == 37


def test_verification_equals_scikit_learn() -> None:
    generator = torch.Generator().manual_seed(7)
    same = torch.rand(211, generator=generator) < 0.3
    scores = ((torch.randn(211, generator=generator) + same) * 4).round() / 4  # with ties
    far, tar, thresholds = roc_curve(same, scores, drop_intermediate=False)
    ours = verification(scores, same)
    torch.testing.assert_close(ours.false_accept, torch.tensor(far).float())
    torch.testing.assert_close(ours.true_accept, torch.tensor(tar).float())
    torch.testing.assert_close(ours.thresholds, torch.tensor(thresholds).float())
    assert ours.area == pytest.approx(roc_auc_score(same, scores), rel=1e-5)
    assert ours.tar_at_far(0.1) == pytest.approx(max(t for f, t in zip(far, tar, strict=True) if f <= 0.1))
    assert math.isnan(verification(scores, torch.ones(211)).area)


def test_spread_of_two_classes() -> None:
    x = torch.tensor([[0.0, 1], [0, -1], [4, 2], [4, -2], [9, 9]])
    found = spread(x, torch.tensor([0, 0, 1, 1, -1]))
    assert (found.intra, found.inter, found.ratio) == (1.5, 4, 0.375)


def test_they_stand_beside_any_task() -> None:
    """On the features of a task's branch, next to its own loss: rows without a label of that task take no part."""
    from pycls.heads import attach_heads
    from pycls.losses.multi_task import multi_task_loss
    from pycls.tasks import Task

    torch.manual_seed(0)
    trunk = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU())
    kind, other = Task("kind", "multiclass", tuple("abc")), Task("hat", "binary")
    model = attach_heads(trunk, "1", [kind, other], input_shape=(1, 6, 7))
    images, classes = torch.randn(9, 1, 6, 7), torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 0])
    known = torch.arange(9) < 8
    center, optimizer = CenterLoss(3, 8), torch.optim.SGD(model.parameters(), 0.1)
    targets = {"kind": classes, "hat": torch.ones(9)}
    features = model.features(images)["kind"]
    loss, _ = multi_task_loss(model(images), targets, {"kind": known, "hat": torch.ones(9, dtype=torch.bool)}, [kind, other])
    extra = 0.1 * center(features, classes, known) + triplet_loss(features, torch.where(known, classes, -1))
    (loss + extra).backward()
    assert step(optimizer, center)
    want = moved_by_a_loop(torch.zeros(3, 8), features.detach()[:8], classes[:8], 0.5)
    torch.testing.assert_close(center.centers, want, rtol=1e-5, atol=1e-7)
