"""Real Caffe is the judge: the recorded corpus, case by case."""

from __future__ import annotations

import fnmatch
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import CORPUS, ROOT, SHARED

_spec = importlib.util.spec_from_file_location("conformance_check", CORPUS / "check.py")
assert _spec
assert _spec.loader
check = importlib.util.module_from_spec(_spec)
sys.modules["conformance_check"] = check
_spec.loader.exec_module(check)

UNRUNNABLE = ("weights_upgrade_binary",)  # holds no net to load into; test_weights.py reads it
KINDS = ("layers", "nets", "solvers", "reject", "text", "upgrade", "weights", "data")
BEYOND = ("models", "wild")
DIFFERENCES = (ROOT / "docs/caffe-differences.md").read_text()  # names the cases where Decant is more generous than Caffe


def cases() -> list[Any]:
    """One parameter a case; those of files that are not part of the repository where they are at hand."""
    found = []
    for kind in KINDS + BEYOND:
        root = SHARED / "conformance" if kind in BEYOND else CORPUS
        if kind in BEYOND and not (SHARED / kind).is_dir():
            reason = "other people's files, which are not beside this checkout"
            found.append(pytest.param(None, None, id=kind, marks=pytest.mark.skip(reason=reason)))
            continue
        for stem, run in check.find(root, kind):
            place = stem[0] if kind == "wild" else stem
            if place.name in UNRUNNABLE:
                continue
            found.append(pytest.param(stem, run, id=os.path.relpath(place, root)))
    return found


@pytest.mark.filterwarnings("ignore:.*have no effect")  # force_color on raw records is a complaint, in Caffe too
@pytest.mark.parametrize(("stem", "run"), cases())
def test_agrees_with_caffe(stem: Any, run: Any) -> None:
    place = Path(stem[0] if isinstance(stem, tuple) else stem)
    quirk = CORPUS in place.parents and any(fnmatch.fnmatch(os.path.relpath(place, CORPUS), p) for p in check.quirks(CORPUS))
    try:
        problems = run(stem).problems
    except Exception as exc:
        if not quirk or type(exc).__module__.split(".")[0] not in ("prototxt", "converters", "pycls"):
            raise
        return  # refused, with an error that names the defect
    if quirk:
        problems = [p for p in problems if not p.startswith("gradient")]
    assert not problems or (problems[0].startswith("accepted") and f"`{place.parent.name}/{place.stem}`" in DIFFERENCES)
