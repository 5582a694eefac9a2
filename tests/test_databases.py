"""Databases as lmdb itself writes them, of a size that the recorded cases do not have."""

from __future__ import annotations

from pathlib import Path

import lmdb
import pytest

from prototxt.data import open_database


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
