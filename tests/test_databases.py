"""Databases as lmdb itself writes them, of a size that the recorded cases do not have."""

from __future__ import annotations

from pathlib import Path

import lmdb
import numpy as np
import pytest

from prototxt.data import open_database
from prototxt.data.databases import Records
from prototxt.data.datum import datum
from prototxt.data.transform import Transform


@pytest.mark.parametrize(("records", "size"), [(3, 9000), (300, 780), (4000, 780)], ids=["overflow pages", "two levels", "three levels"])
def test_a_database_is_read_as_it_was_written(records: int, size: int, tmp_path: Path) -> None:
    """Small records stand in the leaves; from some thousands on the tree has three levels."""
    value = [f"{i:06}".encode() * (size // 6) for i in range(records)]
    with lmdb.open(str(tmp_path), map_size=1 << 26) as env:
        with env.begin(write=True) as transaction:
            for i in range(records):
                transaction.put(f"{i:08}_x".encode(), value[i])
        assert env.stat()["depth"] == {3: 1, 300: 2, 4000: 3}[records]
    database = open_database(tmp_path)
    assert [bytes(database[i]) for i in range(len(database))] == value


@pytest.mark.parametrize("mean", [None, "values", "file"])
def test_random_crops_of_a_batch_are_those_of_its_records(mean: str | None, tmp_path: Path) -> None:
    """A batch is transformed at once where that is possible; records that do not follow each other go one by one."""
    generator = np.random.default_rng(0)
    with lmdb.open(str(tmp_path), map_size=1 << 22) as env, env.begin(write=True) as transaction:
        for i in range(40):
            pixels = generator.integers(0, 256, (3, 9, 7), dtype=np.uint8)
            transaction.put(f"{i:04}".encode(), datum(pixels.shape, pixels.tobytes(), i))
    image = generator.normal(size=(3, 9, 7)).astype("f4") if mean == "file" else None
    transform = Transform(0.5, 5, True, True, image, np.array([3, 5, 7], "f4") if mean == "values" else None)
    records, draws = Records(open_database(tmp_path), transform), generator.random((12, 3))
    for indices in (range(3, 15), [0, 5, 6, 7, 39, 1, 2, 3, 4, 20, 30, 31]):
        images, labels = records.batch(indices, draws)
        assert labels.tolist() == list(indices)
        for picture, index, draw in zip(images, indices, draws, strict=True):
            want = np.empty((3, 5, 5), np.float32)
            transform.apply(records[index].pixels, want, draw)
            np.testing.assert_array_equal(picture, want)
