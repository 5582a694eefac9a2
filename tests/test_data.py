"""Data layers, datasets, databases and tools, beside what real Caffe gave and what lmdb, protobuf and OpenCV themselves read."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import cv2
import h5py
import leveldb_table
import lmdb
import numpy as np
import pytest
import torch
from conftest import CORPUS, ROOT, SHARED

import converters
import prototxt
import pycls
from prototxt import DataError, DecantError, FileProblem
from prototxt.data import LabelList, compute_mean, convert_imageset, open_database, read_mean, samples, write_mean
from prototxt.data.snappy import uncompress
from prototxt.schema import caffe_pb2
from pycls.datasets import loader

FILLERS = sorted((CORPUS / "formats/fillers").glob("*/*.stats.json"))


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """A copy of a recorded data layer's folder as the working directory."""
    work = shutil.copytree(CORPUS / "data" / request.param, tmp_path / request.param)
    monkeypatch.chdir(work)
    return work


# What Caffe draws -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", FILLERS, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_fillers_have_caffes_moments(path: Path) -> None:
    want = json.loads(path.read_text())
    torch.manual_seed(5)
    net = converters.load(path.with_name(path.name.replace(".stats.json", ".prototxt")))
    values = net.params()["x"][0].detach().double().numpy()
    assert list(values.shape) == want["shape"]
    rows = values.reshape(len(values), -1).sum(1)
    got = {"mean": values.mean(), "std": values.std(), "min": values.min(), "max": values.max(), "zeros": (values == 0).mean()}
    if want["exact"]:
        assert got == pytest.approx({key: want[key] for key in got}, abs=1e-7)
        return
    spread = want["std"]
    assert got["mean"] == pytest.approx(want["mean"], abs=6 * spread / np.sqrt(values.size))
    assert got["std"] == pytest.approx(spread, rel=0.05)
    assert got["zeros"] == pytest.approx(want["zeros"], abs=0.01)
    for end in ("min", "max"):
        assert got[end] == pytest.approx(want[end], rel=0.35, abs=0.02 * spread)
    kurtosis = ((values - values.mean()) ** 4).mean() / values.var() ** 2
    assert kurtosis == pytest.approx(want["kurtosis"], rel=0.15)
    assert rows.mean() == pytest.approx(want["row_sum_mean"], abs=6 * spread * np.sqrt(values[0].size / len(values)) + 1e-6)


@pytest.mark.parametrize("name", ["bilinear_3", "bilinear_4", "layer_defaults"])
def test_fillers_without_chance_are_equal(name: str) -> None:
    folder = CORPUS / "formats/fillers" / name
    net = converters.load(folder / "net.prototxt")
    with np.load(folder / "expected.npz") as z:
        for key in z.files:
            layer, i = key.split("/")[1:] if "/" in key else ("x", ("weight", "bias").index(key))
            np.testing.assert_allclose(net.params()[layer][int(i)].detach().numpy(), z[key], atol=1e-7)


@pytest.mark.parametrize("case", ["dummy_random_fillers"], indirect=True)
def test_made_up_data_has_caffes_moments(case: Path) -> None:
    want = json.loads((case / "expected_stats.json").read_text())
    feed = prototxt.batches("net.prototxt", seed=2)
    passes = [next(feed) for _ in range(1 + max(int(key.split("/")[0][5:]) for key in want))]
    for key, stats in want.items():
        number, blob = key.removeprefix("batch").split("/")
        values = passes[int(number)][blob]
        assert list(values.shape) == stats["shape"]
        assert np.array_equal(values, passes[0][blob]) == stats["same_as_batch0"], key
        assert values.mean() == pytest.approx(stats["mean"], abs=0.1 * stats["std"] + 1e-6), key
        assert values.std() == pytest.approx(stats["std"], rel=0.15), key


@pytest.mark.parametrize("case", ["train_random_crop_mirror", "test_mirror_is_still_random"], indirect=True)
def test_crops_and_mirrors_are_drawn_as_caffe_draws(case: Path) -> None:
    """Each output is one crop of its source; every offset that Caffe uses comes about equally often, mirrored in half of the cases."""
    facts = json.loads((case / "expected_facts.json").read_text())
    phase = "TRAIN" if case.name.startswith("train_") else "TEST"
    sources = [open_database("db")[i] for i in range(len(open_database("db")))]
    plain = [np.frombuffer(d.data, np.uint8).reshape(d.channels, d.height, d.width) for d in map(caffe_pb2.Datum.FromString, sources)]
    counts: dict[tuple[int, int, bool], int] = {}
    feed, total, at = prototxt.batches("net.prototxt", phase, seed=7), 2400, 0
    while at < total:
        for image in next(feed)["data"]:
            source = plain[at % len(plain)]
            at += 1
            places = [
                (y, x, flip)
                for y in range(source.shape[1] - 3)
                for x in range(source.shape[2] - 3)
                for flip in (False, True)
                if np.array_equal(image, source[:, y : y + 4, x : x + 4][..., :: -1 if flip else 1])
            ]
            assert len(places) == 1
            counts[places[0]] = counts.get(places[0], 0) + 1
    assert sorted({y for y, _, _ in counts}) == facts["top_offsets"]
    assert sorted({x for _, x, _ in counts}) == facts["left_offsets"]
    cells = len(facts["top_offsets"]) * len(facts["left_offsets"]) * 2
    assert len(counts) == cells
    expected = at / cells
    assert all(abs(n - expected) < 5 * np.sqrt(expected) for n in counts.values()), counts


@pytest.mark.parametrize("case", ["memory", "memory_transform_ignored", "memory_not_a_multiple"], indirect=True)
def test_memory_data(case: Path) -> None:
    with np.load("arrays.npz") as z:
        arrays = {key: z[key] for key in z.files}
    if not Path("expected.npz").exists():
        with pytest.raises(DataError, match="multiple of the batch size"):
            prototxt.batches("net.prototxt", arrays=arrays)
        return
    feed = prototxt.batches("net.prototxt", arrays=arrays)
    with np.load("expected.npz") as z:
        for n in range(3):
            for top, values in next(feed).items():
                np.testing.assert_array_equal(values, z[f"batch{n}/{top}"])


@pytest.mark.parametrize("case", ["hdf5_output"], indirect=True)
def test_hdf5_output_writes_what_caffe_wrote(case: Path) -> None:
    next(prototxt.batches("net.prototxt"))
    (written,) = [p for p in case.glob("*.h5") if p.name not in ("expected_out.h5", "part0.h5")]
    with h5py.File(written) as got, h5py.File("expected_out.h5") as want:
        assert sorted(got) == sorted(want)
        for name in want:
            assert got[name].dtype == want[name].dtype
            np.testing.assert_allclose(got[name][:], want[name][:], rtol=1e-6)  # a tanh before it


# Means and real databases ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mean_legacy_dims", "mean_shape", "mean_by_tool"])
def test_means_are_read_and_written_as_caffe_does(name: str, tmp_path: Path) -> None:
    folder = CORPUS / "formats" / name
    mean = read_mean(folder / "mean.binaryproto")
    with np.load(folder / "expected.npz") as z:
        np.testing.assert_array_equal(mean[None], z["mean"])
    if name != "mean_shape":
        write_mean(tmp_path / "mean.binaryproto", mean)
        assert (tmp_path / "mean.binaryproto").read_bytes() == (folder / "mean.binaryproto").read_bytes()
    if name == "mean_by_tool":
        computed = compute_mean(folder / "db", tmp_path / "computed.binaryproto")
        with np.load(folder / "images.npz") as z:
            np.testing.assert_allclose(computed, z["images"].mean(0), rtol=1e-6)
        np.testing.assert_allclose(computed, mean, rtol=1e-6)


REAL = sorted((SHARED / "datasets").glob("*.npz")) or [None]


@pytest.mark.parametrize("path", REAL, ids=lambda p: p.stem if p else "datasets")
def test_real_databases_give_what_caffe_gave(path: Path | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if path is None:
        pytest.skip("the public databases are not beside this checkout")
    monkeypatch.chdir(path.parent)
    feed = prototxt.batches(path.with_suffix(".prototxt"), "TEST")
    with np.load(path) as z:
        for n in range(2):
            for top, values in next(feed).items():
                np.testing.assert_allclose(values, z[f"batch{n}/{top}"], atol=1e-4)


@pytest.mark.parametrize("name", ["digits", "crops"])
def test_means_of_real_databases(name: str) -> None:
    if REAL == [None]:
        pytest.skip("the public databases are not beside this checkout")
    database = SHARED / "datasets" / ("digits_train_lmdb" if name == "digits" else "crops_lmdb")
    np.testing.assert_allclose(compute_mean(database), read_mean(SHARED / f"datasets/{name}_mean.binaryproto"), rtol=1e-5)


# Tools ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def listing(tmp_path: Path) -> Path:
    """Five pictures of several sizes, one grey, one in a folder with a space, and their list."""
    rng = np.random.default_rng(0)
    lines = []
    for i, (height, width) in enumerate([(6, 9), (5, 7), (8, 8), (11, 4), (7, 6)]):
        name = f"a b/p{i}.png" if i == 3 else f"p{i}.png"
        (tmp_path / name).parent.mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / name), rng.integers(0, 256, (height, width) if i == 2 else (height, width, 3), dtype=np.uint8))
        lines.append(f"{name} {i * 3}")
    (tmp_path / "list.txt").write_text("\n".join(lines) + "\n")
    return tmp_path / "list.txt"


def lmdb_records(path: Path) -> list[tuple[str, object]]:
    """Keys and Datums as lmdb and protobuf read them."""
    with lmdb.open(str(path), readonly=True, lock=False) as env, env.begin() as transaction:
        return [(bytes(k).decode(), caffe_pb2.Datum.FromString(bytes(v))) for k, v in transaction.cursor()]


@pytest.mark.parametrize(
    "options", [{}, {"gray": True}, {"size": (5, 8)}, {"encoded": "png"}, {"encoded": "same", "size": (4, 6)}, {"shuffle": True}]
)
def test_convert_imageset_writes_what_others_read(options: dict[str, object], listing: Path, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    done = convert_imageset(listing, tmp_path / "db", progress=lambda *n: steps.append(n), **options)  # type: ignore[arg-type]
    assert done.written == 5
    assert steps[-1] == (5, 5)
    names = [line.rpartition(" ")[0] for line in listing.read_text().splitlines()]
    records = lmdb_records(tmp_path / "db")
    assert sorted(key.split("_", 1)[1] for key, _ in records) == sorted(names)
    assert ([key.split("_", 1)[1] for key, _ in records] == names) != bool(options.get("shuffle"))
    for key, datum in records:
        i = names.index(key.split("_", 1)[1])
        assert datum.label == 3 * i
        image = cv2.imread(str(tmp_path / names[i]), cv2.IMREAD_GRAYSCALE if options.get("gray") else cv2.IMREAD_COLOR)
        if "size" in options:
            height, width = options["size"]
            image = cv2.resize(image, (width, height))
        if options.get("encoded"):
            assert datum.encoded
            np.testing.assert_array_equal(cv2.imdecode(np.frombuffer(datum.data, np.uint8), cv2.IMREAD_COLOR), image)
        else:
            planes = image[None] if image.ndim == 2 else image.transpose(2, 0, 1)
            assert (datum.channels, datum.height, datum.width) == planes.shape
            assert datum.data == planes.tobytes()


def test_a_list_with_a_bad_picture_leaves_no_database(listing: Path, tmp_path: Path) -> None:
    listing.write_text(listing.read_text().replace("p1.png", "missing.png"))
    with pytest.raises(FileProblem, match=r"list\.txt:2: record 1: .*missing\.png: no such file"):
        convert_imageset(listing, tmp_path / "db")
    assert not [p for p in tmp_path.iterdir() if "db" in p.name]
    done = convert_imageset(listing, tmp_path / "db", skip=True)
    assert (done.written, len(done.skipped)) == (4, 1)
    assert [key for key, _ in lmdb_records(tmp_path / "db")] == ["00000000_p0.png", "00000002_p2.png", "00000003_a b/p3.png", "00000004_p4.png"]


def test_the_commands_make_a_database_and_its_mean(listing: Path, tmp_path: Path) -> None:
    def decant(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, str(ROOT / "cli.py"), *words], cwd=tmp_path, capture_output=True, text=True)

    done = decant("dataset", "list.txt", "db", "--resize", "5,8")
    assert (done.returncode, done.stdout) == (0, "wrote db: 5 records\n")
    done = decant("mean", "db", "mean.binaryproto", "--json")
    facts = json.loads(done.stdout)
    assert facts["shape"] == [3, 5, 8]
    assert facts["channels"] == pytest.approx(read_mean(tmp_path / "mean.binaryproto").mean((1, 2)), rel=1e-5)
    assert decant("dataset", "list.txt", "db").returncode == 2  # it exists
    refused = decant("dataset", "list.txt", "other", "--backend", "leveldb")
    assert refused.returncode == 2
    assert "LMDB" in refused.stderr


# LevelDB --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compressed", [False, True])
def test_leveldb_tables_levels_logs_and_deletions(compressed: bool, tmp_path: Path) -> None:
    """The newest value of each key counts, wherever it stands; a deletion hides what is older."""
    rng = np.random.default_rng(1)
    keys = [f"{i:08d}_name/{'x' * (i % 7)}".encode() for i in range(40)]
    now: dict[bytes, bytes | None] = {}
    sequence = 0

    def some(chosen: list[bytes]) -> list[leveldb_table.Entry]:
        nonlocal sequence
        entries = []
        for key in chosen:
            sequence += 1
            value = None if rng.random() < 0.2 else bytes([sequence % 5]) * int(rng.integers(0, 90)) + rng.bytes(int(rng.integers(1, 60)))
            entries.append((key, sequence, value))
            now[key] = value
        return entries

    low = [some(keys[:13]), some(keys[13:29])]  # of one level: no key in two of them
    levels = {2: low, 1: [some(keys[5:20])], 0: [some(keys[::3]), some(keys[1::5])]}
    recent = [some(keys[30:] + keys[:4]), some(keys[2:9])]
    database = open_database(leveldb_table.write(tmp_path / "db", levels, recent, compressed=compressed))
    want = [now[key] for key in sorted(now) if now[key] is not None]
    assert [database[i] for i in range(len(database))] == want
    assert database[len(want) - 1] == database[-1]


def test_snappy_takes_what_its_writer_may_write() -> None:
    cases = {
        b"\x05\x10abcde": b"abcde",
        b"\x46\xf0\x45" + b"q" * 70: b"q" * 70,  # a long literal
        b"\x08\x0cabcd\x0f\x04\x00\x00\x00": b"abcdabcd",  # offsets of four bytes, ...
        b"\x08\x0cabcd\x0e\x04\x00": b"abcdabcd",  # two ...
        b"\x09\x00a\x11\x01": b"a" * 9,  # and one, into what it writes itself
        b"\x0a\x00a\x11\x01": None,  # less than it says
        b"\x08\x0cabcd\x0e\x05\x00": None,  # from before the start
        b"\x08\x0cabc": None,  # cut off
        b"\xff\xff\xff\xff\x0f\x00a": None,  # says four gigabytes
        b"\xff\xff": None,
        b"": None,
    }
    for data, want in cases.items():
        if want is None:
            with pytest.raises(DataError):
                uncompress(data)
        else:
            assert uncompress(data) == want


# Several labels a line ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "labels"),
    [
        ("p0.png\t0 1 1 0", [0, 1, 1, 0]),
        ("p0.png\t0\t1\t1\t0", [0, 1, 1, 0]),
        ("p0.png 0 1 NA 0", [0, 1, np.nan, 0]),
        ("a b/p3.png -1 2.5 3e2 .5", [-1, 2.5, 300, 0.5]),
        ("a b/p3.png\t1 0 nan 1\r", [1, 0, np.nan, 1]),
    ],
)
def test_lists_with_several_labels(line: str, labels: list[float], listing: Path) -> None:
    (listing.parent / "multi.txt").write_text(line + "\n" + line + "\n")
    name, values = LabelList(listing.parent / "multi.txt")[1]
    assert name == line.split("\t")[0].rsplit(".png")[0] + ".png"
    np.testing.assert_array_equal(values, np.float32(labels))
    net = f'layer {{ name: "d" type: "ImageData" top: "x" top: "y" image_data_param {{ source: "{listing.parent}/multi.txt" batch_size: 2 }} }}'
    (listing.parent / "net.prototxt").write_text(net)
    (batch,) = loader(listing.parent / "net.prototxt", columns=True)
    np.testing.assert_array_equal(batch["y"].numpy(), np.float32([labels] * 2))


@pytest.mark.parametrize("line", ["p0.png\t0 1 1", "p0.png\t0 1 x 0", "0 1 1 0", "", "p0.png 0 1 --1 0", "p0.png 0 1 -NA 0"])
def test_lines_with_other_columns_are_refused_by_number(line: str, tmp_path: Path) -> None:
    (tmp_path / "multi.txt").write_text(f"p0.png\t0 1 1 0\n{line}\n")
    with pytest.raises(DataError, match=r"multi\.txt:2: expects a name and 4 numbers"):
        LabelList(tmp_path / "multi.txt")[1]


def test_a_stock_layer_over_several_columns_warns(listing: Path) -> None:
    """Caffe takes the last column alone, and all before it as the name."""
    names = ["p0.png 1 0", "p1.png 0 1"]
    for i, name in enumerate(names):
        shutil.copy(listing.parent / f"p{i}.png", listing.parent / f"p{i}.png {name.split()[1]}")
    (listing.parent / "list.txt").write_text("\n".join(names) + "\n")
    net = f'layer {{ name: "d" type: "ImageData" top: "x" top: "y" image_data_param {{ source: "{listing}" batch_size: 1 }} }}'
    (listing.parent / "net.prototxt").write_text(net)
    with pytest.warns(UserWarning, match="2 columns of labels; ImageData takes the last one alone"):
        feed = prototxt.batches(listing.parent / "net.prototxt")
    assert [float(next(feed)["y"][0]) for _ in range(2)] == [0, 1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (listing.parent / "list.txt").write_text("p0.png 1\na b/p3.png 2\n")
        prototxt.batches(listing.parent / "net.prototxt")


# torch's DataLoader ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["train_random_crop_mirror"], indirect=True)
def test_batches_do_not_depend_on_the_number_of_workers(case: Path) -> None:
    def epochs(workers: int, seed: int = 3) -> list[list[dict[str, torch.Tensor]]]:
        batches = loader("net.prototxt", "TRAIN", workers=workers, batch_size=3, shuffle=True, seed=seed)
        return [[{top: tensor.clone() for top, tensor in batch.items()} for batch in batches] for _ in range(2)]

    alone, spread, other = epochs(0), epochs(2), epochs(0, seed=4)
    for mine, theirs in zip(alone, spread, strict=True):
        for a, b in zip(mine, theirs, strict=True):
            assert all(a[top].equal(b[top]) for top in a)
    labels = [torch.cat([b["label"] for b in epoch]) for epoch in (*alone, *other)]
    assert all(label.sort().values.equal(labels[0].sort().values) for label in labels)  # every record once an epoch
    assert not labels[0].equal(labels[1])
    assert not labels[0].equal(labels[2])
    later = loader("net.prototxt", "TRAIN", batch_size=3, shuffle=True, seed=3)
    later.epoch = 1
    assert next(iter(later))["data"].equal(alone[1][0]["data"])


@pytest.mark.parametrize("case", ["lmdb_scale_mean_values", "hdf5_three_tops_three_files", "images_crop_mean_file"], indirect=True)
def test_a_layers_records_are_those_of_its_batches(case: Path) -> None:
    """Every record by index, alone and as torch's loader takes it, equals the feed's."""
    data, feed = samples("net.prototxt"), prototxt.batches("net.prototxt")
    got: dict[str, list[np.ndarray]] = {}
    while len(next(iter(got.values()), ())) < len(data):
        for top, values in next(feed).items():
            got.setdefault(top, []).extend(values.copy())
    tensors = [batch for epoch in [loader("net.prototxt", "TEST", batch_size=2, shuffle=False)] for batch in epoch]
    for top, values in got.items():
        np.testing.assert_array_equal(np.stack([data[i][top] for i in range(len(data))]), values[: len(data)])
        np.testing.assert_array_equal(torch.cat([t[top] for t in tensors]).numpy(), values[: len(data)])


# Refusals -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["SoftmaxWithLoss", "HingeLoss", "MultinomialLogisticLoss", "Accuracy"])
@pytest.mark.parametrize("label", [4, -1, float("nan"), 1e9])
def test_labels_that_name_no_class_are_refused_with_the_sample(loss: str, label: float) -> None:
    text = f"""input: "x" input_shape {{ dim: 3 dim: 4 }} input: "y" input_shape {{ dim: 3 }}
        layer {{ name: "on" type: "Power" bottom: "y" top: "z" }}
        layer {{ name: "l" type: "{loss}" bottom: "x" bottom: "BLOB" top: "l" }}"""
    x = torch.rand(3, 4)
    for blob in ("y", "z"):  # fed, and made by another layer
        net = converters.load(prototxt.parse_text(text.replace("BLOB", blob)))
        net.blobs({"x": x, "y": torch.tensor([0, 3.99, -0.5])})  # cut towards zero: 3 and 0
        with pytest.raises(DecantError, match=r"layer 'l' .*sample 1: label .* is none of 4 classes \(0 to 3\)"):
            net.blobs({"x": x, "y": torch.tensor([0, label, 1])})


def test_ignored_labels_count_for_none() -> None:
    text = """input: "x" input_shape { dim: 2 dim: 4 dim: 3 } input: "y" input_shape { dim: 2 dim: 3 }
        layer { name: "l" type: "SoftmaxWithLoss" bottom: "x" bottom: "y" top: "l" loss_param { ignore_label: 255 } }"""
    net = converters.load(prototxt.parse_text(text))
    net.blobs({"x": torch.rand(2, 4, 3), "y": torch.tensor([[0, 255, 1.0], [2, 3, 255]])})
    with pytest.raises(DecantError, match="sample 1: label 254"):
        net.blobs({"x": torch.rand(2, 4, 3), "y": torch.tensor([[0, 255, 1.0], [2, 254, 255]])})


def test_a_solver_names_the_record_with_a_label_out_of_range(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with h5py.File("d.h5", "w") as f:
        f["x"], f["y"] = np.random.default_rng(0).standard_normal((6, 3)), np.array([0, 1, 2, 1, 7, 0])
    Path("list.txt").write_text("d.h5\n")
    net = """layer { name: "d" type: "HDF5Data" top: "x" top: "y" hdf5_data_param { source: "list.txt" batch_size: 3 } }
        layer { name: "ip" type: "InnerProduct" bottom: "x" top: "s" inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
        layer { name: "loss" type: "SoftmaxWithLoss" bottom: "s" bottom: "y" }"""
    Path("net.prototxt").write_text(net)
    Path("solver.prototxt").write_text('net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 4')
    solver = pycls.Solver("solver.prototxt")
    solver.step()
    with pytest.raises(DataError, match=r"'loss'.*blob 'y': record 4: label 7 is none of 3 classes"):
        solver.step()


@pytest.mark.parametrize("link", [False, True])
def test_a_root_confines_what_files_name(link: bool, listing: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    shutil.copy(tmp_path / "p0.png", inner)
    if link:
        (inner / "x.png").symlink_to(tmp_path / "p1.png")
    (inner / "list.txt").write_text(f"p0.png 0\n{'x.png' if link else '../p1.png'} 1\n")
    monkeypatch.chdir(inner)
    Path("net.prototxt").write_text('layer { name: "d" type: "ImageData" top: "x" image_data_param { source: "list.txt" batch_size: 1 } }')
    feed = prototxt.batches("net.prototxt", root=".")
    next(feed)
    with pytest.raises(DecantError, match=r"list\.txt:2: record 1: .*leads out of"):
        next(feed)
    free = prototxt.batches("net.prototxt")
    assert len([next(free) for _ in range(2)]) == 2
    command = [sys.executable, str(ROOT / "cli.py"), "dataset", "list.txt", str(tmp_path / "db")]
    done = subprocess.run([*command, "--root", "."], capture_output=True, text=True)
    assert done.returncode == 2
    assert "leads out of" in done.stderr
    assert subprocess.run(command, capture_output=True).returncode == 0


def test_a_mean_or_solver_out_of_the_root_is_refused(tmp_path: Path) -> None:
    from prototxt.files import confine, find_file

    (tmp_path / "in").mkdir()
    (tmp_path / "mean.binaryproto").touch()
    confine(tmp_path / "in")
    try:
        with pytest.raises(FileProblem, match="leads out of"):
            find_file("../mean.binaryproto", tmp_path / "in")
        with pytest.raises(FileProblem, match="leads out of"):
            find_file(os.fspath(tmp_path / "mean.binaryproto"), None)
        (tmp_path / "in/net.prototxt").touch()
        assert find_file("net.prototxt", tmp_path / "in") == tmp_path / "in/net.prototxt"
    finally:
        confine(None)
