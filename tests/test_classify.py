"""`decant classify` on real digits of a few pixels: exactness of steps, resume and processes; bundles; bad input; what inspect finds."""

from __future__ import annotations

import copy
import json
import math
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from conftest import ROOT

from prototxt import DecantError, TrainingError
from pycls.augment import Augment, Mix
from pycls.classify.bundle import Bundle, read_bundle, with_views, write_bundle
from pycls.classify.config import AugmentConfig, Config, EmaConfig, ImageConfig, read_config, write_config
from pycls.classify.decisions import decide, figures
from pycls.classify.drawing import drawing
from pycls.classify.engine import Trainer
from pycls.classify.feed import Key, Rows
from pycls.classify.images import load_image
from pycls.classify.inspection import inspect
from pycls.classify.model import Ema
from pycls.classify.report import write_report
from pycls.classify.run import fit, run_folder, start
from pycls.classify.second_stage import features_of
from pycls.classify.state import below, read_state, write_state
from pycls.classify.tables import Data, load_data
from pycls.classify.trained import trained
from pycls.distributed import World
from pycls.labels import LabelTable, read_label_file
from pycls.losses import loss_of
from pycls.losses.center import CenterLoss
from pycls.losses.contrastive import contrastive_of_batch
from pycls.losses.triplet import triplet_loss
from pycls.progress import Progress
from pycls.schedules import Plateau, cosine, one_cycle, scheduled

HEIGHT, WIDTH = 12, 10
NET = """name: "Small"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 1 dim: 12 dim: 10 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" convolution_param {
  num_output: 6 kernel_size: 3 weight_filler { type: "msra" } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool" pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
layer { name: "ip" type: "InnerProduct" bottom: "pool" top: "ip" inner_product_param { num_output: 24 weight_filler { type: "xavier" } } }
layer { name: "relu2" type: "ReLU" bottom: "ip" top: "ip" }
layer { name: "drop" type: "Dropout" bottom: "ip" top: "ip" dropout_param { dropout_ratio: 0.1 } }
"""
CONFIG = """name: small
seed: 3
data:
  train: {labels: train.tsv}
  val: {labels: val.tsv}
  test: {labels: test.tsv}
  image: {height: 12, width: 10, channels: 1, mean: [0.3], std: [0.4]}
  batch: 24
  workers: 0
model: {net: net.prototxt, at: ip}
train:
  epochs: 2
  log_every: 3
  optimizer: {lr: 0.1}
"""
HEADER = "#path\tdigit:class[10]\todd:binary\tshape:multi[loop,large]\tblock:group"
BRANCHES = "model.branches=[{tasks: [odd, shape], hidden: [7], lr_mult: 2, sampler: {name: class_balanced}}]"
SUMS = (
    "tasks={digit: {metric: {center: {weight: 0.05}, arcface: {weight: 0.1, scale: 8}}},"
    " odd: {metric: {cosface: {weight: 0.2, scale: 4}}}, shape: {}}"
)
PAIRS = "tasks.digit={metric: {triplet: {miner: semihard, weight: 0.4}, contrastive: {weight: 0.2}}}"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 480 real digits of 12 x 10 pixels, three label files with a third of the labels missing, a net and a config."""
    from sklearn.datasets import load_digits

    folder, rng = tmp_path_factory.mktemp("digits"), np.random.default_rng(5)
    data = load_digits()
    for split, rows in (("train", range(288)), ("val", range(288, 384)), ("test", range(384, 480))):
        lines = [HEADER]
        for i in rows:
            digit = int(data.target[i])
            cv2.imwrite(str(folder / f"{i}.png"), cv2.resize((data.images[i] * 15).astype(np.uint8), (WIDTH, HEIGHT)))
            words = [str(digit), str(digit % 2), str(int(digit in (0, 6, 8, 9))), str(int(digit >= 5))]
            gone = rng.random(4) < (0 if split == "test" else 0.35)
            words = ["NA" if g else w for g, w in zip(gone, words, strict=True)]
            lines.append(f"{i}.png\t{words[0]}\t{words[1]}\t{words[2]} {words[3]}\t{split}{i % 4}")
        (folder / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    (folder / "net.prototxt").write_text(NET)
    (folder / "small.yaml").write_text(CONFIG)
    return folder


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small nets are fastest on one thread; and no test leaves its seeds behind."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def configured(digits: Path, output: Path, *changes: str) -> Config:
    return read_config(digits / "small.yaml", [f"output={output}", *changes])


def trainer(digits: Path, output: Path, *changes: str, data: Data | None = None) -> Trainer:
    config = configured(digits, output, *changes)
    return Trainer(config, data or load_data(config), CPU)


def steps(made: Trainer, count: int) -> None:
    for _ in range(count):
        made.step()


def weights(made: Trainer) -> dict[str, torch.Tensor]:
    """What has been learned: the model, and what losses on features have."""
    return {name: tensor.clone() for name, tensor in (made.model.state_dict() | made.metric.state_dict()).items()}


def assert_near(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], atol: float = 0.0) -> None:
    assert a.keys() == b.keys()
    for name, tensor in a.items():
        torch.testing.assert_close(tensor, b[name], atol=atol, rtol=0, msg=lambda m, name=name: f"{name}: {m}")


# Config ---------------------------------------------------------------------------------------------------------------

BAD_CONFIGS = {
    "an unknown key": (CONFIG + "  epoch: 3\n", "small.yaml:15: unknown key 'train.epoch'; did you mean 'epochs'?"),
    "a value of another type": (CONFIG.replace("batch: 24", "batch: many"), "small.yaml:8: data.batch takes a whole number, not 'many'"),
    "a word that is none of those": (CONFIG + "  amp: bf61\n", "small.yaml:15: train.amp is 'bf61'; did you mean 'bf16'?"),
    "a key twice": (CONFIG + "seed: 4\n", "small.yaml:15: the key 'seed' stands here a second time"),
    "no YAML": ("data: [", "no YAML"),
    "a list": ("- a\n", "a config is `key: value`"),
    "no training list": (CONFIG.replace("  train: {labels: train.tsv}\n", ""), "data has `train`, one list, or `sources`, several"),
    "no net": (CONFIG.replace("net: net.prototxt, ", ""), "model.net is missing"),
    "nothing": ("", "lacks 'data'"),
    "a day that is none": (CONFIG.replace("name: small", "name: 2001-99-99"), "no YAML: month must be in 1..12"),
}


@pytest.mark.parametrize("name", BAD_CONFIGS)
def test_bad_configs_are_refused_with_the_line(name: str, tmp_path: Path) -> None:
    text, says = BAD_CONFIGS[name]
    (tmp_path / "small.yaml").write_text(text)
    with pytest.raises(DecantError) as caught:
        read_config(tmp_path / "small.yaml")
    assert says in str(caught.value)


def test_the_effective_config_reads_back_and_takes_changes(digits: Path, tmp_path: Path) -> None:
    config = configured(digits, tmp_path, "train.optimizer.lr=1e-3", "data.image.std=[0.5]", "train.amp=off")
    assert config.train.optimizer.lr == 0.001
    write_config(config, tmp_path / "config.yaml")
    again = read_config(tmp_path / "config.yaml")
    assert replace(again, folder="") == replace(config, folder="")
    assert again.find("net.prototxt").is_file()


@pytest.mark.parametrize(("change", "says"), [
    ("train.epocs=3", "did you mean 'epochs'?"), ("train", "is not key=value"), ("seed.x=1", "holds no further keys"),
    ("seed=-1", "at least 0"),
    ("name=2001-99-99", "the value is no YAML: month must be in 1..12"), ("train.stop.keep=0", "train.stop.keep is 0; it is at least 1"),
    ("train.log_every=0", "it is at least 1"), ("train.optimizer.lr=-1", "it is at least 0"), ("train.optimizer.lr=.nan", "is nan"),
    ("train.optimizer.momentum=-1", "it is at least 0"), ("train.optimizer={nesterov: true, momentum: 0}", "needs train.optimizer.momentum above 0"),
    ("train.ema.inv_gamma=0", "so it is above 0"), ("model.dropout=2", "it is at least 0 and at most 1"), ("augment.mixup=-1", "it is at least 0"),
    ("model.branches=[{tasks: [odd], hidden: [8, 0]}]", "model.branches.0.hidden is 0; it is at least 1"),
    ("tasks.digit.label_smoothing=7", "tasks.digit.label_smoothing is 7; it is at least 0 and at most 1"),
    ("train.schedule={policy: step, stepsize: 0}", "it is at least 1"), ("train.schedule={policy: sigmoid, gamma: -1}", "it is at least 0"),
])  # fmt: skip
def test_values_that_cannot_be_are_refused(change: str, says: str, digits: Path, tmp_path: Path) -> None:
    with pytest.raises(DecantError, match=re.escape(says)):
        configured(digits, tmp_path, change)


BAD_DATA: dict[str, tuple[list[str], str]] = {
    "a task that the list does not have": (["tasks.colour.weight=1"], "a task 'colour'"),
    "a kind that is another": (["tasks.odd.kind=multiclass"], "task 'odd' is multiclass in the config and binary in"),
    "classes that are others": (["tasks.shape.classes=[loop,small]"], "the config's 'small' is not in it"),
    "a blob that is not there": (["model.at=pol"], "did you mean 'pool'"),
    "a policy that is not": (["train.schedule.policy=cosin"], "did you mean 'cosine'?"),
    "a sampler that is not": (["train.sampler.name=overr"], "did you mean 'over'?"),
    "a branch's sampler that is not": (["model.branches=[{tasks: [odd], sampler: {name: overr}}]"], "did you mean 'over'?"),
    "a branch's task that is not": (["model.branches=[{tasks: [odds]}]"], "did you mean 'odd'?"),
    "a model that torchvision lacks": (["model.net=torchvision:resnet19"], "torchvision has no model 'resnet19'"),
    "a sampler's option that is not": (["train.sampler={name: over, options: {seed: 3}}"], "takes no options, and 'seed' is given"),
    "a rate that ends": (["train.schedule={policy: inv, gamma: -1, power: 0.5}"], "the rate is inf at step 1, by train.schedule.policy inv"),
    "a loss's option that is not": (["tasks.digit={loss: focal, options: {gama: 1}}"], "did you mean 'gamma'?"),
    "a loss's option that is a word": (["tasks.digit={loss: focal, options: {gamma: x}}"], "gamma takes a number, not 'x'"),
    "weights of other classes": (["tasks.digit.options.weight=[1, 2]"], "weight has 2 numbers, and the task 10 outputs"),
    "one weight for classes": (["tasks.digit.options.weight=2"], "weight takes a list of 10 numbers, not 2"),
    "a loss that has no options": (["tasks.shape={loss: margin, options: {x: 1}}"], "takes no options, and 'x' is given"),
    "a loss that has no weights": (["tasks.shape={loss: margin, class_weights: inverse}"], "has no pos_weight; it goes with bce, focal"),
    "a monitor that is not": (["train.stop.monitor=digit/acuracy"], "did you mean 'digit/accuracy'?"),
}


@pytest.mark.parametrize("name", BAD_DATA)
def test_configs_that_disagree_with_the_data_are_refused(name: str, digits: Path, tmp_path: Path) -> None:
    changes, says = BAD_DATA[name]
    with pytest.raises(DecantError) as caught:
        fit(start(configured(digits, tmp_path, *changes, "train.epochs=1"), CPU, World()), Progress(quiet=True))
    assert says in str(caught.value)


# Schedules, EMA, augmentation -----------------------------------------------------------------------------------------


def test_schedules_are_torchs() -> None:
    def optimizer() -> torch.optim.Optimizer:
        return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)

    s = SimpleNamespace(base_lr=0.3, max_iter=37, floor=0.01, peak=0.3, warmup=0)
    for ours, theirs in (
        (cosine, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer(), 37, 0.01)),
        (one_cycle, torch.optim.lr_scheduler.OneCycleLR(optimizer(), 0.3, total_steps=37)),
    ):
        for iteration in range(36):
            assert ours(iteration, s) == pytest.approx(theirs.get_last_lr()[0], abs=1e-12)
            theirs.optimizer.step()
            theirs.step()
    plateau, theirs_ = Plateau(0.1, 2, 0.01, rising=True), torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer(), "max", 0.1, 2, 0.01, "abs")
    for value in (0.1, 0.2, 0.2, 0.205, 0.1, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.9):
        plateau.observe(value)
        theirs_.step(value)
        assert 0.3 * plateau.factor == pytest.approx(theirs_.get_last_lr()[0])
    assert [scheduled("fixed", i, SimpleNamespace(base_lr=1.0, warmup=4)) for i in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]


def test_the_mean_of_weights_warms_up() -> None:
    model = torch.nn.Linear(2, 3, bias=False)
    ema = Ema.of(EmaConfig(decay=0.9, inv_gamma=1, power=1.0), model)
    wanted = model.weight.detach().clone()
    for step in range(30):
        with torch.no_grad():
            model.weight += step
        decay = min(0.9, 1 - 1 / (1 + step))
        wanted = decay * wanted + (1 - decay) * model.weight.detach()
        ema.update(model)
    torch.testing.assert_close(ema.mean["weight"], wanted, rtol=1e-5, atol=1e-5)


ALL = AugmentConfig(rotation=20, perspective=0.3, translation=0.1, zoom=0.2, noise=10, blur=1, occlusion=0.4, brightness=0.3, contrast=0.3, crop=0.2)


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_augmentation_takes_any_channels_and_draws_by_its_seed(channels: int) -> None:
    image = torch.randint(0, 256, (channels, 13, 17), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    augment, before = Augment(ALL, channels), torch.get_rng_state()
    a, b, c = augment(image, 7), augment(image, 7), augment(image, 8)
    assert torch.equal(torch.get_rng_state(), before)
    assert (a.shape, a.dtype) == (image.shape, torch.uint8)
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    for name in ("rotation", "perspective", "translation", "zoom", "noise", "blur", "occlusion", "brightness", "contrast", "crop"):
        only = Augment(AugmentConfig(**{name: getattr(ALL, name)}), channels)
        assert any(not torch.equal(only(image, seed), image) for seed in range(4)), name
    if channels != 3:
        with pytest.raises(DecantError, match="RGB"):
            Augment(AugmentConfig(hue=0.1), channels)


def test_only_rows_of_rare_classes_change(digits: Path, tmp_path: Path) -> None:
    made = trainer(digits, tmp_path, "augment.noise=50", "augment.minority_only=true", "augment.minority=0.9")
    table = made.data.train
    (batch,) = [made.rows.__getitems__([Key(i, 0, i) for i in range(len(table))])]
    plain = Rows(table, made.config.data.image, made.tasks).__getitems__([Key(i, 0, i) for i in range(len(table))])
    changed = (batch.images != plain.images).flatten(1).any(1).numpy()
    assert made.rows.rare is not None
    assert 0 < made.rows.rare.sum() < len(table)
    assert not changed[~made.rows.rare].any()
    assert changed[made.rows.rare].mean() > 0.95  # the noise of a draw may be too little for a byte to change


def test_mixing_is_what_its_shares_say() -> None:
    torch.manual_seed(0)
    images = torch.rand(6, 2, 9, 11)
    for kind in ("mixup", "cutmix"):
        mixture = Mix(kind, 1.0)(images.shape)
        mixed = mixture.images(images)
        if kind == "mixup":
            torch.testing.assert_close(mixed, mixture.share * images + (1 - mixture.share) * images[mixture.other])
        else:
            own = (mixed == images).all(1)
            assert torch.equal(own | (mixed == images[mixture.other]).all(1), torch.ones_like(own))
            moved = mixture.other != torch.arange(6)
            assert own[moved].float().mean() == pytest.approx(mixture.share, abs=1e-6)


# Steps ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [[], [BRANCHES, SUMS]], ids=["plain", "branches and losses on features"])
def test_accumulated_batches_are_one_batch(changes: list[str], digits: Path, tmp_path: Path) -> None:
    """Also where the labels are spread unevenly; dropout off, since it draws by the batch."""
    made = []
    for batch, times in ((48, 1), (8, 6)):
        one = trainer(digits, tmp_path, *changes, f"data.batch={batch}", f"train.accumulate={times}", "train.optimizer.momentum=0.5")
        one.model.trunk.get_submodule("drop").p = 0.0  # type: ignore[assignment]
        for _ in range(3):
            one.step()
        made.append(weights(one))
    assert_near(*made, atol=1e-6)


def test_a_branch_with_a_sampler_learns_from_its_own_rows_alone(digits: Path, tmp_path: Path) -> None:
    """A step by hand: `digit` from the main rows, `odd` and `shape` from those that their branch draws; and a resumed run draws on."""
    one = trainer(digits, tmp_path, BRANCHES, "train.optimizer.momentum=0", "train.optimizer.weight_decay=0", "train.schedule.policy=fixed")
    one.model.trunk.get_submodule("drop").p = 0.0  # type: ignore[assignment]
    twin = copy.deepcopy(one.model)
    rows = [torch.from_numpy(np.asarray(stream.draw(0)[:24])) for stream in one.streams]
    (digit, odd, shape), (targets, masks) = one.tasks, (one.rows.targets, one.rows.masks)
    own = one.streams[1].draw(3)
    assert [len(stream.draw(3)) for stream in one.streams] == [288, 288]
    assert masks["odd"][own].all()  # drawn by class, so no row without the label
    assert targets["odd"][own].mean() == pytest.approx(0.5, abs=0.1)
    one.step()
    outputs = [twin(one.prepare(torch.stack([one.rows.load(int(row)) for row in part]))) for part in rows]
    loss = torch.zeros(())
    for task, number in ((digit, 0), (odd, 1), (shape, 1)):
        loss = loss + loss_of(task)(outputs[number][task.name], targets[task.name][rows[number]], masks[task.name][rows[number]])
    loss.backward()
    learned = dict(one.model.named_parameters())
    for name, parameter in twin.named_parameters():
        rate = 0.2 if name.startswith(("necks.0", "heads.odd", "heads.shape")) else 0.1
        assert parameter.grad is not None
        torch.testing.assert_close(learned[name], parameter - rate * parameter.grad, atol=1e-6, rtol=0, msg=name)
    one.save(tmp_path / "one.safetensors")
    other = trainer(digits, tmp_path, BRANCHES, "train.optimizer.momentum=0", "train.optimizer.weight_decay=0", "train.schedule.policy=fixed")
    other.restore(tmp_path / "one.safetensors")
    other.model.trunk.get_submodule("drop").p = 0.0  # type: ignore[assignment]
    for _ in range(13):  # into the next epoch
        for made in (one, other):
            made.at.epoch, made.at.batch = (made.at.epoch + 1, 0) if made.at.batch == made.batches_per_epoch else (made.at.epoch, made.at.batch)
            made.step()
    assert one.at.epoch == 1
    assert_near(weights(one), weights(other))


@pytest.mark.parametrize("change", [SUMS, PAIRS], ids=["sums", "pairs"])
def test_losses_on_features_are_those_of_the_library(change: str, digits: Path, tmp_path: Path) -> None:
    """Three steps by hand, the centers too, rows without the label in them; and a checkpoint holds all of it."""
    one = trainer(digits, tmp_path, change, "train.optimizer.momentum=0", "train.optimizer.weight_decay=0", "train.schedule.policy=fixed")
    twin, extra = copy.deepcopy(one.model).eval(), copy.deepcopy(one.metric)
    one.model.trunk.get_submodule("drop").p = 0.0  # type: ignore[assignment]
    center = CenterLoss(10, 24)
    for step in range(3):
        rows = torch.from_numpy(np.asarray(one.draw(0)[step * 24 : step * 24 + 24]))
        one.step()
        features = twin.features(one.prepare(torch.stack([one.rows.load(int(row)) for row in rows])))
        labels = {name: (one.rows.targets[name][rows], one.rows.masks[name][rows]) for name in twin.keys}
        loss = torch.stack([loss_of(t)(twin.logits(features)[t.name], *labels[t.name]) for t in twin.tasks]).sum()
        known = labels["digit"][1]
        x, y = features["digit"][known], labels["digit"][0][known]
        assert 10 < len(x) < 24
        if change == PAIRS:
            loss = loss + 0.4 * triplet_loss(x, y, miner="semihard") + 0.2 * contrastive_of_batch(x, y)
        else:
            apart = x - center.centers[y]
            loss = loss + 0.05 * apart.square().sum() / 2 / len(x) + 0.1 * extra.losses["digit_arcface"](x, y)
            odd, here = labels["odd"]
            loss = loss + 0.2 * extra.losses["odd_cosface"](features["odd"][here], odd[here].long())
            for c in range(10):
                mine = apart[y == c].detach()
                center.centers[c] += 0.5 * mine.sum(0) / (1 + len(mine))
        learned = [*twin.parameters(), *extra.parameters()]
        for parameter, gradient in zip(learned, torch.autograd.grad(loss, learned), strict=True):
            parameter.data -= 0.1 * gradient
    made = weights(one)
    wanted = twin.state_dict() | extra.state_dict()
    if change == SUMS:
        wanted["losses.digit_center.centers"] = center.centers
        assert center.centers.abs().sum() > 1
        assert set(one.meter.read()["metric"]) == {"digit.center", "digit.arcface", "odd.cosface"}
    assert_near(made, wanted, atol=2e-6)
    one.save(tmp_path / "one.safetensors")
    other = trainer(digits, tmp_path, change)
    other.restore(tmp_path / "one.safetensors")
    assert_near(weights(other), made)


BAD_METRICS: dict[str, tuple[list[str], str]] = {
    "a task of several labels": (["tasks.shape.metric.center.alpha=0.5"], "needs one class a row, and the task is of kind multilabel"),
    "an option that is not": (["tasks.digit.metric.center.alhpa=0.5"], "did you mean 'alpha'?"),
    "mixed images": (["tasks.digit.metric.center.alpha=0.5", "augment.mixup=0.3"], "do not go with augment.mixup"),
}


@pytest.mark.parametrize("name", BAD_METRICS)
def test_losses_on_features_that_do_not_fit_are_refused(name: str, digits: Path, tmp_path: Path) -> None:
    changes, says = BAD_METRICS[name]
    with pytest.raises(DecantError) as caught:
        trainer(digits, tmp_path, *changes)
    assert says in str(caught.value)


def test_what_stands_in_a_missing_label_does_not_matter(digits: Path, tmp_path: Path) -> None:
    config = configured(digits, tmp_path, "augment.mixup=0.4")
    data = load_data(config)
    strange = {"digit": 255, "odd": np.nan, "shape": -1e30}
    table = data.train
    values = {name: np.where(table.present[name], v, np.asarray(strange[name], v.dtype)) for name, v in table.values.items()}
    made = []
    for rows in (table, replace(table, values=values)):
        one = Trainer(config, replace(data, train=rows), CPU)
        for _ in range(4):
            one.step()
        made.append(weights(one))
    assert_near(*made)


def test_a_head_without_a_label_does_not_move(digits: Path, tmp_path: Path) -> None:
    one = trainer(digits, tmp_path, "data.batch=8")
    one.rows.masks["odd"][:] = False
    before = weights(one)
    one.step()
    after = weights(one)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert not any(name.startswith("heads.odd") for name in moved)
    assert any(name.startswith("heads.digit") for name in moved)


@pytest.mark.parametrize("change", ["model.start_at_prior=true", "train.task_weighting=uncertainty", "train.task_weighting=pcgrad", "train.amp=bf16"])
def test_options_of_a_step_run(change: str, digits: Path, tmp_path: Path) -> None:
    adam = ["train.optimizer.name=adamw", "train.optimizer.lr=0.003", "train.optimizer.clip=1"]
    one = trainer(digits, tmp_path, change, *adam, "model.frozen_epochs=1")
    before = weights(one)
    one.step()
    trunk = {name for name, tensor in weights(one).items() if name.startswith("trunk.") and not torch.equal(tensor, before[name])}
    assert not trunk  # frozen in the first epoch
    one.at.epoch = 1
    losses = []
    for _ in range(8):
        one.step()
        losses.append(one.meter.read()["loss"])
    assert losses[-1] < losses[0]
    if change.startswith("model"):  # the first loss is about the entropy of the labels
        fresh = trainer(digits, tmp_path, change, "data.batch=288")
        with torch.no_grad():
            for head in fresh.model.heads.values():
                head.weight.zero_()
        fresh.step()
        counts = np.bincount(fresh.data.train.values["digit"][fresh.data.train.present["digit"]])
        share = counts / counts.sum()
        assert fresh.meter.read()["losses"]["digit"] == pytest.approx(-(share * np.log(share)).sum(), abs=1e-4)


def test_a_loss_that_is_no_number_stops_with_its_task_and_step(digits: Path, tmp_path: Path) -> None:
    one = trainer(digits, tmp_path)
    one.step()
    with torch.no_grad():
        one.model.head("odd").bias.fill_(float("nan"))  # type: ignore[operator, union-attr]
    with pytest.raises(TrainingError, match=r"the loss of task 'odd' is nan at step 1"):
        one.step()


def test_steps_that_fp16_leaves_out_are_counted_and_end(digits: Path, tmp_path: Path) -> None:
    one = trainer(digits, tmp_path, "train.amp=fp16", "train.optimizer.lr=1e30", "data.batch=8")
    with pytest.raises(TrainingError, match=r"the loss of task 'digit' is nan at step 20;"):
        steps(one, 30)
    assert one.meter.left_out == 20


def test_sources_share_batches_as_told(digits: Path, tmp_path: Path) -> None:
    lines = (digits / "train.tsv").read_text().splitlines()
    few = ["#path\todd:binary", *("\t".join([row.split("\t")[0], "1"]) for row in lines[1:31])]
    (digits / "few.tsv").write_text("\n".join(few) + "\n")
    text = CONFIG.replace("train: {labels: train.tsv}", "sources: [{name: a, labels: train.tsv, share: 0.7}, {name: b, labels: few.tsv, share: 0.3}]")
    (digits / "mixed.yaml").write_text(text)
    config = read_config(digits / "mixed.yaml", ["data.mixing=shares", "data.batch=16", f"output={tmp_path}"])
    data = load_data(config)
    assert not data.train.present["digit"][data.train.notes["source"] == "b"].any()
    ids = drawing(config, data)(0)
    shares = (data.train.notes["source"][ids] == "b").reshape(-1, 16).mean(1)
    assert shares.mean() == pytest.approx(0.3, abs=0.01)
    assert shares.max() - shares.min() <= 1 / 16 + 1e-9
    assert not np.array_equal(ids, drawing(config, data)(1))
    np.testing.assert_array_equal(ids, drawing(config, data)(0))
    made = Trainer(config, data, CPU)
    made.step()
    assert made.meter.read()["labels"]["odd"] > 0


# Runs -----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that has ended, with its bundle."""
    torch.set_num_threads(1)
    config = configured(
        digits,
        tmp_path_factory.mktemp("runs"),
        "train.epochs=12",
        "train.optimizer.lr=0.04",
        "train.ema.decay=0.9",
        "train.stop.keep=2",
        "data.cache=true",
    )
    assert fit(start(config, CPU, World()), Progress(quiet=True))
    folder = run_folder(config)
    made = trained(folder)
    write_bundle(made, decide(config, made.predictions("val")), folder / "bundle")
    return folder


def test_a_run_learns_and_keeps_its_best(finished: Path) -> None:
    made = trained(finished)
    found = figures(made.predictions("test"))
    assert found["tasks"]["digit"]["metrics"]["accuracy"] > 0.6  # of 10 classes, from 190 labels
    assert len(list(finished.glob("best-*.safetensors"))) == 2
    records = [json.loads(line) for line in (finished / "log.jsonl").read_text().splitlines()]
    scores = {r["epoch"]: r["score"] for r in records if r["kind"] == "test"}
    assert len(scores) == 12
    assert made.facts["epoch"] == max(scores, key=lambda epoch: scores[epoch])


def test_a_bundle_needs_nothing_else(finished: Path, digits: Path, tmp_path: Path) -> None:
    shutil.copytree(finished / "bundle", tmp_path / "bundle")
    bundle: Bundle = read_bundle(tmp_path / "bundle")
    predictions = trained(finished).predictions("test")
    answers = bundle.predict(predictions.table.paths, batch=7)
    for task in bundle.tasks:
        np.testing.assert_allclose(answers.logits[task.name], predictions.logits[task.name], atol=1e-5)
    table = answers.table()
    right = (table.values["digit"] == predictions.targets["digit"]).mean()
    assert right == pytest.approx(figures(predictions)["tasks"]["digit"]["metrics"]["accuracy"])
    rows = answers.rows()
    assert set(rows[0]) == {"path", "digit", "odd", "shape"}
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(DecantError, match=r"broken\.png"):
        bundle.predict([str(tmp_path / "broken.png")])
    assert len(bundle.predict([str(tmp_path / "broken.png"), predictions.table.paths[0]], on_error="skip").broken) == 1


def test_a_bundle_joins_the_views_of_its_run(finished: Path, tmp_path: Path) -> None:
    """As the trainer's evaluation does, on which the thresholds are fitted; and others on demand."""
    made = trained(finished, ["tta.views=[flip,vertical_flip]", "tta.join=max"])
    wanted, decisions = made.predictions("test"), decide(made.config, made.predictions("val"))
    write_bundle(made, decisions, tmp_path / "bundle")
    bundle = read_bundle(tmp_path / "bundle")
    plain = with_views(bundle, "none").predict(wanted.table.paths).logits
    for task in bundle.tasks:
        np.testing.assert_allclose(bundle.predict(wanted.table.paths).logits[task.name], wanted.logits[task.name], atol=1e-5)
        assert abs(plain[task.name] - wanted.logits[task.name]).max() > 0.1
        assert (plain[task.name] <= wanted.logits[task.name] + 1e-5).all()
    for views, says in (("flip,vertical", "did you mean 'vertical_flip'?"), ("rotate", "rotate needs square images")):
        with pytest.raises(DecantError, match=re.escape(says)):
            with_views(bundle, views).predict(wanted.table.paths[:1])


def test_a_second_stage_starts_from_the_first(finished: Path, digits: Path, tmp_path: Path) -> None:
    """cRT: the trunk of a run, frozen; a new head, balanced."""
    (best, *_) = sorted(finished.glob("best-*.safetensors"))
    two = ["model.frozen_epochs=99", "train.sampler.name=class_balanced", "train.sampler.task=digit"]
    made = trainer(digits, tmp_path, f"model.start={best}", "model.start_heads=false", *two)
    for _ in range(3):
        made.step()
    first, second = below(read_state(best)[0], "model"), weights(made)
    assert all(torch.equal(second[name], first[name]) for name in first if name.startswith("trunk."))
    assert not torch.equal(second["heads.digit.weight"], first["heads.digit.weight"])
    with pytest.raises(TrainingError, match="of another net"):
        trainer(digits, tmp_path, f"model.start={best}", "data.image.height=16")


@pytest.mark.parametrize("method", ["crt", "lws"])
def test_a_second_stage_trains_the_head_alone(method: str, finished: Path, digits: Path, tmp_path: Path) -> None:
    (best, *_) = sorted(finished.glob("best-*.safetensors"))
    changes = [f"model.start={best}", f"model.second_stage.method={method}", "tasks.digit.weight=1"]
    made = trainer(digits, tmp_path, *changes)
    before = weights(made)
    for _ in range(3):
        made.step()
    moved = {name for name, tensor in weights(made).items() if not torch.equal(tensor, before[name])}
    assert moved == ({"heads.digit.weight", "heads.digit.bias"} if method == "crt" else {"heads.digit.scale"})
    first = below(read_state(best)[0], "model")
    kept = ("heads.digit.linear.weight", "heads.digit.weight") if method == "lws" else ("trunk.ip.weight", "trunk.ip.weight")
    assert torch.equal(before[kept[0]], first[kept[1]])


@pytest.mark.filterwarnings("ignore:self.within_class_std_dev_ has")  # of a feature that is never on, which scikit-learn scales by
@pytest.mark.parametrize("method", ["tau", "ncm"])
def test_a_second_stage_without_training_is_fitted(method: str, finished: Path, digits: Path, tmp_path: Path) -> None:
    """tau against every tau put into the model; ncm against scikit-learn; and the run folder and its bundle are whole."""
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.neighbors import NearestCentroid

    (best, *_) = sorted(finished.glob("best-*.safetensors"))
    config = configured(digits, tmp_path, f"model.start={best}", f"model.second_stage.method={method}")
    first = Trainer(config, load_data(config), CPU)
    features = {s: features_of(first, Rows(first.data.split(s), config.data.image, first.tasks), "digit") for s in ("train", "val")}
    assert fit(start(config, CPU, World()), Progress(quiet=True))
    made = trained(run_folder(config))
    told = made.predictions("val")
    known = told.masks["digit"]
    answers = told.logits["digit"][known].argmax(1)
    unit = {split: torch.nn.functional.normalize(x).numpy() for split, (x, _) in features.items()}
    if method == "ncm":
        theirs = NearestCentroid().fit(unit["train"], features["train"][1].numpy())
        np.testing.assert_array_equal(answers, theirs.predict(unit["val"]))
    else:
        weight = below(read_state(best)[0], "model")["heads.digit.weight"]
        x, classes = features["val"]
        found = [balanced_accuracy_score(classes, (x @ (weight / weight.norm(dim=1, keepdim=True) ** tau).T).argmax(1)) for tau in np.arange(41) / 20]
        assert balanced_accuracy_score(classes, answers) == pytest.approx(max(found))
        assert max(found) > min(found)
    assert write_bundle(made, decide(config, told), tmp_path / "bundle")["digit"] < 1e-4
    assert fit(start(config, CPU, World(), resume=True), Progress(quiet=True))  # it is done, and says so
    with pytest.raises(DecantError, match="goes on from the heads"):
        configured(digits, tmp_path, f"model.second_stage.method={method}")


def test_decisions_are_fitted_on_the_validation_list(finished: Path) -> None:
    from torchmetrics.functional.classification import binary_f1_score

    made = trained(finished)
    validation = made.predictions("val")
    decisions = decide(made.config, validation)
    before, after = figures(validation)["tasks"], figures(validation, decisions)["tasks"]
    for task in ("digit", "odd", "shape"):
        assert after[task]["metrics"]["NLL"] <= before[task]["metrics"]["NLL"] + 1e-9
    assert after["digit"]["metrics"]["accuracy"] == before["digit"]["metrics"]["accuracy"]
    logits = torch.from_numpy(validation.logits["odd"][:, 0]).double() / decisions["odd"].temperature
    kept = torch.from_numpy(validation.masks["odd"])
    labels = torch.from_numpy(validation.targets["odd"])[kept].long()
    theirs = [float(binary_f1_score(logits.sigmoid()[kept], labels, threshold=t)) for t in np.linspace(0.01, 0.99, 99)]
    assert after["odd"]["metrics"]["f1"] >= max(theirs) - 1e-6


def test_a_report_says_what_scikit_learn_says(finished: Path, tmp_path: Path) -> None:
    from sklearn.metrics import confusion_matrix, f1_score

    made = trained(finished)
    predictions = made.predictions("test")
    page, facts = write_report(made, predictions, decide(made.config, made.predictions("val")), "test", tmp_path / "report.html")
    found, odd = (json.loads(facts.read_text())["tasks"][name] for name in ("digit", "odd"))
    labels, answers = predictions.targets["digit"], predictions.logits["digit"].argmax(1)
    assert found["confusion"] == confusion_matrix(labels, answers, labels=range(10)).tolist()
    assert found["metrics"]["macro_f1_seen"] == pytest.approx(f1_score(labels, answers, average="macro"))
    assert all(row["cost"] == pytest.approx(-math.log(row["confidence"] if row["right"] else 1 - row["confidence"])) for row in odd["worst"])
    text = page.read_text()
    assert "http" not in text.replace("http://www.w3.org", "")
    assert text.count("<img ") >= 12
    assert "By block" in text


@pytest.mark.parametrize("changes", [[], [BRANCHES, SUMS]], ids=["plain", "branches and losses on features"])
def test_two_processes_are_one(changes: list[str], digits: Path, tmp_path: Path) -> None:
    """Weights after some steps with labels spread unevenly, and the figures of an odd number of rows, by gloo."""
    script = tmp_path / "two.py"
    script.write_text(
        "import sys, torch; from pathlib import Path; torch.set_num_threads(1)\n"
        "from pycls.classify.config import read_config; from pycls.classify.engine import Trainer\n"
        "from pycls.classify.tables import load_data; from pycls.distributed import join, leave\n"
        "world, place = join('cpu'); config = read_config(sys.argv[1], sys.argv[3:])\n"
        "one = Trainer(config, load_data(config), torch.device(place), world)\n"
        "one.model.trunk.get_submodule('drop').p = 0.0\n"
        "for _ in range(4): one.step()\n"
        "logits = one.evaluate(one.val).logits['digit']\n"
        "world.main and torch.save({**one.model.state_dict(), **one.metric.state_dict(), 'logits': torch.from_numpy(logits)}, sys.argv[2]); leave()\n"
    )
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(20000 + os.getpid() % 20000)}
    command = [sys.executable, str(script), str(digits / "small.yaml"), str(tmp_path / "two.pt"), f"output={tmp_path}", *changes, "data.batch=12"]
    running = [subprocess.Popen(command, env=env | {"WORLD_SIZE": "2", "RANK": str(r), "LOCAL_RANK": str(r)}) for r in range(2)]
    assert [process.wait(120) for process in running] == [0, 0]
    one = trainer(digits, tmp_path, *changes, "data.batch=24")
    one.model.trunk.get_submodule("drop").p = 0.0  # type: ignore[assignment]
    for _ in range(4):
        one.step()
    assert one.val is not None
    alone = weights(one) | {"logits": torch.from_numpy(one.evaluate(one.val).logits["digit"])}
    assert_near(alone, torch.load(tmp_path / "two.pt", weights_only=True), atol=1e-5)


def _interrupted(command: list[str], env: dict[str, str], at: str, by: signal.Signals) -> int:
    """Run until a line holds `at`, then send the signal; the exit status."""
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        next(line for line in process.stdout if at in line)
        process.send_signal(by)
        process.stdout.read()
    return process.returncode


def test_a_killed_run_goes_on_bit_for_bit(digits: Path, tmp_path: Path) -> None:
    """Augmentation, mixing, dropout, a mean of weights, worker processes; killed between two checkpoints, and stopped by SIGTERM."""
    changes = ["train.epochs=2", "train.ema.decay=0.9", "augment.rotation=10", "augment.mixup=0.3", "data.workers=1", "train.checkpoint_every=2"]
    whole = start(configured(digits, tmp_path / "whole", *changes), CPU, World())
    assert fit(whole, Progress(quiet=True))
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "cli.py"), "classify", "train", str(digits / "small.yaml"), f"output={tmp_path / 'cut'}", *changes]
    last = tmp_path / "cut/small/last.safetensors"
    assert _interrupted([*command, "train.log_every=1"], env, "step 5:", signal.SIGKILL) == -signal.SIGKILL
    steps = [read_state(last)[1]["position"]["iteration"]]
    resumed = _interrupted([*command, "--resume", "train.log_every=1"], env, f"step {steps[0] + 3}:", signal.SIGTERM)
    assert resumed == 1  # it saved, and said so
    steps.append(read_state(last)[1]["position"]["iteration"])
    assert 0 < steps[0] < steps[1] < whole.at.iteration
    rest = start(configured(digits, tmp_path / "cut", *changes), CPU, World(), resume=True)
    assert fit(rest, Progress(quiet=True))
    tensors = [read_state(folder / "last.safetensors")[0] for folder in (tmp_path / "whole/small", tmp_path / "cut/small")]
    assert_near(*tensors)
    assert len(below(tensors[0], "ema"))


def test_an_undefined_figure_is_no_improvement(digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = iter([None, 0.6, None, float("nan"), 0.9])
    monkeypatch.setattr("pycls.classify.run.monitored", lambda monitor, made: next(told))
    one = start(configured(digits, tmp_path, "data.batch=288", "train.epochs=5"), CPU, World())
    assert fit(one, Progress(quiet=True))
    assert (one.at.best, one.at.waited) == ([(0.9, "best-005.safetensors")], 0)


def test_checkpoints_of_others_are_refused(digits: Path, tmp_path: Path) -> None:
    one = trainer(digits, tmp_path)
    (tmp_path / "x.safetensors").write_bytes(b"none")
    with pytest.raises(TrainingError, match="is no checkpoint"):
        one.restore(tmp_path / "x.safetensors")
    one.save(tmp_path / "one.safetensors")
    write_state(tmp_path / "best.safetensors", one.weights(), {"epoch": 1})
    with pytest.raises(TrainingError, match=r"a run goes on from its last\.safetensors"):
        one.restore(tmp_path / "best.safetensors")
    for before, after, says in (
        ([], "model.at=pool", "not of this config"),
        ([], "train.ema.decay=0.9", "a run without a mean of the weights"),
        (["train.ema.decay=0.9"], "train.ema.decay=0", "a run with a mean of the weights"),
        (["train.optimizer.name=adam"], "train.optimizer.name=sgd", "train.optimizer.name=adam, and this config has sgd"),
        ([], "train.optimizer.decay_all=true", "the optimizer's .* is of another parameter"),
    ):
        first = trainer(digits, tmp_path, *before)
        first.step()
        first.save(tmp_path / "one.safetensors")
        with pytest.raises(TrainingError, match=says):
            trainer(digits, tmp_path, *before, after).restore(tmp_path / "one.safetensors")
    (tmp_path / "small").mkdir()
    (tmp_path / "small/last.safetensors").touch()
    with pytest.raises(TrainingError, match="holds a run already"):
        start(configured(digits, tmp_path), CPU, World())


# Bad images, and what inspect finds -----------------------------------------------------------------------------------


@pytest.fixture
def damaged(digits: Path, tmp_path: Path) -> Path:
    """A copy whose third training image does not decode."""
    folder = tmp_path / "damaged"
    shutil.copytree(digits, folder)
    (folder / "2.png").write_bytes((folder / "2.png").read_bytes()[:40])
    return folder


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_image_stops_with_its_line(workers: int, damaged: Path, tmp_path: Path) -> None:
    one = trainer(damaged, tmp_path, f"data.workers={workers}", "data.batch=288")
    with pytest.raises(DecantError, match=r"train\.tsv:4: .*2\.png") as caught:
        one.step()
    assert "Traceback" not in str(caught.value)


def test_a_broken_image_is_left_out_and_counted(damaged: Path, tmp_path: Path) -> None:
    for cache in ("true", "false"):
        one = trainer(damaged, tmp_path, "data.on_error=skip", f"data.cache={cache}")
        for _ in range(one.steps_per_epoch):
            one.step()
        assert (one.meter.skipped, one.meter.images) == (1, 287)
        assert "train.tsv:4" in one.meter.problems[0]


def test_a_task_that_is_all_na_is_refused(digits: Path, tmp_path: Path) -> None:
    folder = tmp_path / "all_na"
    shutil.copytree(digits, folder)
    lines = (folder / "train.tsv").read_text().splitlines()
    rows = [row.split("\t") for row in lines[1:]]
    (folder / "train.tsv").write_text("\n".join([lines[0], *("\t".join([*row[:2], "NA", *row[3:]]) for row in rows)]) + "\n")
    with pytest.raises(DecantError, match=r"every row is NA for task 'odd'"):
        trainer(folder, tmp_path)


def tables(folder: Path) -> dict[str, LabelTable]:
    from pycls.labels import rooted

    return {name: rooted(read_label_file(folder / f"{name}.tsv"), folder) for name in ("train", "test")}


def test_clean_lists_pass(digits: Path) -> None:
    made = inspect(tables(digits))
    assert made, made.findings
    assert made.splits["train"]["rows"] == 288
    assert sum(made.splits["train"]["tasks"]["digit"]["counts"].values()) == made.splits["train"]["tasks"]["digit"]["labels"]


FAULTS: dict[str, tuple[str, list[Any], str]] = {
    "a broken image": ("train", ["truncate", "2.png"], "train.tsv:4: "),
    "a missing image": ("train", ["remove", "7.png"], "7.png: no such file"),
    "an image in both": ("test", ["append", "5.png\t5\t1\t0 1\tz"], "named in train and in test"),
    "its copy in both": ("test", ["copy", "5.png", "copy.png", "copy.png\t5\t1\t0 1\tz"], "byte for byte"),
    "a row twice": ("train", ["append", "5.png\t5\t1\t0 1\tz"], "rows name an image again"),
    "equal images with other labels": ("train", ["copy", "5.png", "copy.png", "copy.png\t4\t0\t1 0\tz"], "have other labels"),
    "a group in both": ("test", ["copy", "400.png", "other.png", "other.png\t5\t1\t0 1\ttrain1"], "'block' are in train and in test: train1"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_planted_faults_are_found(name: str, digits: Path, tmp_path: Path) -> None:
    split, (how, *what), says = FAULTS[name]
    folder = tmp_path / "planted"
    shutil.copytree(digits, folder)
    if how == "truncate":
        (folder / what[0]).write_bytes((folder / what[0]).read_bytes()[:40])
    elif how == "remove":
        (folder / what[0]).unlink()
    elif how == "copy":
        shutil.copy(folder / what[0], folder / what[1])
    if how in ("append", "copy"):
        with open(folder / f"{split}.tsv", "a") as f:
            f.write(what[-1] + "\n")
    made = inspect(tables(folder))
    assert not made
    assert any(says in finding for finding in made.findings), made.findings


def test_images_that_look_alike_are_noted(digits: Path, tmp_path: Path) -> None:
    folder = tmp_path / "alike"
    shutil.copytree(digits, folder)
    image = cv2.imread(str(folder / "5.png"), cv2.IMREAD_GRAYSCALE)
    cv2.imwrite(str(folder / "again.png"), np.clip(image.astype(int) + 2, 0, 255).astype(np.uint8))
    with open(folder / "test.tsv", "a") as f:
        f.write("again.png\t5\t1\t0 1\tz\n")
    made = inspect(tables(folder))
    assert made
    assert any("look alike" in note and "test.tsv:98" in note for note in made.notes), made.notes


@pytest.mark.parametrize(("resize", "shape"), [("stretch", (20, 30)), ("crop", (20, 30)), ("pad", (20, 30))])
def test_images_come_in_the_size_and_order_that_is_asked_for(resize: Any, shape: tuple[int, int], tmp_path: Path) -> None:
    picture = np.zeros((40, 44, 3), np.uint8)
    picture[..., 0] = 200  # blue, as OpenCV writes
    cv2.imwrite(str(tmp_path / "a.png"), picture)
    made = load_image([str(tmp_path / "a.png")], ImageConfig(height=shape[0], width=shape[1], resize=resize))
    assert made.shape == (3, *shape)
    assert made[2].max() == 200
    assert made[:2].max() == 0
    assert (made[2] == 200).mean() == pytest.approx(22 / 30 if resize == "pad" else 1.0)
    planes = load_image([str(tmp_path / "a.png")] * 5, ImageConfig(height=8, width=9))
    assert planes.shape == (5, 8, 9)
    with pytest.raises(DecantError, match="has 3 channels"):
        load_image([str(tmp_path / "a.png")], ImageConfig(channels=4))


def test_the_pages_commands_run_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/classify.md as a user types it, in an empty folder beside links to the repository's."""
    from typer.testing import CliRunner

    from pycls.commands import app

    for name in ("prototxt", "docs"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    block = (ROOT / "docs/classify.md").read_text().split("```sh\n")[1].split("```")[0]
    said: dict[str, str] = {}
    for line in block.splitlines():
        words = line.split()
        if "scripts/digit_tasks.py" in words:
            monkeypatch.setattr(sys, "argv", words[1:])
            runpy.run_path(str(ROOT / words[1]), run_name="__main__")
            continue
        shorter = ["train.epochs=2"] if "train" in words and "--dry-run" not in words else []
        done = CliRunner().invoke(app, [*words[3:], *shorter])
        assert done.exit_code == 0, f"{line}: {done.output}{done.exception!r}"
        said[" ".join(words[3:])] = done.output
    assert "10 outputs" in said["train docs/digits.yaml --dry-run"]
    assert "nothing is wrong" in said["inspect docs/digits.yaml"]
    assert len(read_label_file("answers.tsv")) == 359
    assert {p.name for p in Path("shipped").iterdir()} == {"model.onnx", "model.safetensors", "bundle.json"}
    one = json.loads(CliRunner().invoke(app, ["predict", "shipped", "digits/images/0000.png", "--json"]).output)
    assert one["images"][0]["digit"]["answer"] in set("0123456789")


def test_a_finding_and_a_fault_have_their_statuses(damaged: Path) -> None:
    """inspect ends with 1 where it finds something, the command line with 2 where the input is at fault; no traceback."""
    found = subprocess.run([sys.executable, str(ROOT / "cli.py"), "classify", "inspect", "train.tsv"], cwd=damaged, capture_output=True, text=True)
    assert found.returncode == 1, found.stderr
    assert "train.tsv:4: " in found.stdout
    command = [sys.executable, str(ROOT / "cli.py"), "classify", "train", "small.yaml", "trian.epochs=1"]
    refused = subprocess.run(command, cwd=damaged, capture_output=True, text=True)
    assert refused.returncode == 2
    assert refused.stderr.strip() == "error: small.yaml: unknown key 'trian'; did you mean 'train'?"
