"""The three projects from end to end on small files in their layouts, and the splits that must not leak."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import torchvision
from conftest import ROOT
from safetensors.torch import save_file
from typer.testing import CliRunner

from prototxt import LabelError
from pycls.classify.bundle import read_bundle
from pycls.classify.config import read_config
from pycls.classify.model import build_model
from pycls.classify.tables import load_data
from pycls.commands import app
from pycls.labels import read_label_file, write_label_file
from pycls.projects import faces, hpa, iwildcam
from pycls.projects.splits import group_split, stratified_folds

BLOCK = """
layer {{ name: "conv{n}" type: "Convolution" bottom: "{below}" top: "conv{n}"
  convolution_param {{ num_output: {width} kernel_size: 3 pad: 1 bias_term: false weight_filler {{ type: "msra" }} }} }}
layer {{ name: "bn{n}" type: "BatchNorm" bottom: "conv{n}" top: "conv{n}" batch_norm_param {{ moving_average_fraction: 0.8 }} }}
layer {{ name: "scale{n}" type: "Scale" bottom: "conv{n}" top: "conv{n}" scale_param {{ bias_term: true }} }}
layer {{ name: "relu{n}" type: "ReLU" bottom: "conv{n}" top: "conv{n}" }}
layer {{ name: "pool{n}" type: "Pooling" bottom: "conv{n}" top: "pool{n}" pooling_param {{ kernel_size: 2 stride: 2 }} }}
"""
TINY = 'name: "Tiny" input: "data" input_shape { dim: 1 dim: 3 dim: 32 dim: 32 }' + "".join(
    BLOCK.format(n=n, below=below, width=width) for n, below, width in ((1, "data", 8), (2, "pool1", 16), (3, "pool2", 32))
)
SMALL = (
    *("data.image.height=32", "data.image.width=32", "data.workers=0", "data.batch=16", "model.net=tiny.prototxt", "model.at=pool3"),
    *("model.weights=''", "model.pool=flatten", "train.optimizer.lr=0.01", "train.schedule.warmup=0", "tta.views=[]"),
)
PREPARE = {
    "iwildcam": ("iwildcam/annotations.json", "--images", "iwildcam/images"),
    "hpa": ("hpa/train.csv", "--folds", "4"),
    "faces": (
        *("faces/list_attr_celeba.txt", "--images", "faces/images"),
        *("--partition", "faces/list_eval_partition.txt", "--identities", "faces/identity_CelebA.txt"),
    ),
}


def run(*arguments: object) -> str:
    """`decant classify` in this process; what it prints."""
    done = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture
def trained(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Path]:
    """A project's name and its run, on generated files, by its own recipe in small."""
    name = request.param
    monkeypatch.chdir(tmp_path)
    Path("tiny.prototxt").write_text(TINY)
    run("project", "generate", name, name)
    run("project", name, *PREPARE[name], "-o", name)
    run("train", ROOT / f"recipes/{name}.yaml", *SMALL, f"train.epochs={5 if name == 'hpa' else 10}")
    return name, tmp_path / "runs" / name


def figures(folder: Path) -> dict[str, Any]:
    """The figures of the one task, on the last list that was tested."""
    facts = json.loads((folder / "bundle/bundle.json").read_text())
    tested = facts["figures"].get("test") or facts["figures"]["val"]
    (task,) = tested["tasks"].values()
    return task["metrics"]


@pytest.mark.parametrize("trained", ["iwildcam"], indirect=True)
def test_iwildcam(trained: tuple[str, Path]) -> None:
    name, folder = trained
    assert figures(folder)["accuracy"] > 0.5, "three animals before cameras that it has not seen"
    train, val = (read_label_file(f"{name}/{split}.tsv") for split in ("train", "val"))
    assert not set(train.notes["location"]) & set(val.notes["location"])
    assert set(train.notes["source"]) == {"colour", "infrared"}
    run("inspect", f"{name}/val.tsv")
    run("project", "submit-iwildcam", folder / "bundle", f"{name}/annotations.json", "--images", f"{name}/images", "-o", "out.csv")
    with open("out.csv") as f:
        rows = list(csv.DictReader(f))
    images = json.loads(Path(f"{name}/annotations.json").read_text())["images"]
    assert [r["id"] for r in rows] == [i["id"] for i in images]
    assert {r["animal_class"] for r in rows} <= {"0", "1", "8"}, "category ids, and not places of classes"
    by_sequence: dict[str, set[str]] = {}
    for row, image in zip(rows, images, strict=True):
        by_sequence.setdefault(image["seq_id"], set()).add(row["animal_class"])
    assert all(len(said) == 1 for said in by_sequence.values()), "the frames of a sequence agree"


@pytest.mark.parametrize("trained", ["hpa"], indirect=True)
def test_hpa(trained: tuple[str, Path]) -> None:
    name, folder = trained
    assert figures(folder)["mAP"] > 0.8
    bundle = read_bundle(folder / "bundle")
    assert bundle.planes == ("_red.png", "_green.png", "_blue.png", "_yellow.png")
    run("project", "submit-hpa", folder / "bundle", f"{name}/sample_submission.csv", "--images", f"{name}/images", "-o", "out.csv")
    with open("out.csv") as f:
        rows = list(csv.DictReader(f))
    assert [r["Id"] for r in rows] == [f"image{n:03d}" for n in range(5)]
    assert all(r["Predicted"] and all(0 <= int(k) < 28 for k in r["Predicted"].split()) for r in rows)
    session = onnxruntime.InferenceSession(folder / "bundle/model.onnx")
    assert session.get_inputs()[0].shape[1] == 4


def test_hpa_on_a_net_of_three_channels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dry run of the recipe with resnet18's weights from a file; of grey images its four channels make what the three make."""
    monkeypatch.chdir(tmp_path)
    run("project", "generate", "hpa", "hpa")
    run("project", "hpa", *PREPARE["hpa"], "-o", "hpa")
    torch.manual_seed(11)
    three = torchvision.models.resnet18().eval()
    save_file(three.state_dict(), "resnet18.safetensors")
    changes = ["model.net=torchvision:resnet18", "model.weights=resnet18.safetensors", "model.pool=avg", "data.workers=0", "data.batch=6"]
    changes += ["data.image.height=40", "data.image.width=40"]
    said = run("train", ROOT / "recipes/hpa.yaml", *changes, "--dry-run")
    assert said.startswith("images 6 x 4 x 40 x 40, ")
    assert "organelle        multilabel   28 outputs, loss focal" in said
    assert not Path("runs").exists()
    config = read_config(ROOT / "recipes/hpa.yaml", changes)
    four = build_model(config, load_data(config).tasks, 4).eval()
    grey = torch.rand(2, 1, 40, 40)
    three.fc = torch.nn.Identity()
    with torch.no_grad():
        torch.testing.assert_close(four.features(grey.expand(-1, 4, -1, -1))["organelle"], three(grey.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-5)
        stem, wanted = four.trunk.get_submodule("conv1").weight, three.conv1.weight
    torch.testing.assert_close(stem, torch.cat([wanted, wanted.mean(1, keepdim=True)], 1) * 0.75)


@pytest.mark.parametrize("trained", ["faces"], indirect=True)
def test_faces(trained: tuple[str, Path]) -> None:
    name, folder = trained
    assert figures(folder)["mA"] > 0.75
    with pytest.raises(LabelError, match=r"attributes \(multilabel\), and one multiclass task"):
        iwildcam.submission(read_bundle(folder / "bundle"), iwildcam.generate(Path("cams"), sequences=2), "cams/images", "out.csv")
    people = [set(read_label_file(f"{name}/{split}.tsv").notes["identity"]) for split in ("train", "val", "test")]
    assert not people[0] & people[1] | people[0] & people[2] | people[1] & people[2]
    run("predict", folder / "bundle", "--list", f"{name}/test.tsv", "-o", "answers.tsv")
    answers, test = read_label_file("answers.tsv"), read_label_file(f"{name}/test.tsv")
    assert answers.paths == test.paths
    right = (answers.values["attributes"] == test.values["attributes"]).mean()
    assert right == pytest.approx(figures(folder)["accuracy"])


# Splits ---------------------------------------------------------------------------------------------------------------


def test_groups_stay_whole() -> None:
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 60, 1000).astype(str)
    parts = group_split(groups, {"train": 0.7, "val": 0.2, "test": 0.1}, seed=3)
    assert sorted(np.concatenate(list(parts.values()))) == list(range(1000))
    named = {split: set(groups[rows]) for split, rows in parts.items()}
    assert not named["train"] & named["val"] | named["train"] & named["test"] | named["val"] & named["test"]
    assert [round(len(rows) / 1000, 1) for rows in parts.values()] == [0.7, 0.2, 0.1]
    assert all(len(rows) for rows in group_split(["a"] * 97 + ["b", "c", "d"], {"train": 0.9, "val": 0.05, "test": 0.05}).values())
    with pytest.raises(LabelError, match="without a leak"):
        group_split(["one"] * 9, {"train": 0.5, "val": 0.5})


def test_folds_keep_the_shares_of_labels() -> None:
    rng = np.random.default_rng(1)
    labels = (rng.random((600, 7)) < np.array([0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01])).astype(np.float32)
    folds = stratified_folds(labels, 5, seed=2)
    assert (np.bincount(folds) - 120 == 0).all() or abs(np.bincount(folds) - 120).max() <= 3
    spread = np.stack([labels[folds == f].sum(0) for f in range(5)])
    assert (abs(spread - labels.sum(0) / 5) <= 2).all()
    by_chance = np.stack([labels[rng.permutation(600)[:120]].sum(0) for _ in range(5)])
    assert abs(spread - labels.sum(0) / 5).sum() < 0.5 * abs(by_chance - labels.sum(0) / 5).sum()
    assert (folds == stratified_folds(labels, 5, seed=2)).all()


def test_sequences_vote() -> None:
    p = np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7], [0.6, 0.4]])
    voted = iwildcam.voted(p, np.array(["s", "t", "s", ""], dtype=object))
    np.testing.assert_allclose(voted, [[0.6, 0.4], [0.2, 0.8], [0.6, 0.4], [0.6, 0.4]])


def test_leaks_and_gaps_are_refused(tmp_path: Path) -> None:
    attributes = faces.generate(tmp_path / "faces", people=6)
    parts, persons = tmp_path / "faces/list_eval_partition.txt", tmp_path / "faces/identity_CelebA.txt"
    made = faces.prepare(attributes, tmp_path / "faces/images", tmp_path / "out", identities=str(persons))
    assert set(made) == {"train", "val", "test"}
    with pytest.raises(LabelError, match="one face in two splits is a leak"):
        faces.prepare(attributes, tmp_path, tmp_path)
    parts.write_text(parts.read_text().replace("000001.png 0", "000001.png 2"))
    with pytest.raises(LabelError, match="identity 1 is in train and in test"):
        faces.prepare(attributes, tmp_path, tmp_path, partition=str(parts), identities=str(persons))
    annotations = iwildcam.generate(tmp_path / "cams", sequences=4)
    data = json.loads(annotations.read_text())
    for image in data["images"]:
        del image["location"]
    annotations.write_text(json.dumps(data))
    with pytest.raises(LabelError, match="no `location`"):
        iwildcam.prepare(annotations, tmp_path / "cams/images", tmp_path)
    with pytest.raises(LabelError, match="count from 0"):
        hpa.prepare(hpa.generate(tmp_path / "hpa", images=6), tmp_path, folds=3, fold=3)


def test_names_of_organelles_fit_a_label_file(tmp_path: Path) -> None:
    table = hpa.read_protein_atlas(hpa.generate(tmp_path, images=6), classes=hpa.ORGANELLES)
    assert len(hpa.ORGANELLES) == len(set(hpa.ORGANELLES)) == 28
    write_label_file(table, tmp_path / "list.tsv")
    assert torch.equal(torch.tensor(read_label_file(tmp_path / "list.tsv").values["organelle"]), torch.tensor(table.values["organelle"]))
