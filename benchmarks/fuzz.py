"""Hostile files: mutate the corpus, read the result, and count what is not one of our errors.

    python benchmarks/fuzz.py [--inputs 1000000] [--seed 0]

Each reader gets its share of inputs, made from its own seeds by cuts, flips, repeats, splices and numbers at the edges. A finding is an
exception outside of our tree, more than five seconds for one input, or a process that dies; it is saved beside the report.
"""

from __future__ import annotations

import argparse
import collections
import os
import random
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
CORPUS = ROOT / "tests/conformance"
EDGES = (0, 1, 127, 128, 255, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)
TOKENS = (b"{", b"}", b"<", b">", b"[", b"]", b":", b";", b",", b'"', b"'", b"#", b"\\", b"\n", b"-", b"1e999", b"0x", b"inf", b"layer {", b"dim: ")


def varint(value: int) -> bytes:
    """A number as protobuf writes it."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def mutate(seed: bytes, other: bytes, rng: random.Random) -> bytes:
    """A damaged copy of a seed: one to four changes."""
    data = bytearray(seed)
    for _ in range(rng.randint(1, 4)):
        at = rng.randint(0, len(data))
        match rng.randrange(7):
            case 0:
                del data[at:]
            case 1 if data:
                data[min(at, len(data) - 1)] = rng.randrange(256)
            case 2:
                data[at:at] = varint(rng.choice(EDGES))
            case 3:
                data[at:at] = rng.choice(TOKENS) * rng.choice((1, 1, 2, 200))
            case 4:
                del data[at : at + rng.randint(1, 16)]
            case 5:
                start = rng.randint(0, len(other))
                data[at:at] = other[start : start + rng.randint(1, 64)]
            case 6:
                piece = bytes(data[at : at + rng.randint(1, 32)])
                data[at:at] = piece * rng.choice((1, 2, 50))
    return bytes(data)


def readers() -> dict[str, tuple[list[bytes], Callable[[Path], object]]]:
    """Each reader with its seeds."""
    import prototxt
    from converters.resolution import resolve
    from prototxt.weights import read_weights

    def net(path: Path) -> object:
        return resolve(path)

    def text(path: Path) -> object:
        return prototxt.to_text(prototxt.upgrade(prototxt.parse(path)))

    def solver(path: Path) -> object:
        return prototxt.upgrade(prototxt.parse(path, kind="solver"))

    def weights(path: Path) -> object:
        return [float(blob.values.sum()) for layer in read_weights(path) for blob in layer.blobs]

    def seeds(pattern: str, limit: int = 4000) -> list[bytes]:
        found = [p.read_bytes() for p in sorted(CORPUS.glob(pattern))]
        return [data for data in found if len(data) <= limit]

    return {
        "prototxt": (seeds("nets/*.prototxt") + seeds("formats/text/*.prototxt") + seeds("formats/upgrade_*/*.prototxt"), text),
        "net": (seeds("nets/*.prototxt") + seeds("layers/*/*.prototxt"), net),
        "solver": (seeds("solvers/*/solver.prototxt"), solver),
        "caffemodel": (seeds("nets/*.caffemodel", 8000) + seeds("formats/weights_*/*.caffemodel", 8000), weights),
        "caffemodel.h5": (seeds("formats/weights_*/*.h5", 20000), weights),
    }


def late(signum: int, frame: object) -> None:
    """One input took too long."""
    raise TimeoutError("more than five seconds")


def fuzz(name: str, seeds: list[bytes], read: Callable[[Path], object], inputs: int, rng: random.Random, folder: Path) -> collections.Counter[str]:
    """Outcomes of `inputs` mutated files: read, refused, or the name of a finding."""
    from prototxt.errors import DecantError

    outcomes: collections.Counter[str] = collections.Counter()
    path = folder / f"input.{name}"
    for n in range(inputs):
        data = mutate(rng.choice(seeds), rng.choice(seeds), rng)
        path.write_bytes(data)
        signal.alarm(5)
        try:
            read(path)
            outcomes["read"] += 1
        except DecantError:
            outcomes["refused"] += 1
        except BaseException as exc:  # that is what is looked for
            if isinstance(exc, KeyboardInterrupt):
                raise
            outcomes[f"FINDING {type(exc).__name__}: {str(exc)[:80]}"] += 1
            (Path(tempfile.gettempdir()) / f"decant-finding-{name}-{n}").write_bytes(data)
        finally:
            signal.alarm(0)
    return outcomes


def main() -> None:
    """Fuzz all readers, a fifth of the inputs each, and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
    signal.signal(signal.SIGALRM, late)
    found = 0
    everything = {name: (seeds, read) for name, (seeds, read) in readers().items() if seeds}
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        for name, (seeds, read) in everything.items():
            start = time.perf_counter()
            outcomes = fuzz(name, seeds, read, args.inputs // len(everything), random.Random(args.seed), Path(folder))
            findings = {k: v for k, v in outcomes.items() if k.startswith("FINDING")}
            found += sum(findings.values())
            print(
                f"{name:<14} {sum(outcomes.values()):>8,} inputs  {outcomes['read']:>8,} read  {outcomes['refused']:>8,} refused  "
                f"{sum(findings.values()):>4} findings  {time.perf_counter() - start:6.0f} s",
                flush=True,
            )
            for kind, count in sorted(findings.items(), key=lambda kv: -kv[1])[:12]:
                print(f"    {count:>6} x {kind}")
    print(f"{found} findings")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
