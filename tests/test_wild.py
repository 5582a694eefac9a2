"""Public nets of forks, that neither of the recorded Caffes can read: what docs/wild.md counts is what happens."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from conftest import ROOT


def test_public_nets_of_forks_are_met_as_the_page_says(wild: Path) -> None:
    spec = importlib.util.spec_from_file_location("wild_script", ROOT / "scripts/wild.py")
    assert spec
    assert spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.page(wild) == (ROOT / "docs/wild.md").read_text(), "run python scripts/wild.py"
