"""Every command and every example of the README and the docs runs, in a folder that has the files they name."""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import CORPUS, ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INSTALLS = ("python -m pip", "python -m pytest")  # .ci/run runs these, in an environment of its own


def blocks(language: str) -> list[tuple[str, str]]:
    """(page, text) of each block of a language; "" are shell commands."""
    return [(page.name, text) for page in PAGES for name, text in BLOCK.findall(page.read_text()) if name == language]


def commands() -> list[str]:
    """Each command of ours on a page, chained ones apart."""
    lines = [line.split("  #")[0] for _, text in blocks("") for line in text.splitlines()]
    found = [part.strip() for line in lines for part in line.split("&&")]
    return list(dict.fromkeys(c for c in found if c.startswith(("python", "decant"))))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a net of each kind that the pages name, and the repository's own folders."""
    for name, source in (
        ("deploy.prototxt", "nets/lenet-deploy.prototxt"),
        ("net.caffemodel", "nets/lenet-deploy.caffemodel"),
        ("old.prototxt", "nets/v1-classifier.prototxt"),
        ("run.npz", "nets/lenet-deploy.npz"),
    ):
        shutil.copy(CORPUS / source, tmp_path / name)
    for source in [*(CORPUS / "solvers/conv_net").iterdir(), *(CORPUS / "data/images_color").glob("*.png")]:
        shutil.copy(source, tmp_path)
    shutil.copy(CORPUS / "data/images_color/list.txt", tmp_path / "images.txt")
    shutil.copytree(CORPUS / "data/lmdb_raw_gray/db", tmp_path / "train_lmdb")
    for name in ("prototxt", "converters", "pycls", "benchmarks", "cli.py"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


@pytest.mark.parametrize("command", [c for c in commands() if not c.startswith(INSTALLS) and "benchmarks/" not in c])
def test_commands_run(command: str, folder: Path) -> None:
    words = [sys.executable, *shlex.split(command)[1:]]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("text", [text for page, text in blocks("python") if page in ("README.md", "data.md")])
def test_examples_run(text: str, folder: Path) -> None:
    done = subprocess.run([sys.executable, "-c", text], cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def test_ci_runs_the_readmes_test_command() -> None:
    (line,) = [line for _, text in blocks("") for line in text.splitlines() if line.startswith(INSTALLS) and "pytest" in line]
    script = (ROOT / ".ci/run").read_text()
    for command in line.split("&&"):
        wanted = shlex.split(command)[1:]
        assert all(word in script for word in wanted), f"{command} is not what .ci/run does"


def test_the_page_of_layers_is_current() -> None:
    spec = importlib.util.spec_from_file_location("layers_script", ROOT / "scripts/layers.py")
    assert spec
    assert spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert (ROOT / "docs/layers.md").read_text() == script.page(), "run python scripts/layers.py"


def test_benchmarks_named_on_pages_exist() -> None:
    for command in commands():
        for word in shlex.split(command):
            if word.startswith("benchmarks/"):
                assert (ROOT / word).is_file(), word


def test_a_plugin_from_the_page_works(folder: Path) -> None:
    """The example of docs/adding-a-layer.md, as a module of its own."""
    (text,) = [text for page, text in blocks("python") if page == "adding-a-layer.md" and "import torch" in text]
    text += (
        "\nimport converters\n"
        "from prototxt import parse_text\n"
        'net = converters.load(parse_text(\'input: "x" input_shape { dim: 2 dim: 3 } layer { type: "Square" bottom: "x" top: "y" }\'))\n'
        "x = torch.randn(2, 3)\n"
        "assert net(x).equal(x * x)\n"
        "from converters.source import to_source\n"
        "assert 'class Square' in to_source(net)\n"
    )
    (folder / "plugin.py").write_text(text)
    done = subprocess.run([sys.executable, "plugin.py"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
