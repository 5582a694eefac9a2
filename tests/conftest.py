"""What the tests share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import torch

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the tests run side by side

ROOT = Path(__file__).resolve().parents[1]
CORPUS = Path(__file__).parent / "conformance"
SHARED = ROOT.parent / "shared"


@pytest.fixture
def models() -> Path:
    """Public models with real Caffe's numbers; they are other people's files and not part of the repository."""
    if not (SHARED / "models").is_dir():
        pytest.skip("the public models are not beside this checkout")
    return SHARED / "models"


@pytest.fixture
def wild() -> Path:
    """Public prototxts with real Caffe's shapes; likewise."""
    if not (SHARED / "wild").is_dir():
        pytest.skip("the public prototxts are not beside this checkout")
    return SHARED / "wild"


@pytest.fixture
def generator() -> torch.Generator:
    """A source of random numbers, the same for every test."""
    import torch

    return torch.Generator().manual_seed(0)


Decant = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def decant(tmp_path: Path) -> Decant:
    """Run the command line in a process of its own, in an empty folder."""

    def run(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(ROOT / "cli.py"), *map(str, arguments)]
        return subprocess.run(command, cwd=cwd or tmp_path, capture_output=True, text=True, timeout=300)

    return run
