"""A LevelDB written by hand, for tests and the fuzzer: tables with prefix-compressed keys, snappy blocks, levels, deletions; a manifest.

Format: leveldb/doc/{table_format,log_format,impl}.md. Checksums are zeros: LevelDB itself would want them, the reader under test does not look.
"""

from __future__ import annotations

from pathlib import Path

from prototxt.wire import varint

Entry = tuple[bytes, int, bytes | None]  # key, sequence, value; None deletes
MAGIC = (0xDB4775248B80FB57).to_bytes(8, "little")


def snappy(data: bytes) -> bytes:
    """Literals, and a copy for each run of one byte: elements of both kinds, short and long."""
    out, at = bytearray(varint(len(data))), 0
    while at < len(data):
        run = next((n for n in range(1, min(64, len(data) - at)) if data[at + n] != data[at]), min(64, len(data) - at))
        if run > 4:
            out += bytes([0, data[at], (run - 2) << 2 | 2, 1, 0])  # one literal, then run - 1 bytes from one before
            at += run
            continue
        stop = next((n for n in range(at, min(len(data), at + 90)) if len(set(data[n : n + 6])) == 1 and n + 6 <= len(data)), min(len(data), at + 90))
        stop = max(stop, at + 1)
        size = stop - at
        out += (bytes([(size - 1) << 2]) if size <= 60 else bytes([60 << 2, size - 1])) + data[at:stop]
        at = stop
    return bytes(out)


def block(entries: list[tuple[bytes, bytes]]) -> bytes:
    out, restarts, last = bytearray(), [], b""
    for n, (key, value) in enumerate(entries):
        shared = 0
        if n % 4:
            while shared < min(len(last), len(key)) and last[shared] == key[shared]:
                shared += 1
        else:
            restarts.append(len(out))
        out += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        last = key
    restarts = restarts or [0]
    return bytes(out) + b"".join(r.to_bytes(4, "little") for r in restarts) + len(restarts).to_bytes(4, "little")


def table(entries: list[Entry], *, compressed: bool, block_entries: int = 5) -> bytes:
    out, index = bytearray(), []
    rows = [(k + (seq << 8 | (v is not None)).to_bytes(8, "little"), v or b"") for k, seq, v in sorted(entries, key=lambda e: (e[0], -e[1]))]
    for at in range(0, len(rows), block_entries):
        part = rows[at : at + block_entries]
        index.append((part[-1][0], _append(out, block(part), compressed=compressed)))
    meta = _append(out, block([]), compressed=False)
    footer = meta + _append(out, block(index), compressed=False)
    return bytes(out) + footer.ljust(40, b"\0") + MAGIC


def _append(out: bytearray, data: bytes, *, compressed: bool) -> bytes:
    data = snappy(data) if compressed else data
    handle = varint(len(out)) + varint(len(data))
    out += data + bytes([compressed]) + bytes(4)
    return handle


def log(records: list[bytes]) -> bytes:
    """Records in pieces that cross no block of 32 KiB."""
    out = bytearray()
    for record in records:
        first = True
        while True:
            room = 32768 - len(out) % 32768
            if room < 7:
                out += bytes(room)
                continue
            piece, record = record[: room - 7], record[room - 7 :]
            kind = (1 if first else 4) if not record else (2 if first else 3)
            out += bytes(4) + len(piece).to_bytes(2, "little") + bytes([kind]) + piece
            first = False
            if not record:
                break
    return bytes(out)


def batch(entries: list[Entry]) -> bytes:
    """One record of a log: consecutive sequences from the first entry's on."""
    body = b"".join(bytes([v is not None]) + varint(len(k)) + k + (varint(len(v)) + v if v is not None else b"") for k, _, v in entries)
    return entries[0][1].to_bytes(8, "little") + len(entries).to_bytes(4, "little") + body


def write(folder: Path, levels: dict[int, list[list[Entry]]], recent: list[list[Entry]] = [], *, compressed: bool = True) -> Path:  # noqa: B006
    """A database of tables by level, and batches that only the log has."""
    folder.mkdir(parents=True, exist_ok=True)
    edits, number = [b"\x01" + varint(26) + b"leveldb.BytewiseComparator"], 5
    for level, tables in levels.items():
        for entries in tables:
            data = table(entries, compressed=compressed)
            (folder / f"{number:06d}.{'ldb' if number % 2 else 'sst'}").write_bytes(data)
            keys = sorted(k for k, _, _ in entries)
            bounds = b"".join(varint(len(k) + 8) + k + bytes(8) for k in (keys[0], keys[-1]))
            edits.append(b"\x07" + varint(level) + varint(number) + varint(len(data)) + bounds)
            number += 1
    edits += [b"\x02" + varint(number), b"\x03" + varint(number + 1), b"\x04" + varint(1000)]
    (folder / f"{number:06d}.log").write_bytes(log([batch(entries) for entries in recent]))
    (folder / "MANIFEST-000004").write_bytes(log(edits))
    (folder / "CURRENT").write_bytes(b"MANIFEST-000004\n")
    return folder
