"""Heads on trunks, Caffe's idioms of several labels rewritten as tasks, and what sharing a trunk asks for: export, processes, balance."""

from __future__ import annotations

import copy
import math
import re
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from conftest import CORPUS, ROOT
from torch import Tensor, nn

import converters
import pycls
from converters import edit
from converters.net import CaffeNet
from prototxt import DecantError, NetError, parse_text
from prototxt.errors import TaskError
from pycls import Branch, Task, decoupling
from pycls.balancing import BALANCERS, GradNorm, Uncertainty, first_loss, make_balancer, project
from pycls.heads import MultiTaskModel, onnx_error, stage
from pycls.idioms import describe
from pycls.losses.cross_entropy import cross_entropy
from pycls.losses.multi_task import Part, all_reduced, label_divisors, multi_task_loss

TASKS = (
    Task("digit", "multiclass", 10, weight=0.5),  # type: ignore[arg-type]
    Task("kinds of loops.0", "multilabel", ("top", "bottom", "none")),
    Task("odd", "binary", weight=2.0),
    Task("years", "age", low=0, high=8, step=2),
    Task("order", "age", loss="ordinal", low=0, high=8, step=2),
    Task("log", "multiclass", 4, loss="nll", normalization="batch_size"),  # type: ignore[arg-type]
)
Batch = tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]


def lenet() -> CaffeNet:
    torch.manual_seed(0)
    return converters.load(ROOT / "prototxt/nets/lenet.prototxt", phase="TRAIN")


def model(**kwargs: Any) -> MultiTaskModel:
    return pycls.attach_heads(lenet(), **{"at": "ip1", "tasks": TASKS, **kwargs})


def batch(n: int = 6, seed: int = 1) -> Batch:
    """Images, targets and masks; some labels of each task are missing, and nan or 255 stands there."""
    g = torch.Generator().manual_seed(seed)
    targets: dict[str, Tensor] = {}
    for task in TASKS:
        if task.kind == "multiclass":
            targets[task.name] = torch.randint(len(task.classes), (n,), generator=g)
        elif task.kind == "age":
            targets[task.name] = 12 * torch.rand(n, generator=g)
        else:
            targets[task.name] = (torch.rand(n, task.outputs, generator=g) < 0.5).float().squeeze(1)
    masks = {name: torch.rand(t.shape, generator=g) < 0.6 for name, t in targets.items()}
    for name, t in targets.items():
        masks[name][0], masks[name][-1] = True, False
        targets[name] = t.masked_fill(~masks[name], math.nan if t.is_floating_point() else 255)
    return torch.rand(n, 1, 28, 28, generator=g), targets, masks


def gradients(module: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor], **close: float) -> None:
    assert set(one) == set(other)
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], **(close or {"rtol": 1e-4, "atol": 1e-6}), msg=lambda m, name=name: f"{name}: {m}")


# Cutting and editing --------------------------------------------------------------------------------------------------


def test_a_cut_net_computes_its_blobs_on_the_same_weights(generator: torch.Generator) -> None:
    net = lenet()
    x = torch.rand(3, 1, 28, 28, generator=generator)
    short = edit.cut(net, ["pool2", "ip1@0"])
    assert short.graph.outputs == ("pool2", "ip1")
    assert [step.name for step in short.graph.steps] == ["conv1", "pool1", "conv2", "pool2", "ip1"]
    made, whole = short(x), net.blobs({"data": x})
    assert made["pool2"].equal(whole["pool2"])
    assert made["ip1"].relu().equal(whole["ip1"])
    assert short.params()["conv1"][0] is net.params()["conv1"][0]
    with pytest.raises(NetError, match="did you mean 'pool"):
        edit.cut(net, ["pol2"])
    with pytest.raises(NetError, match="names a blob twice"):
        edit.cut(net, ["ip1", "ip1@0"])


def test_a_renamed_net_is_the_same(generator: torch.Generator) -> None:
    net = lenet()
    x = torch.rand(2, 1, 28, 28, generator=generator)
    other = edit.rename(net, {"prob": "digit", "data": "image"})
    assert (other.graph.inputs, other.graph.outputs) == (("image",), ("digit",))
    assert other(x).equal(net(x))
    with pytest.raises(NetError, match="two blobs one name"):
        edit.rename(net, {"prob": "data"})
    with pytest.raises(NetError, match="no blob 'prb' to rename; did you mean 'prob'"):
        edit.rename(net, {"prb": "y"})
    with pytest.raises(NetError, match="'ip1@0' is a blob before"):
        edit.rename(net, {"ip1@0": "y"})
    edit.freeze(net, "conv2")
    assert {name: [p.requires_grad for p in ps] for name, ps in net.params().items()} == {
        "conv1": [False] * 2, "conv2": [False] * 2, "ip1": [True] * 2, "ip2": [True] * 2}  # fmt: skip


def test_editing_leaves_the_mode_of_each_part_as_it_was() -> None:
    net = lenet()
    net.module.train()
    net.module.conv1.eval()
    short = edit.cut(edit.rename(net, {"prob": "digit"}), ["pool2"])
    assert (short.module.training, net.module.training, net.module.conv1.training, net.module.conv2.training) == (True, True, False, True)
    module = nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2))
    module[1].eval()
    assert edit.trunk_of(module, ["1"], (3, 5, 6)).module.training
    with pytest.raises(NetError, match=r"Sequential does not take an input of \[1, 4, 5, 6\]"):
        edit.trunk_of(module, ["1"], (4, 5, 6))
    assert [m.training for m in module.modules()] == [True, True, False]


def test_a_shared_parameter_stays_shared_behind_a_cut() -> None:
    def fc(name: str, blob: str) -> str:
        return layer(name, "InnerProduct", blob, name, 'param { name: "w" } inner_product_param { num_output: 5 bias_term: false }')

    net = converters.load(parse_text('input: "x" input_shape { dim: 2 dim: 5 }' + fc("a", "x") + fc("b", "x") + fc("c", "b")))
    short = edit.cut(net, ["c"])
    assert [step.params[0].owner for step in short.graph.steps] == [None, (0, 0)]
    assert short.params()["b"][0] is short.params()["c"][0] is net.params()["a"][0]


# Heads ----------------------------------------------------------------------------------------------------------------


def test_heads_have_the_shapes_of_their_tasks() -> None:
    made = model(branches=[Branch(("digit", "log"), at="pool2", pool="avgmax", hidden=(7,), dropout=0.1, cosine=True), Branch(("odd",), detach=True)])
    x, targets, masks = batch()
    out = made(x)
    assert {name: tuple(v.shape) for name, v in out.items()} == {t.name: (6, t.outputs) for t in TASKS}
    torch.testing.assert_close(out["log"].exp().sum(1), torch.ones(6))
    assert out["digit"].abs().max() <= 1 + 1e-6
    assert made.features(x)["digit"].shape == (6, 7)
    only = {name: m & (name == "odd") for name, m in masks.items()}
    multi_task_loss(out, targets, only, TASKS)[0].backward()
    assert not any(p.grad is not None and bool(p.grad.any()) for p in made.trunk.parameters())
    assert made.head("odd").weight.grad.any()


def test_an_ordinal_head_never_rises(generator: torch.Generator) -> None:
    out = model()(torch.rand(5, 1, 28, 28, generator=generator))["order"]
    assert (out.diff(dim=1) <= 0).all()


REFUSED: list[tuple[Any, str]] = [
    (lambda: Task("a", "multi-class", ("x",)), "did you mean 'multiclass'"),
    (lambda: Task("a", "multiclass"), "needs its classes"),
    (lambda: Task("a", "multiclass", ("x", "x")), "stands twice"),
    (lambda: Task("a", "binary", ("x",)), "two classes"),
    (lambda: Task("a", "binary", loss="ce"), "did you mean 'bce'"),
    (lambda: Task("a", "binary", na="class"), "needs a multiclass task"),
    (lambda: Task("a", "multiclass", ("x", "NA"), na="class"), "which is there already"),
    (lambda: Task("a", "age", na="negative"), "for binary and multilabel"),
    (lambda: Task("a", "age", ("x",)), "give low, high and step"),
    (lambda: Task("a", "age", low=5, high=5), "fewer than two bins"),
    (lambda: Task("a", "binary", weight=-1), "not negative"),
    (lambda: Task("a", "binary", normalization="mean"), "one of valid, full"),
    (lambda: Task("", "binary"), "needs a name"),
    (lambda: Task.from_dict({"name": "a", "knd": "binary"}), "did you mean 'kind'"),
    (lambda: Task.from_dict({"name": "a"}), "needs kind"),
    (lambda: model(tasks=[]), "there is no task"),
    (lambda: model(tasks=[TASKS[0], TASKS[0]]), "names of their own"),
    (lambda: model(at="ip9"), "did you mean 'ip"),
    (lambda: model(branches=[Branch(("digits",))]), "did you mean 'digit'"),
    (lambda: model(branches=[Branch(("odd",)), Branch(("odd",))]), "belongs to one branch"),
    (lambda: model(branches=[Branch(("odd",), pool="mean")]), "one of avg, max"),
    (lambda: model().freeze("conv3"), "did you mean 'conv"),
    (lambda: model().set_prior("odd", [1, 2]), "has 2 values; the task needs 1"),
    (lambda: make_balancer("pcgard", TASKS), "did you mean 'pcgrad'"),
    (lambda: pycls.attach_heads("net", at="x", tasks=TASKS), "not on str"),
    (lambda: pycls.attach_heads(nn.Sequential(nn.Flatten()), at="1", tasks=TASKS), "no module or node '1'"),
    (lambda: decoupling.retrain(model(), "odd"), "plain linear one of a multiclass"),
]


@pytest.mark.parametrize(("make", "match"), REFUSED, ids=[match for _, match in REFUSED])
def test_what_is_refused(make: Any, match: str) -> None:
    with pytest.raises(DecantError, match=match):
        make()


@pytest.mark.parametrize("task", TASKS, ids=lambda t: t.name)
def test_a_task_survives_json(task: Task) -> None:
    import json

    assert Task.from_dict(json.loads(json.dumps(task.to_dict()))) == task


def test_decisions() -> None:
    z = torch.tensor([[0.2, -3.0, 1.0]])
    assert TASKS[1].decide(z).tolist() == [[1, 0, 1]]
    assert TASKS[1].decide(z, torch.tensor([0.9, 0.01, 0.5])).tolist() == [[0, 1, 1]]
    assert TASKS[2].decide(z[:, :1]).tolist() == [1]
    assert Task("t", "multiclass", ("a", "b", "c")).decide(z).tolist() == [2]


def test_frozen_layers_learn_and_count_nothing() -> None:
    torch.manual_seed(0)
    net = torchvision.models.resnet18(num_classes=3)
    made = pycls.attach_heads(net, at="layer4", tasks=TASKS[:1], input_shape=(3, 32, 32))
    made.train()
    made.freeze("layer2")
    before = {name: b.clone() for name, b in made.trunk.named_buffers()}
    made(torch.rand(2, 3, 32, 32))["digit"].sum().backward()
    changed = {name.split(".")[0] for name, b in made.trunk.named_buffers() if not b.equal(before[name])}
    learned = {name.split(".")[0] for name, p in made.trunk.named_parameters() if p.grad is not None}
    assert changed == learned == {"layer3", "layer4"}
    made.freeze()
    assert not any(p.requires_grad for p in made.trunk.parameters())
    made.train()
    assert not any(m.training for m in made.trunk.modules() if isinstance(m, nn.BatchNorm2d))
    made.freeze(None)
    assert all(p.requires_grad for p in made.trunk.parameters())
    assert all(m.training for m in made.trunk.modules() if isinstance(m, nn.BatchNorm2d))
    schedule = {0: "", 2: "layer3", 5: None}
    assert [stage(schedule, e) for e in (0, 1, 2, 4, 5, 9)] == ["", "", "layer3", "layer3", None, None]


def test_rates_are_caffes_times_the_branchs() -> None:
    made = model(branches=[Branch(("digit",), lr_mult=10)])
    groups = made.parameter_groups(0.1, 0.01, trunk_lr_mult=0.5, decay_biases=False)
    found = {(g["name"], round(g["lr"], 6), g["weight_decay"]) for g in groups}
    assert ("trunk", 0.05, 0.01) in found  # lenet.prototxt: lr_mult 1 for weights and 2 for biases
    assert ("trunk", 0.1, 0.0) in found
    assert ("branch 0", 1.0, 0.01) in found
    assert sum(len(g["params"]) for g in groups) == len(list(made.parameters()))
    torch.optim.SGD(groups, lr=0.1)


def test_a_prior_makes_the_first_loss_the_entropy() -> None:
    made = model()
    x, _, _ = batch(200)
    shares = torch.tensor([0.5, 0.3, 0.1, 0.1])
    priors = {"log": shares.tolist(), "odd": [0.2], "kinds of loops.0": [0.1, 0.5, 0.9], "order": [10, 20, 40, 20, 10], "digit": [1] * 10}
    for name, prior in priors.items():
        for parameter in made.head(name).parameters():
            parameter.data.zero_()
        made.set_prior(name, prior)
    out = made(x)
    torch.testing.assert_close(out["log"].exp()[0], shares)
    assert made.task("odd").probabilities(out["odd"])[0].item() == pytest.approx(0.2)
    torch.testing.assert_close(out["kinds of loops.0"].sigmoid()[0], torch.tensor([0.1, 0.5, 0.9]))
    torch.testing.assert_close(out["order"].sigmoid()[0], torch.tensor([0.9, 0.7, 0.3, 0.1]))
    labels = torch.repeat_interleave(torch.arange(4), shares.mul(200).round().long())
    made.set_prior("odd", [0.01])
    assert made.head("odd").bias.item() == pytest.approx(-4.595120, rel=1e-6)
    assert cross_entropy(out["log"], labels).item() == pytest.approx(float(-(shares * shares.log()).sum()), rel=1e-5)


def test_onnx_has_an_output_a_task(tmp_path: Path) -> None:
    made = model()
    made.train()
    for activation in (True, False):
        pycls.export_onnx(made, tmp_path / "net.onnx", activation=activation)
        assert made.training
        worst = onnx_error(made, tmp_path / "net.onnx", activation)
        assert list(worst) == [t.name for t in TASKS]
        assert max(worst.values()) < 1e-5
    with pytest.raises(NetError, match="give the output another name"):
        pycls.export_onnx(model(tasks=[Task("data", "binary")]), tmp_path / "net.onnx")


# Missing labels -------------------------------------------------------------------------------------------------------


def test_rows_without_labels_change_nothing() -> None:
    made = model()
    x, targets, masks = batch()
    total, parts = multi_task_loss(made(x), targets, masks, [t for t in TASKS if t.normalization == "valid"])
    more = torch.cat([x, torch.rand(3, 1, 28, 28)])
    padded = {name: torch.cat([t, t[:3]]) for name, t in targets.items()}
    masked = {name: torch.cat([m, torch.zeros_like(m[:3])]) for name, m in masks.items()}
    again, _ = multi_task_loss(made(more), padded, masked, [t for t in TASKS if t.normalization == "valid"])
    torch.testing.assert_close(again, total)
    assert parts["odd"].divisor == masks["odd"].sum()


def test_a_task_without_labels_leaves_its_head_alone() -> None:
    made = model()
    x, targets, masks = batch()
    masks["odd"] = torch.zeros_like(masks["odd"])
    total, parts = multi_task_loss(made(x), targets, masks, TASKS)
    total.backward()
    head = made.head("odd")
    assert not head.weight.grad.any()
    assert not head.bias.grad.any()
    made.drop_empty_gradients({name: part.divisor for name, part in parts.items()})
    assert head.weight.grad is None
    assert made.head("digit").weight.grad is not None


def test_accumulation_is_one_big_batch() -> None:
    x, targets, masks = batch(7)
    whole, parts = model(), model()
    multi_task_loss(whole(x), targets, masks, TASKS)[0].backward()
    cuts = [slice(0, 2), slice(2, 7)]
    pieces = [({n: t[s] for n, t in targets.items()}, {n: m[s] for n, m in masks.items()}) for s in cuts]
    counted = [label_divisors(t, m, TASKS) for t, m in pieces]
    divisors = {t.name: counted[0][t.name] + counted[1][t.name] for t in TASKS}
    for s, (t, m) in zip(cuts, pieces, strict=True):
        multi_task_loss(parts(x[s]), t, m, TASKS, divisors=divisors)[0].backward()
    assert_same(gradients(parts), gradients(whole))


def _one_of_two(rank: int, port: int, folder: str) -> None:
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    x, targets, masks = batch(7)
    rows = slice(0, 2) if rank == 0 else slice(2, 7)
    targets, masks = {n: t[rows] for n, t in targets.items()}, {n: m[rows] for n, m in masks.items()}
    divisors = all_reduced(label_divisors(targets, masks, TASKS))
    made: nn.Module = model()
    wrapped = nn.parallel.DistributedDataParallel(made)
    multi_task_loss(wrapped(x[rows]), targets, masks, TASKS, divisors=divisors, scale=2)[0].backward()
    found = {"fixed": gradients(made)}
    bare = model()
    _, parts = multi_task_loss(bare(x[rows]), targets, masks, TASKS, divisors=divisors, scale=2)
    make_balancer("pcgrad", TASKS).backward(parts, bare)
    found["pcgrad"] = gradients(bare)
    if rank == 1:
        torch.save(found, f"{folder}/gradients.pt")
    dist.destroy_process_group()


def test_two_processes_are_one(tmp_path: Path) -> None:
    """With different numbers of labels on each, and as a plain sum and through gradient surgery."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    torch.multiprocessing.spawn(_one_of_two, args=(port, str(tmp_path)), nprocs=2)
    found = torch.load(tmp_path / "gradients.pt", weights_only=True)
    x, targets, masks = batch(7)
    for name, theirs in found.items():
        one = model()
        make_balancer(name, TASKS).backward(multi_task_loss(one(x), targets, masks, TASKS)[1], one)
        assert_same(gradients(one), theirs)


def test_model_and_loss_compile_without_a_break() -> None:
    tasks = TASKS[:3]
    made = pycls.attach_heads(lenet(), at="pool2", tasks=tasks)
    x, targets, masks = batch()

    def step(x: Tensor, targets: dict[str, Tensor], masks: dict[str, Tensor]) -> Tensor:
        return multi_task_loss(made(x), targets, masks, tasks)[0]

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    compiled(x, targets, masks).backward()
    ours = gradients(made)
    made.zero_grad()
    step(x, targets, masks).backward()
    assert_same(gradients(made), ours)
    masks["odd"] = torch.zeros_like(masks["odd"])  # static shapes: other labels missing, the same graph
    with torch.compiler.set_stance("fail_on_recompile"):
        torch.testing.assert_close(compiled(x, targets, masks), step(x, targets, masks))


# Balancing and decoupling ---------------------------------------------------------------------------------------------


def test_pcgrad_by_hand_and_by_loop(generator: torch.Generator) -> None:
    assert project([torch.tensor([1.0, 0]), torch.tensor([-1.0, 1])]).tolist() == pytest.approx([0.5, 1.5])  # [.5, .5] + [0, 1]
    g = [torch.randn(4, generator=generator) for _ in range(3)] + [torch.zeros(4)]
    made = project(g, torch.Generator().manual_seed(5))
    order, want = torch.Generator().manual_seed(5), np.zeros(4)
    for i in range(4):
        kept = g[i].double().numpy().copy()
        for j in torch.randperm(4, generator=order).tolist():
            other = g[j].double().numpy()
            if j != i and kept @ other < 0:
                kept -= kept @ other / (other @ other) * other
        want += kept
    assert made.tolist() == pytest.approx(want.tolist(), rel=1e-5)


@pytest.mark.parametrize("name", BALANCERS)
def test_a_balancer_knows_which_task_has_no_label(name: str) -> None:
    made, balancer = model(), make_balancer(name, TASKS)
    x, targets, masks = batch()
    masks["odd"] = torch.zeros_like(masks["odd"])
    before = balancer.weights()
    optimizer = torch.optim.SGD([*made.parameter_groups(0.01), *balancer.parameter_groups(0.1)], lr=0.01)
    for _ in range(2):
        optimizer.zero_grad()
        _, parts = multi_task_loss(made(x), targets, masks, TASKS)
        total = balancer.backward(parts, made)
        assert total.isfinite()
        assert not made.head("odd").weight.grad.any()
        assert made.head("digit").weight.grad.any()
        assert made.trunk.conv1.weight.grad.any()
        optimizer.step()
    after = balancer.weights()
    assert after["odd"] == pytest.approx(before["odd"])
    learns = name in ("uncertainty", "gradnorm")
    assert (after["digit"] != before["digit"]) == learns
    again = make_balancer(name, TASKS)
    again.load_state_dict(balancer.state_dict())
    assert again.weights() == after


def test_uncertainty_finds_its_optimum() -> None:
    tasks = TASKS[:1]
    balancer = Uncertainty([Task("digit", "multiclass", 10)])  # type: ignore[arg-type]
    optimizer = torch.optim.SGD(balancer.parameter_groups(0.2), lr=0.2)
    fixed = {"digit": Part(torch.tensor(3.0), torch.tensor(1.0), torch.tensor(3.0))}
    for _ in range(200):
        optimizer.zero_grad()
        balancer.total(fixed).backward()
        optimizer.step()
    assert balancer.weights()[tasks[0].name] == pytest.approx(1 / 6, rel=1e-3)


def test_gradnorm_against_its_definition() -> None:
    tasks = [Task("a", "multiclass", 4), Task("b", "binary"), Task("c", "binary")]  # type: ignore[arg-type]
    balancer = GradNorm(tasks, alpha=1.5, lr=0.1)
    assert [first_loss(t) for t in tasks] == pytest.approx([math.log(4), math.log(2), math.log(2)])
    assert GradNorm([replace(tasks[1], weight=100)]).start.item() == pytest.approx(100 * math.log(2))  # a loud task is not a slow one
    norms, losses = torch.tensor([4.0, 1.0, 7.0]), torch.tensor([1.0, 0.5, 0.0])
    log_w = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    scaled = log_w.exp() * norms[:2].double()
    speed = losses[:2].double() / torch.tensor([math.log(4), math.log(2)])
    target = (scaled.mean() * (speed / speed.mean()) ** 1.5).detach()
    ((scaled - target).abs().sum() / scaled.mean().detach()).backward()
    moved = (log_w.detach() - 0.1 * log_w.grad).exp()
    balancer.update(norms, losses, torch.tensor([True, True, False]))
    assert balancer.weight.tolist() == pytest.approx([*(moved * 2 / moved.sum()).tolist(), 1.0], rel=1e-5)


def test_two_stages(generator: torch.Generator) -> None:
    made = pycls.attach_heads(lenet(), at="ip1", tasks=TASKS[:1], branches=[Branch(("digit",), hidden=(20,))])
    x = torch.rand(30, 1, 28, 28, generator=generator)
    plain = copy.deepcopy(made.head("digit"))
    decoupling.normalize(made, "digit", tau=1.0)
    torch.testing.assert_close(made.head("digit").weight.norm(dim=1), torch.ones(10))
    decoupling.scale_only(made, "digit")
    assert [name for name, p in made.named_parameters() if p.requires_grad] == ["heads.digit.scale"]
    made.heads["digit"] = copy.deepcopy(plain)
    decoupling.retrain(made, "digit")
    assert not made.head("digit").weight.equal(plain.weight)
    assert {name for name, p in made.named_parameters() if p.requires_grad} == {"heads.digit.weight", "heads.digit.bias"}
    classes = torch.arange(30) % 9  # class 9 has no sample
    features = made.features(x)["digit"].detach()
    decoupling.nearest_means(made, "digit", features, classes)
    unit = nn.functional.normalize(features)
    means = torch.stack([unit[classes == c].mean(0) for c in range(9)])
    assert made(x)["digit"].argmax(1).equal(torch.cdist(unit, means).argmin(1))


# Caffe's idioms -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["face-attributes-one-task-empty", "multi-label", "multi-label-ignore-valid"])
def test_rewritten_nets_are_real_caffes(name: str) -> None:
    with np.load(CORPUS / f"nets/{name}.npz") as z:
        recorded = {key: z[key] for key in z.files}
    net = converters.load(CORPUS / f"nets/{name}.prototxt", CORPUS / f"nets/{name}.caffemodel", phase=str(recorded["phase"]))
    feed = {key[6:]: torch.from_numpy(value) for key, value in recorded.items() if key.startswith("input/")}
    found, made = pycls.tasks_of(net), pycls.model_of(net)
    x, targets, masks = found.batch(feed)
    total, _ = multi_task_loss(made(x), targets, masks, made.tasks)
    total.backward()
    assert total.item() == pytest.approx(float(recorded["loss"]), rel=1e-6)
    if "grad_output/prob" in recorded:
        return  # recorded with a gradient at another output as well
    for layer, tensors in net.params().items():
        for i, tensor in enumerate(tensors):
            if f"grad_param/{layer}/{i}" in recorded:
                torch.testing.assert_close(tensor.grad, torch.from_numpy(recorded[f"grad_param/{layer}/{i}"]), rtol=1e-5, atol=1e-6)


def layer(name: str, kind: str, bottoms: str, tops: str, rest: str = "") -> str:
    listed = "".join(f' bottom: "{b}"' for b in bottoms.split()) + "".join(f' top: "{t}"' for t in tops.split())
    return f'layer {{ name: "{name}" type: "{kind}"{listed} {rest} }}\n'


def fed(name: str, *dims: int) -> str:
    return layer(name, "Input", "", name, f"input_param {{ shape {{ {' '.join(f'dim: {d}' for d in dims)} }} }}")


def inner(name: str, bottom: str, outputs: int) -> str:
    filler = 'weight_filler { type: "gaussian" std: 0.3 }'
    return layer(name, "InnerProduct", bottom, name, f"param {{ lr_mult: 3 }} inner_product_param {{ num_output: {outputs} {filler} }}")


TWO_SETS = (
    fed("faces", 5, 7) + fed("identity", 5) + fed("portraits", 3, 7) + fed("attributes", 3, 4)
    + layer("join", "Concat", "faces portraits", "all", "concat_param { axis: 0 }") + inner("trunk", "all", 6)
    + layer("relu", "ReLU", "trunk", "trunk") + layer("cut", "Slice", "trunk", "t1 t2", "slice_param { axis: 0 slice_point: 5 }")
    + inner("who", "t1", 9) + layer("who_loss", "SoftmaxWithLoss", "who identity", "who_loss", "loss_param { ignore_label: -1 }")
    + inner("fc", "t2", 4) + layer("attribute_loss", "SigmoidCrossEntropyLoss", "fc attributes", "attribute_loss", "loss_weight: 0.02")
    + layer("far", "EuclideanLoss", "fc attributes", "far", "loss_weight: 0")
)  # fmt: skip
PAIRS = (
    fed("data", 5, 7) + fed("label", 5, 3) + inner("trunk", "data", 6) + inner("fc", "trunk", 6)
    + layer("pairs", "Reshape", "fc", "pairs", "reshape_param { shape { dim: 0 dim: 2 dim: 3 dim: -1 } }")
    + layer("loss", "SoftmaxWithLoss", "pairs label", "loss", "loss_param { ignore_label: -1 } loss_weight: 3")
)  # fmt: skip
EXPECTED = {
    "two sets": (TWO_SETS, {"who": ("multiclass", 1.0, "valid"), "attribute": ("multilabel", 0.02 * 8 / 3, "batch_size")}),
    "pairs": (PAIRS, {"pairs": ("multilabel", 3.0, "valid")}),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_idioms_become_tasks_of_the_same_loss(name: str, generator: torch.Generator) -> None:
    text, expected = EXPECTED[name]
    net = converters.load(parse_text(text), phase="TRAIN")
    feed = {blob: torch.randn(net.graph.blob_shapes[blob], generator=generator) for blob in net.graph.inputs}
    for blob in ("identity", "attributes", "label"):
        if blob in feed:
            low = 0 if blob == "attributes" else -1
            feed[blob] = torch.randint(low, 2, feed[blob].shape, generator=generator).float()
    net.objective(net.blobs(feed)).backward()
    want = {layer: [p.grad.clone() for p in ps] for layer, ps in net.params().items()}
    for tensors in net.params().values():
        for p in tensors:
            p.grad = None
    found, made = pycls.tasks_of(net), pycls.model_of(net)
    assert {t.name: (t.kind, pytest.approx(t.weight), t.normalization) for t in found.tasks} == expected
    assert describe(found)[0]["labels"] == found.readings[0].labels
    x, targets, masks = found.batch(feed)
    total, _ = multi_task_loss(made(x), targets, masks, made.tasks)
    total.backward()
    torch.testing.assert_close(total, net.objective(net.blobs(feed)))
    for layer_name, tensors in net.params().items():
        for p, gradient in zip(tensors, want[layer_name], strict=True):
            torch.testing.assert_close(p.grad, gradient, rtol=1e-5, atol=1e-6)
    assert {g["lr_mult"] for g in made.parameter_groups(0.1)} == {1.0, 3.0}


@pytest.mark.parametrize("name", ["multi_label", "multi_task"])
def test_shipped_examples_are_recognised(name: str) -> None:
    torch.manual_seed(0)
    net = converters.load(ROOT / f"prototxt/nets/{name}.prototxt", phase="TRAIN")
    found, made = pycls.tasks_of(net), pycls.model_of(net)
    kinds = {"multi_label": {"scores": 20}, "multi_task": {"gender": 2, "hat": 2, "mask": 2, "glasses": 3}}[name]
    if name == "multi_task":
        assert {t.name: t.outputs for t in found.tasks} == kinds
        assert [r.columns for r in found.readings] == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert found.others == ()
    assert sum(t.outputs for t in found.tasks) == sum(kinds.values())
    assert set(made(torch.rand(2, 3, 64, 64))) == {t.name for t in found.tasks}


def test_a_net_without_idioms_says_so() -> None:
    with pytest.raises(TaskError, match="loaded with phase TRAIN"):
        pycls.tasks_of(converters.load(CORPUS / "nets/lenet-deploy.prototxt"))


def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The examples of docs/heads.md, one after another."""
    (tmp_path / "prototxt").symlink_to(ROOT / "prototxt")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    torch.manual_seed(0)
    for text in re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/heads.md").read_text(), re.MULTILINE | re.DOTALL):
        exec(text, names)
    assert names["total"].isfinite()
    assert (tmp_path / "heads.onnx").stat().st_size > 1000
