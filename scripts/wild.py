"""Make docs/wild.md: how Decant meets public prototxts that neither BVLC Caffe nor the SSD fork can read.

`python scripts/wild.py [FOLDER]`, a folder of .prototxt files and the expected.json that names those (`schema: none`); ../shared/wild by default.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
WILD = ROOT.parent / "shared/wild"

HEAD = """# Public nets of forks

{total} of {all} public net definitions can be read by neither BVLC Caffe nor the SSD fork: they come from other forks, and have fields or
layers of their own. What Decant makes of each, in the phase of the two that gets further; `python scripts/wild.py FOLDER` makes this page of
a folder of prototxts, which are other people's files and not part of the repository.

| | nets |
|---|---|
"""


def outcome(path: Path) -> str:
    """`built`, or why not, in a few words; the phase that gets further counts."""
    import converters
    import prototxt

    try:
        prototxt.parse(path, kind="net")
    except prototxt.DecantError as exc:
        return "no text format: " + ("a template of Python's str.format" if "'{'" in str(exc) else "a word of a template in place of a number")
    found = []
    for phase in ("TEST", "TRAIN"):
        try:
            converters.resolve(path, phase=phase)
        except prototxt.DecantError as exc:
            found.append(reason(str(exc)))
        else:
            return "built"
    return min(found, key=rank)


def rank(why: str) -> tuple[int, str]:
    """The more telling of two reasons first."""
    order = ("needs a shape", "refused: type", "refused: field", "refused")
    return next(i for i, start in enumerate((*order, "")) if why.startswith(start)), why


def reason(message: str) -> str:
    """A refusal in a few words."""
    if "give it: --shape" in message:
        return "needs a shape that only the data tell (`--shape data=N,C,H,W`)"
    types = re.findall(r"no rule for layer type '([^']+)'", message) or re.findall(r"layer '[^']+': (\w+): ", message)
    types += [f"Python {name}" for name in re.findall(r"the Python layer '([^']+)'", message)]
    if types:
        return f"refused: type {', '.join(sorted(set(types)))}"
    field = re.search(r"\((\w+)\): (\w+_param\.\w+): the rule of this type does not read", message)
    if field:
        return f"refused: field {field[2]} of {field[1]}"
    if "older ones had scale and bias first" in message:
        return "refused: BatchNorm with scale and bias inside, in an order that its fields do not tell"
    if "cannot become" in message:
        return "refused: a Reshape in it does not go with its own sizes"
    return "refused: " + message.splitlines()[0].split("): ")[-1]


def outcomes(folder: Path) -> dict[str, str]:
    """What became of each net that both schemas refuse, by its name."""
    expected = json.loads((folder / "expected.json").read_text())
    return {name: outcome(folder / f"{name}.prototxt") for name, entry in expected.items() if entry.get("schema") == "none"}


def page(folder: Path) -> str:
    """The page's text."""
    found = outcomes(folder)
    counts = sorted(Counter(found.values()).items(), key=lambda item: (item[0] != "built", -item[1], item[0]))
    everything = len(json.loads((folder / "expected.json").read_text()))
    return HEAD.format(total=len(found), all=everything) + "".join(f"| {what} | {count} |\n" for what, count in counts)


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else WILD
    (ROOT / "docs/wild.md").write_text(page(folder))


if __name__ == "__main__":
    main()
