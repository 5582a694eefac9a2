"""Weights: every spelling of the wire, damage, what fits, and the way back."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

import numpy as np
import pytest
from conftest import CORPUS
from hypothesis import given, settings
from hypothesis import strategies as st

import converters
from prototxt import WeightsError
from prototxt.schema import caffe_pb2
from prototxt.weights import read_weights
from prototxt.wire import Run

VALUES = np.random.default_rng(3).standard_normal(30).astype(np.float32)
SHAPE = (2, 3, 5)


def blob_bytes(spelling: str) -> bytes:
    """A BlobProto of SHAPE with VALUES, by protobuf itself or by hand where protobuf would not write it so."""
    blob = caffe_pb2.BlobProto()
    if spelling == "legacy":
        blob.num, blob.channels, blob.height, blob.width = 1, *SHAPE
    else:
        blob.shape.dim.extend(SHAPE)
    if spelling in ("packed", "legacy"):
        blob.data.extend(VALUES)
    elif spelling == "double":
        blob.double_data.extend(VALUES.astype(np.float64))
        blob.data.extend(-VALUES)  # loses
    elif spelling in ("half", "raw float"):
        raw = VALUES.astype(np.float16) if spelling == "half" else VALUES
        blob.raw_data_type, blob.raw_data = (2 if spelling == "half" else 1), raw.tobytes()
    head = blob.SerializeToString()
    if spelling == "one by one":
        return head + b"".join(b"\x2d" + v.tobytes() for v in VALUES)
    if spelling == "pieces":
        pieces = [VALUES[:7], VALUES[7:8], VALUES[8:]]
        return (
            head
            + b"".join(b"\x2a" + bytes([4 * p.size]) + p.tobytes() for p in pieces[:2])
            + b"\x2d"
            + pieces[2][:1].tobytes()
            + (b"\x2a" + bytes([4 * (pieces[2].size - 1)]) + pieces[2][1:].tobytes())
        )
    if spelling == "unknown fields":
        return b"\xf8\x07\x05" + b"\xfb\x07\x08\x01\xfc\x07" + blob_bytes("packed") + b"\xfa\x07\x03abc"
    return head


@pytest.mark.parametrize("generation", ["V2", "V1"])
@pytest.mark.parametrize("spelling", ["packed", "legacy", "double", "half", "raw float", "one by one", "pieces", "unknown fields"])
def test_every_spelling_gives_the_same_values(spelling: str, generation: str, tmp_path: Path) -> None:
    net = caffe_pb2.NetParameter(name="n")
    layer = net.layer.add() if generation == "V2" else net.layers.add()
    layer.name = "conv"
    data = blob_bytes(spelling)
    tag = b"\x3a" if generation == "V2" else b"\x32"
    body = layer.SerializeToString() + tag + bytes([len(data) & 127 | 128, len(data) >> 7]) + data
    outer = b"\xa2\x06" if generation == "V2" else b"\x12"
    (tmp_path / "n.caffemodel").write_bytes(b"\x0a\x01n" + outer + bytes([len(body) & 127 | 128, len(body) >> 7]) + body)
    (read,) = read_weights(tmp_path / "n.caffemodel")
    (blob,) = read.blobs
    assert read.name == "conv"
    assert blob.shape == ((1, *SHAPE) if spelling == "legacy" else SHAPE)
    np.testing.assert_allclose(blob.values.reshape(-1), VALUES, rtol=1e-3 if spelling == "half" else 0)


def test_values_stay_in_the_file_until_asked_for() -> None:
    for layer in read_weights(CORPUS / "nets/alexnet-mini.caffemodel"):
        assert all(isinstance(blob.held, Run) for blob in layer.blobs)
        assert all(not blob.view.flags.owndata and not blob.view.flags.writeable for blob in layer.blobs)
        assert all((blob.view == blob.values).all() for blob in layer.blobs)


GOOD = (CORPUS / "nets/awkward-names.caffemodel").read_bytes()


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damage_is_found_or_harmless(data: st.DataObject) -> None:
    """Any change of a few bytes, or any cut, reads as weights or is refused; nothing else comes out."""
    damaged = bytearray(GOOD[: data.draw(st.integers(0, len(GOOD)))])
    for _ in range(data.draw(st.integers(0, 4))):
        if damaged:
            damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    with tempfile.NamedTemporaryFile(suffix=".caffemodel") as f:
        f.write(damaged)
        f.flush()
        with contextlib.suppress(WeightsError):
            for layer in read_weights(f.name):
                for blob in layer.blobs:
                    assert blob.values.size <= len(damaged)


@pytest.mark.parametrize("suffix", [".caffemodel", ".h5", ".safetensors"])
@pytest.mark.parametrize("stem", ["lenet-deploy", "resnet-mini@test", "share-permissive", "share-strict", "awkward-names"])
def test_weights_come_back_from_every_format(stem: str, suffix: str, tmp_path: Path) -> None:
    path = CORPUS / f"nets/{stem}.prototxt"
    net, other = converters.load(path, weights=path.with_suffix(".caffemodel")), converters.load(path)
    net.save(tmp_path / f"w{suffix}")
    copied = other.load(tmp_path / f"w{suffix}")
    assert not copied.kept
    for layer, tensors in net.params().items():
        for mine, theirs in zip(tensors, other.params()[layer], strict=True):
            assert mine.shape == theirs.shape
            assert mine.equal(theirs)


def test_protobuf_reads_what_is_written(tmp_path: Path) -> None:
    path = CORPUS / "nets/lenet-deploy.prototxt"
    converters.load(path, weights=path.with_suffix(".caffemodel")).save(tmp_path / "w.caffemodel")
    written = caffe_pb2.NetParameter.FromString((tmp_path / "w.caffemodel").read_bytes())
    original = caffe_pb2.NetParameter.FromString(path.with_suffix(".caffemodel").read_bytes())
    want = {layer.name: [(list(b.shape.dim), list(b.data)) for b in layer.blobs] for layer in original.layer if layer.blobs}
    assert {layer.name: [(list(b.shape.dim), list(b.data)) for b in layer.blobs] for layer in written.layer if layer.blobs} == want


def test_arrays_by_layer_name() -> None:
    net = converters.load(CORPUS / "nets/lenet-deploy.prototxt")
    arrays = {name: [np.full(t.shape, 2.5, np.float32) for t in tensors] for name, tensors in net.params().items()}
    copied = net.load(arrays)
    assert set(copied.loaded) == set(arrays)
    assert all((t == 2.5).all() for tensors in net.params().values() for t in tensors)


def test_a_file_that_becomes_shorter_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "w.caffemodel"
    path.write_bytes(GOOD)
    blob = next(b for layer in read_weights(path) for b in layer.blobs)
    assert blob.view.sum() == blob.values.sum()
    path.write_bytes(GOOD[:10])  # the same file, cut: what reads its mapping now ends the interpreter
    for read in (lambda: blob.values, lambda: blob.view, lambda: blob.read_into(np.empty(blob.shape, np.float32))):
        with pytest.raises(WeightsError, match="shorter"):
            read()


def test_an_upgraded_file_holds_what_the_old_one_did() -> None:
    """formats/weights_upgrade_binary: Caffe's upgrade_net_proto_binary changes the layers' form, not their values."""
    folder = CORPUS / "formats/weights_upgrade_binary"
    old, new = read_weights(folder / "input.caffemodel"), read_weights(folder / "expected.caffemodel")
    found = [{layer.name: [blob.array.tolist() for blob in layer.blobs] for layer in file if layer.blobs} for file in (old, new)]
    assert found[0] == found[1]
    assert found[0]
