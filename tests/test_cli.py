"""The command line as a user meets it: what it writes, what it prints, its exit status; and bad input of every kind."""

from __future__ import annotations

import json
import math
from contextlib import nullcontext
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from conftest import CORPUS, ROOT, Decant
from typer.testing import CliRunner

from cli import _stoppable, app
from converters.convert import Conversion, Options, convert
from prototxt import DecantError

LENET = ROOT / "prototxt/nets/lenet.prototxt"
NET = CORPUS / "nets/lenet-deploy.prototxt"
WEIGHTS = CORPUS / "nets/lenet-deploy.caffemodel"


def test_help_names_every_command(decant: Decant) -> None:
    done = decant("--help")
    assert done.returncode == 0
    assert all(command in done.stdout for command in ("inspect", "convert", "upgrade"))


def test_inspect_prints_layers_and_totals(decant: Decant) -> None:
    done = decant("inspect", LENET)
    assert done.returncode == 0, done.stderr
    assert "conv1" in done.stdout
    assert "431,080" in done.stdout.splitlines()[-1]


def test_inspect_json(decant: Decant) -> None:
    facts = json.loads(decant("inspect", LENET, "--json").stdout)
    assert facts["parameters"] == 431080
    assert facts["layers"][1]["name"] == "conv1"


def test_convert_writes_everything_and_proves_it(decant: Decant, tmp_path: Path) -> None:
    done = decant("convert", NET, "-w", WEIGHTS, "--golden", NET.with_suffix(".npz"), "-o", "out", "--page")
    assert done.returncode == 0, done.stdout + done.stderr
    written = {p.suffix for p in (tmp_path / "out").iterdir()}
    assert written == {".py", ".safetensors", ".onnx", ".json", ".txt", ".html"}
    page = (tmp_path / "out/lenet_deploy.proof.html").read_text()
    assert "module vs Caffe" in page, "the card stands on it"
    assert '"low"' in page, "and histograms"
    card = json.loads((tmp_path / "out/lenet_deploy.proof.json").read_text())
    assert card["proven"]
    errors = {m["against"]: m["error"] for m in card["measurements"]}
    assert errors["module vs generated source"] == 0
    assert set(errors) >= {"module vs ONNX Runtime", "module vs OpenCV reading the ONNX"}
    assert any("Caffe" in name for name in errors)


def test_convert_tells_when_it_differs(decant: Decant, tmp_path: Path) -> None:
    with np.load(NET.with_suffix(".npz")) as z:
        wrong = {k: z[k] * (1.01 if k.startswith("blob/") else 1) for k in z.files if z[k].dtype.kind == "f"}
    np.savez(tmp_path / "wrong.npz", **wrong)
    done = decant("convert", NET, "-w", WEIGHTS, "--golden", "wrong.npz", "-o", "out", "--no-onnx")
    assert done.returncode == 1
    assert "DIFFERS" in done.stdout
    assert "NOT PROVEN" in done.stdout


def converting(folder: Path, **asked: Any) -> Conversion:
    return convert(NET, WEIGHTS, folder, Options(onnx=False, **asked), lambda _: nullcontext(), lambda _: None)


def test_a_conversion_that_fails_leaves_no_proof_beside_new_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, card = tmp_path / "out", tmp_path / "out/lenet_deploy.proof.txt"
    converting(out)
    (out / "lenet_deploy.onnx").touch()
    written = {p.name: p.read_bytes() for p in out.iterdir()}
    (tmp_path / "bad.npz").write_text("no arrays")
    with pytest.raises(DecantError, match=r"bad\.npz"):
        converting(out, golden=(tmp_path / "bad.npz",))
    assert {p.name: p.read_bytes() for p in out.iterdir()} == written, "nothing is written before all input has been read"

    def fails(*_: object) -> None:
        assert not card.exists()
        raise DecantError("the source differs")

    monkeypatch.setattr("converters.proof.against_source", fails)
    with pytest.raises(DecantError, match="the source differs"):
        converting(out)
    assert sorted(p.suffix for p in out.iterdir()) == [".json", ".py", ".safetensors"]


def test_infinite_errors_are_words_in_json(tmp_path: Path) -> None:
    with np.load(NET.with_suffix(".npz")) as z:
        np.savez(tmp_path / "wrong.npz", **{k: v[:1] if k.startswith("blob/") else v for k, v in z.items()})
    done = converting(tmp_path / "out", golden=(tmp_path / "wrong.npz",))
    assert not done
    facts = json.loads((tmp_path / "out/lenet_deploy.proof.json").read_text(), parse_constant=pytest.fail)
    assert facts["measurements"][1]["error"] == "Infinity"


def test_a_net_that_gives_no_finite_value_is_not_proven() -> None:
    from converters.proof import _measure

    nan, one = np.full((2, 3), np.nan), np.ones((2, 3))
    measured = _measure("module vs itself", {"a": one, "b": nan}, {"a": one, "b": nan}, 1e-4)
    assert not measured.ok
    assert "b has no finite value" in str(measured)
    assert not _measure("module vs itself", {"a": nan}, {"a": one}, 1e-4).ok


def test_versions_are_of_the_packages_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    from converters import proof

    def only_opencv(package: str) -> str:
        if package == "opencv-python":
            return "4.5"
        raise PackageNotFoundError(package)

    monkeypatch.setattr(proof, "version", only_opencv)
    assert proof.versions().keys() == {"decant", "opencv", "python"}


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"mean": (1.0, 2.0)}, "2 means for 1 channels"),
        ({"mean": (math.nan,)}, "must be finite"),
        ({"scale": math.inf}, "must be finite"),
    ],
)
def test_preprocessing_that_cannot_be_is_refused(asked: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(DecantError, match=says):
        converting(tmp_path / "out", **asked)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["convert", str(NET), "--for", "opencv", "--no-onnx"], "--no-onnx leaves out"),
        (["convert", str(NET), "--bake-preprocessing", "--no-onnx"], "--no-onnx leaves out"),
        (["compare", "a.prototxt", "b.prototxt", "--steps", "-1"], "--steps"),
        (["classify", "predict", "bundle", "a.png", "--abstain", "2"], "--abstain"),
        (["weights", str(WEIGHTS), "w.h5", "--rename", "ip1="], "'ip1=' is not old=new"),
        (["dataset", "list.txt", "db", "--resize", "abc,3,4"], "'abc,3,4' is not height,width"),
    ],
)
def test_options_that_do_not_fit(command: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner(env={"COLUMNS": "200"}).invoke(app, command)
    assert done.exit_code == 2
    assert says in done.output
    assert not list(tmp_path.iterdir())


def test_upgrade_writes_todays_form(decant: Decant, tmp_path: Path) -> None:
    old = CORPUS / "nets/v0-classifier.prototxt"
    done = decant("upgrade", old, "new.prototxt")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "new.prototxt").read_text()
    assert "layer {" in text
    assert "layers {" not in text
    assert decant("inspect", "new.prototxt").stdout == decant("inspect", old).stdout


BAD = {
    "a layer type that nobody knows": ('layer { name: "x" type: "Convolutoin" bottom: "data" top: "x" }', "did you mean 'Convolution'?"),
    "two unknown types, both named": (
        'layer { name: "p" type: "Foo" bottom: "data" top: "p" } layer { name: "q" type: "Bar" bottom: "p" top: "q" }',
        "2 layers have a type",
    ),
    "a blob that nobody makes": ('layer { name: "x" type: "ReLU" bottom: "dat" top: "x" }', "did you mean 'data'?"),
    "shapes that do not fit": (
        'layer { name: "p" type: "Pooling" bottom: "data" top: "p" pooling_param { kernel_size: 2 stride: 2 } }'
        'layer { name: "s" type: "Eltwise" bottom: "data" bottom: "p" top: "s" }',
        "'data' [1, 3, 8, 8] and 'p' [1, 3, 4, 4]",
    ),
    "a field that the rule does not read": (
        'layer { name: "r" type: "ReLU" bottom: "data" top: "r" strange_param { x: 1 } }',
        "strange_param",
    ),
    "a typing mistake": ('layer { name: "c" type: "Convolution" convolution_param { num_ouput: 3 } }', "did you mean 'num_output'?"),
    "a filler that Caffe refuses": (
        'layer { name: "c" type: "InnerProduct" bottom: "data" top: "c" inner_product_param { num_output: 2 '
        'weight_filler { type: "gaussian" std: nan } } }',
        "std nan",
    ),
    "a brace that is not closed": ("layer {", "expected '}'"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_nets_end_in_one_message(name: str, decant: Decant, tmp_path: Path) -> None:
    body, says = BAD[name]
    (tmp_path / "net.prototxt").write_text(f'input: "data" input_shape {{ dim: 1 dim: 3 dim: 8 dim: 8 }}\n{body}\n')
    for command in (("inspect", "net.prototxt"), ("convert", "net.prototxt", "-o", "out")):
        done = decant(*command)
        assert done.returncode == 2, done.stdout
        assert "net.prototxt:2" in done.stderr or "net.prototxt:3:1" in done.stderr
        assert says in done.stderr
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def damaged(path: Path, kind: str) -> Path:
    """A broken copy of a caffemodel."""
    good = WEIGHTS.read_bytes()
    data = {"truncated": good[:-100], "corrupt": bytes(b ^ 0x5A for b in good), "text": b"layer { }", "zeros": bytes(1000)}[kind]
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("kind", ["truncated", "corrupt", "text", "zeros"])
def test_damaged_weights_end_in_one_message(kind: str, decant: Decant, tmp_path: Path) -> None:
    done = decant("convert", NET, "-w", damaged(tmp_path / "net.caffemodel", kind), "-o", "out", "--no-onnx")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "net.caffemodel" in done.stderr
    assert "Traceback" not in done.stderr


def test_weights_that_hold_none_are_refused(tmp_path: Path) -> None:
    """Caffe takes an empty file; a proof over a net of random weights would say nothing of the one that is meant."""
    (tmp_path / "empty.caffemodel").touch()
    with pytest.raises(DecantError, match=r"empty\.caffemodel: has no weights"):
        convert(NET, tmp_path / "empty.caffemodel", tmp_path / "out", Options(), lambda _: nullcontext(), lambda _: None)
    assert not (tmp_path / "out").exists()


def test_numbers_of_another_net_are_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", **{"input/data": np.zeros((2, 3, 32, 32), np.float32), "blob/prob": np.zeros((2, 10), np.float32)})
    with pytest.raises(DecantError, match=r"other\.npz: these inputs are not the net's"):
        converting(tmp_path / "out", golden=(tmp_path / "other.npz",))


def test_ctrl_c_says_so() -> None:
    @_stoppable
    def interrupted() -> None:
        raise KeyboardInterrupt

    command = typer.Typer()
    command.command()(interrupted)
    done = CliRunner().invoke(command)
    assert (done.exit_code, done.output) == (130, "stopped\n")


def test_weights_of_another_net_end_in_one_message(decant: Decant) -> None:
    done = decant("convert", NET, "-w", CORPUS / "nets/awkward-names.caffemodel", "-o", "out", "--no-onnx")
    assert done.returncode == 2
    assert "weights of another net" in done.stderr


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("missing.prototxt", "no such file"),
        (".", "is a folder"),
        ("empty.prototxt", "is empty"),
        ("braces.prototxt", "braces.prototxt:1:1"),
        ("net.h5", "HDF5"),
        ("zeros.prototxt", "no .caffemodel"),
    ],
)
def test_files_that_are_no_nets(argument: str, says: str, decant: Decant, tmp_path: Path) -> None:
    (tmp_path / "empty.prototxt").touch()
    (tmp_path / "braces.prototxt").write_text("{" * 10_000_000)
    (tmp_path / "net.h5").write_bytes((CORPUS / "formats/weights_hdf5/weights.caffemodel.h5").read_bytes())
    (tmp_path / "zeros.prototxt").write_bytes(bytes(1000))
    done = decant("convert", argument)
    assert done.returncode == 2, done.stdout
    assert says in done.stderr
    assert len(done.stderr) < 1000
    assert "Traceback" not in done.stderr


def test_preprocessing_goes_into_the_onnx(decant: Decant, tmp_path: Path) -> None:
    """RGB of 0..255 through the ONNX file equals (BGR - mean) * scale through the net."""
    import numpy as np
    import onnxruntime

    net = CORPUS / "nets/squeezenet-mini.prototxt"
    done = decant(
        "convert", net, "-w", net.with_suffix(".caffemodel"), "-o", "out", "--bake-preprocessing", "--mean", "104,117,123", "--scale", "0.5"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    facts = json.loads((tmp_path / "out/squeezenet_mini.json").read_text())
    assert facts["preprocessing"]["mean"] == [104, 117, 123]
    assert facts["preprocessing"]["formula"] == "x = (pixel - [104.0, 117.0, 123.0]) * 0.5, channels B G R"
    (blob, shape), (output, _) = next(iter(facts["inputs"].items())), next(iter(facts["outputs"].items()))
    rgb = np.random.default_rng(0).integers(0, 256, shape).astype(np.float32)
    (got,) = onnxruntime.InferenceSession(tmp_path / "out/squeezenet_mini.onnx", providers=["CPUExecutionProvider"]).run([output], {blob: rgb})
    import torch

    import converters

    prepared = (rgb[:, ::-1] - np.array([104, 117, 123], np.float32).reshape(1, 3, 1, 1)) * np.float32(0.5)
    with torch.no_grad():
        want = converters.load(net, weights=net.with_suffix(".caffemodel")).blobs({blob: torch.from_numpy(prepared)})[output].numpy()
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_a_training_net_converts_too(decant: Decant, tmp_path: Path) -> None:
    """Dropout and batch statistics do not disturb the proof."""
    net = CORPUS / "nets/alexnet-mini.prototxt"
    done = decant("convert", net, "-w", net.with_suffix(".caffemodel"), "-o", "out", "--phase", "train", "--no-onnx")
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_onnx_cannot_express_is_said_with_the_way_out(decant: Decant, tmp_path: Path) -> None:
    net = CORPUS / "nets/filter-then-loss.prototxt"
    done = decant("convert", net, "-o", "out")
    assert done.returncode == 2
    assert "(Filter)" in done.stderr
    assert "--no-onnx" in done.stderr
    assert decant("convert", net, "-o", "out", "--no-onnx").returncode == 0
