"""The real job: each public model with its weights goes through the command, and every number on its card holds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import SHARED, Decant

MODELS = sorted(p.parent for p in (SHARED / "models").glob("*/deploy.prototxt"))
ABSENT = [pytest.param(None, marks=pytest.mark.skip(reason="the public models are not beside this checkout"))]


@pytest.mark.parametrize("folder", MODELS or ABSENT, ids=lambda p: p.name if p else "none")
def test_a_public_model_converts_with_proof(folder: Path, decant: Decant, tmp_path: Path) -> None:
    goldens = [word for path in sorted(folder.glob("golden*.npz")) for word in ("--golden", path)]
    done = decant("convert", folder / "deploy.prototxt", "-w", next(folder.glob("*.caffemodel")), "-o", "out", *goldens)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    (card,) = (tmp_path / "out").glob("*.proof.json")
    against = [m["against"] for m in json.loads(card.read_text())["measurements"]]
    assert len(against) == 3 + len(goldens) // 2
