"""Files that mean harm: bombs, cuts, loops and lies, in every format; writers that are killed. docs/security.md tells what holds."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import h5py
import leveldb_table
import numpy as np
import pytest
from conftest import CORPUS, ROOT

import prototxt
from converters.resolution import resolve
from prototxt import DecantError
from prototxt.binary import read_definition
from prototxt.data import open_database, read_mean
from prototxt.data.datum import parse
from prototxt.data.images import read_image
from prototxt.data.snappy import uncompress
from prototxt.states import read_state
from prototxt.weights import read_weights
from prototxt.wire import varint

GOOD = CORPUS / "nets/lenet-deploy.caffemodel"
SEEDS = sorted((ROOT / "benchmarks/seeds").glob("*/*"))


def field(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


def layer(*blobs: bytes) -> bytes:
    return field(100, field(1, b"conv") + b"".join(field(7, blob) for blob in blobs))


def shape(*dims: int) -> bytes:
    return field(7, field(1, b"".join(varint(d & (1 << 64) - 1) for d in dims)))


FLOATS = field(5, bytes(24))
BOMBS = {
    "a length past the end": b"\xa2\x06\xff\xff\xff\xff\x07conv",
    "a length of 2^63": b"\xa2\x06" + varint(2**63) + b"conv",
    "a varint without end": b"\xa2\x06" + b"\xff" * 400,
    "2^31 values in 24 bytes": layer(shape(2**31 - 1) + FLOATS),
    "2^31 values that are said to be there": layer(shape(2**31 - 1) + b"\x2a" + varint(2**33)),
    "dims whose product overflows": layer(shape(2**33, 2**33, 6) + FLOATS),
    "dims whose product is 6 in 64 bits": layer(shape(2**32, 2**32, 6) + FLOATS),
    "a negative dim": layer(shape(-2, -3) + FLOATS),
    "legacy dims below 0": layer(b"\x08" + varint(2**64 - 1) + b"\x10" + varint(2**64 - 6) + FLOATS),
    "33 axes": layer(shape(*[1] * 33) + FLOATS),
    "a million axes": layer(shape(*[1] * 1_000_000) + FLOATS),
    "a group that does not end": b"\xfb\x07" * 5000,
    "groups nested": b"\xfb\x07" * 200 + b"\xfc\x07" * 200,
    "values cut in the middle": layer(shape(6) + b"\x2a\x18" + bytes(11)),
    "raw data of an unknown type": layer(shape(6) + b"\x50\x09" + field(12, bytes(24))),
    "raw data of half a value": layer(shape(6) + b"\x50\x01" + field(12, bytes(23))),
    "field 0": b"\x02\x01a",
    "wire type 7": b"\x0f\x01",
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_in_weights(name: str, tmp_path: Path) -> None:
    path = tmp_path / "bomb.caffemodel"
    path.write_bytes(BOMBS[name])
    with pytest.raises(DecantError, match=r"bomb\.caffemodel"):
        read_weights(path)


def text(path: Path) -> object:
    return prototxt.upgrade(prototxt.parse(path))


def records(path: Path) -> object:
    database = open_database(path.parent)
    return [parse(database[i]).pixels(database[i]) for i in range(len(database))]


def lmdb_with(at: int, value: int, width: int) -> bytes:
    data = bytearray((CORPUS / "data/lmdb_raw_gray/db/data.mdb").read_bytes())
    for meta in (0, 4096) if at < 4096 else (0,):
        data[meta + at : meta + at + width] = value.to_bytes(width, "little")
    return bytes(data)


def png(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x02\0\0\0" + bytes(20)


HOSTILE: dict[str, tuple[str, bytes, Callable[[Path], object]]] = {
    "text, 100,000 deep": ("n.prototxt", b"layer { a {" * 100_000, text),
    "text, 100,000 deep in a list": ("n.prototxt", b"a: [{" * 100_000, text),
    "text, 5,000 deep by turns": ("n.prototxt", b"a: [{ b { c { " * 1_700, text),
    "text, a string without end": ("n.prototxt", b'name: "' + b"\\" * 1_000_000, text),
    "text, a number of a million digits": ("n.prototxt", b"input_dim: " + b"9" * 1_000_000, text),
    "text, a blob of 2^31 x 2^31": (
        "n.prototxt",
        b'input: "x" input_dim: 2147483647 input_dim: 2147483647 input_dim: 2147483647 input_dim: 2',
        resolve,
    ),
    "text, a layer of 2^31 outputs": (
        "n.prototxt",
        b'input: "x" input_dim: 1 input_dim: 3 input_dim: 9 input_dim: 9 '
        b'layer { name: "c" type: "Convolution" bottom: "x" top: "c" convolution_param { num_output: 2147483647 kernel_size: 9 } }',
        resolve,
    ),
    "a definition of 9 MB": ("n.caffemodel", field(100, field(1, b"n" * (9 << 20))), read_definition),
    "a definition of a million empty layers": ("n.caffemodel", b"\xa2\x06\x00" * 1_000_000, read_definition),
    "a state of -1 iterations": ("s.solverstate", b"\x08" + varint(2**64 - 1), read_state),
    "a state without iteration": ("s.solverstate", b"\x12\x01a", read_state),
    "a state with a bomb of a blob": ("s.solverstate", b"\x08\x01" + field(3, shape(2**31 - 1) + FLOATS), read_state),
    "a mean of 0 channels": ("m.binaryproto", shape(1, 0, 3, 2), read_mean),
    "a mean of five axes": ("m.binaryproto", shape(1, 1, 1, 2, 3) + FLOATS, read_mean),
    "a mean of nothing": ("m.binaryproto", b"", read_mean),
    "an LMDB of 2^40 records": ("data.mdb", lmdb_with(120, 2**40, 8), records),
    "an LMDB whose root is far away": ("data.mdb", lmdb_with(128, 2**40, 8), records),
    "an LMDB with pages of 3 bytes": ("data.mdb", lmdb_with(16 + 24, 3, 4), records),
    "an LMDB cut to its metas": ("data.mdb", lmdb_with(16, 0xBEEFC0DE, 4)[:8192], records),
    "an LMDB of nothing": ("data.mdb", b"", records),
    "a PNG of 60,000 x 60,000": ("p.png", png(60_000, 60_000), read_image),
    "a PNG of 2^31 x 2^31": ("p.png", png(2**31, 2**31), read_image),
    "a JPEG of 65,535 x 65,535": ("p.jpg", b"\xff\xd8\xff\xc0\x00\x11\x08\xff\xff\xff\xff\x03" + bytes(30), read_image),
    "a BMP of -2^31 rows": ("p.bmp", b"BM" + bytes(12) + b"(\0\0\0" + b"\xff\xff\xff\x7f" + b"\0\0\0\x80" + bytes(30), read_image),
    "a PNG with a chunk of 1 GB": ("p.png", png(4, 5)[:33] + (1 << 30).to_bytes(4, "big") + b"IDAT" + bytes(20), read_image),
    "a PNM of 40,000 x 40,000": ("p.ppm", b"P6\n40000 40000\n255\n" + bytes(30), read_image),
    "snappy that unfolds to 4 GB": ("s", b"\xff\xff\xff\xff\x0f\x00a", lambda p: uncompress(p.read_bytes())),
    "a Datum of 2^31 x 2^31": ("d", b"\x08\x03\x10" + varint(2**31 - 1) + b"\x18" + varint(2**31 - 1) + b"\x22\x01a", lambda p: _pixels(p)),
    "a Datum of -1 channels": ("d", b"\x08" + varint(2**64 - 1) + b"\x10\x01\x18\x01\x22\x01a", lambda p: _pixels(p)),
}


def _pixels(path: Path) -> object:
    record = path.read_bytes()
    return parse(record).pixels(record)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_end_in_one_error(name: str, tmp_path: Path) -> None:
    """At once, too: none takes a second."""
    file, data, read = HOSTILE[name]
    (tmp_path / file).write_bytes(data)
    start = time.process_time()
    with pytest.raises(DecantError):
        read(tmp_path / file)
    assert time.process_time() - start < 5


@pytest.mark.parametrize("read", [read_weights, read_state, read_mean, read_image, lambda p: records(p), resolve], ids=range(6))
def test_files_of_nothing(read: Callable[[Path], object], tmp_path: Path) -> None:
    """A file of 0 bytes cannot be mapped; as weights it is valid, and holds none."""
    (tmp_path / "data.mdb").touch()
    if read is read_weights:
        assert not list(read_weights(tmp_path / "data.mdb"))
    elif read is resolve:
        assert not resolve(tmp_path / "data.mdb").steps
    else:
        with pytest.raises(DecantError):
            read(tmp_path / "data.mdb")


# HDF5 -----------------------------------------------------------------------------------------------------------------


def hdf5_with(path: Path, kind: str) -> Path:
    with h5py.File(path, "w") as f:
        group = f.create_group("data/conv")
        if kind == "huge":
            group.create_dataset("0", shape=(2**20, 2**20), dtype="f4", chunks=(1024, 1024), compression="gzip")
        elif kind == "overflow":
            group.create_dataset("0", shape=(2**40, 2**20), dtype="f4", chunks=(1, 1024))
        elif kind == "external link":
            group["0"] = h5py.ExternalLink("/etc/hostname", "/")
        elif kind == "external data":
            group.create_dataset("0", shape=(4,), dtype="u1", external=[("/etc/passwd", 0, 4)])
        elif kind == "soft link in a circle":
            group["0"] = h5py.SoftLink("/data/conv/1")
            group["1"] = h5py.SoftLink("/data/conv/0")
        elif kind == "strings":
            group["0"] = "a word"
        elif kind == "index":
            group["999999999"] = np.zeros(3, np.float32)
        elif kind == "virtual":
            layout = h5py.VirtualLayout(shape=(4,), dtype="u1")
            layout[:] = h5py.VirtualSource("/etc/passwd", "x", shape=(4,))
            group.create_virtual_dataset("0", layout)
    return path


@pytest.mark.parametrize("kind", ["huge", "overflow", "external link", "external data", "strings", "index", "virtual"])
def test_hdf5_that_leads_out_or_unfolds(kind: str, tmp_path: Path) -> None:
    with pytest.raises(DecantError):
        read_weights(hdf5_with(tmp_path / "w.h5", kind))


def test_a_link_in_a_circle_ends(tmp_path: Path) -> None:
    with contextlib.suppress(DecantError):
        read_weights(hdf5_with(tmp_path / "w.h5", "soft link in a circle"))


# LevelDB --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["CURRENT", "MANIFEST-000004", "000005.ldb", "magic", "loop"])
def test_damaged_leveldbs(damage: str, tmp_path: Path) -> None:
    entries = [(f"{i:08d}".encode(), i + 1, bytes([i]) * 30) for i in range(20)]
    folder = leveldb_table.write(tmp_path / "db", {1: [entries]})
    if damage == "magic":
        (folder / "000005.ldb").write_bytes((folder / "000005.ldb").read_bytes()[:-1])
    elif damage == "loop":
        (folder / "CURRENT").write_bytes(b"../../../../etc/passwd")
    else:
        (folder / damage).unlink()
    with pytest.raises(DecantError):
        len(open_database(folder))


# A file that becomes shorter ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["weights", "lmdb", "leveldb"])
def test_a_file_that_shrinks_ends_no_process(what: str, tmp_path: Path) -> None:
    """In a process of its own: a mapping would end it by SIGBUS."""
    code = f"""
import os, shutil, sys
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests")!r}]
from pathlib import Path
from prototxt import DecantError
what, here = {what!r}, Path({str(tmp_path)!r})
if what == "weights":
    from prototxt.weights import read_weights
    path = Path(shutil.copy({str(GOOD)!r}, here / "w.caffemodel"))
    weights = read_weights(path)
    use = lambda: [blob.values.sum() for layer in weights for blob in layer.blobs]
elif what == "lmdb":
    from prototxt.data import open_database
    shutil.copytree({str(CORPUS / "data/lmdb_raw_gray/db")!r}, here / "db")
    path, database = here / "db/data.mdb", open_database(here / "db")
    database[0]
    use = lambda: [database[i] for i in range(len(database))]
else:
    import leveldb_table
    from prototxt.data import open_database
    entries = [(f"{{i:08d}}".encode(), i + 1, os.urandom(3000)) for i in range(40)]
    leveldb_table.write(here / "db", {{1: [entries]}})
    path, database = here / "db/000005.ldb", open_database(here / "db")
    len(database)
    use = lambda: [database[i] for i in range(len(database))]
os.truncate(path, 3000)
try:
    use()
except DecantError as exc:
    print("refused:", exc)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("refused:")


# Nothing of a file runs -----------------------------------------------------------------------------------------------


def test_no_pickle_is_loaded_anywhere() -> None:
    """Not by name, and torch.load only as the reader that makes tensors alone; no eval, exec, nor import of a name from a file."""
    for path in (p for name in ("prototxt", "converters", "pycls") for p in (ROOT / name).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names = {alias.name.split(".")[0] for alias in node.names} | {(getattr(node, "module", None) or "").split(".")[0]}
                assert not names & {"pickle", "cPickle", "dill", "marshal", "shelve"}, f"{path}:{node.lineno}"
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in ("eval", "exec", "pickle.load", "numpy.load", "joblib.load"), f"{path}:{node.lineno}"
                if called == "torch.load":
                    assert any(k.arg == "weights_only" and ast.unparse(k.value) == "True" for k in node.keywords), f"{path}:{node.lineno}"
                if called == "np.load":
                    assert all(k.arg != "allow_pickle" or ast.unparse(k.value) == "False" for k in node.keywords), f"{path}:{node.lineno}"


def test_a_python_layer_runs_nothing_that_the_user_did_not_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("evil.py").write_text("open('ran', 'w')\nclass Evil: pass\n")
    Path("net.prototxt").write_text(
        'input: "x" input_dim: 1 input_dim: 1 input_dim: 1 input_dim: 1 '
        'layer { name: "p" type: "Python" bottom: "x" top: "y" python_param { module: "evil" layer: "Evil" } }'
    )
    with pytest.raises(DecantError, match="evil"):
        resolve("net.prototxt")
    assert not Path("ran").exists()
    assert "evil" not in sys.modules


# Writers --------------------------------------------------------------------------------------------------------------

WRITER = """
import sys
sys.path[:0] = [{root!r}]
import numpy as np
from prototxt.data import write_mean
from prototxt.message import new
from prototxt.models import Model, ModelLayer, write_model
from prototxt.states import SolverState, write_state
from prototxt.wire import Blob
from pathlib import Path
for n in range(1, 100000):
    print(n, flush=True)
    a = np.full(150_000, n, np.float32)
    layer = ModelLayer(new("LayerParameter", name="l"), (Blob(a.shape, False, a),))
    for name in ("w.caffemodel", "w.h5"):
        write_model(name, Model(Path(name), new("NetParameter"), (layer,)))
    for name in ("s.solverstate", "s.solverstate.h5"):
        write_state(name, SolverState(n, "w", 0, (a,)))
    write_mean("m.binaryproto", a.reshape(3, 250, 200))
"""


def test_a_kill_at_any_moment_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(8):
        child = subprocess.Popen([sys.executable, "-c", WRITER.format(root=str(ROOT))], cwd=tmp_path, stdout=subprocess.PIPE)
        assert child.stdout
        child.stdout.readline(), child.stdout.readline()  # one round is done
        time.sleep(float(rng.uniform(0.02, 0.25)))
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()
        for name in ("w.caffemodel", "w.h5", "s.solverstate", "s.solverstate.h5", "m.binaryproto"):
            if not (tmp_path / name).exists():
                continue
            if name.startswith("w"):
                (layer_,) = read_weights(tmp_path / name)
                values = layer_.blobs[0].values
            elif name.startswith("s"):
                state = read_state(tmp_path / name)
                values = state.history[0]
                assert values[0] == state.iter
            else:
                values = read_mean(tmp_path / name)
            assert values.size == 150_000
            assert (values == values.reshape(-1)[0]).all()  # of one round, never of two
            seen.add(name)
    assert len(seen) == 5


# The fuzzer's seeds ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def readers() -> dict[str, object]:
    spec = importlib.util.spec_from_file_location("fuzz", ROOT / "benchmarks/fuzz.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["fuzz"] = module
    spec.loader.exec_module(module)
    return module.readers()  # type: ignore[no-any-return]


def test_what_the_fuzzer_kept_is_still_read_or_refused(readers: dict[str, object], tmp_path: Path) -> None:
    assert SEEDS
    prepared: dict[str, Path] = {}
    for path in SEEDS:
        reader = readers[path.parent.name.replace("-", " ").replace("caffemodel h5", "caffemodel.h5")]
        folder = prepared.get(path.parent.name)
        if folder is None:
            folder = prepared[path.parent.name] = tmp_path / path.parent.name
            folder.mkdir()
            reader.prepare(folder)  # type: ignore[attr-defined]
        (folder / reader.name).write_bytes(path.read_bytes())  # type: ignore[attr-defined]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                reader.read(folder / reader.name)  # type: ignore[attr-defined]
            except DecantError:
                pass
            except Exception as exc:
                raise AssertionError(f"{path}: {type(exc).__name__}: {exc}") from exc
