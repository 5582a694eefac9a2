"""Golden values of the shipped nets: `python scripts/golden.py --update` writes tests/golden/complexity.json; the tests only read it."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "tests/golden/complexity.json"
sys.path.insert(0, str(ROOT))


def complexity() -> dict[str, dict[str, object]]:
    """Per shipped net: layers, parameters, multiply-adds, output shapes."""
    from converters import resolve

    found = {}
    for path in sorted((ROOT / "prototxt/nets").glob("*.prototxt")):
        graph = resolve(path)
        outputs = {blob: list(graph.blob_shapes[blob]) for blob in graph.outputs}
        found[path.stem] = {"layers": len(graph.steps), "parameters": graph.parameters, "macs": graph.macs, "outputs": outputs}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--update", action="store_true", help="write the file; without it, only show what differs")
    args = parser.parse_args()
    now = complexity()
    then = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    for name in sorted(now.keys() | then.keys()):
        if now.get(name) != then.get(name):
            print(f"{name}: {then.get(name)} -> {now.get(name)}")
    if args.update:
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(json.dumps(now, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
