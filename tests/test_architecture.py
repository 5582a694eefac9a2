"""The architecture, the schema, lint and types as tests."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

ALLOWED = {
    "prototxt": {"prototxt"},
    "converters": {"prototxt", "converters"},
    "pycls": {"prototxt", "converters", "pycls"},
    "cli": {"prototxt", "converters", "pycls"},
}
SOURCES = [*sorted(p for name in ("prototxt", "converters", "pycls") for p in (ROOT / name).rglob("*.py")), ROOT / "cli.py"]


def imports(path: Path, *, top_level: bool = False) -> set[str]:
    """Absolute names of the modules that a file imports; at its top level only, or anywhere."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    found = set()
    for node in tree.body if top_level else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            found.add(".".join([*base, *([node.module] if node.module else [])]))
            if not node.module:
                found |= {".".join([*base, alias.name]) for alias in node.names}
    return found


def test_imports_run_one_way() -> None:
    for path in SOURCES:
        home = path.relative_to(ROOT).with_suffix("").parts[0]
        for target in imports(path):
            root = target.split(".")[0]
            assert root not in ALLOWED or root in ALLOWED[home], f"{path} must not import {target}"


def test_layer_files_stand_alone() -> None:
    for folder in ("layers", "modules"):
        for path in (ROOT / "converters" / folder).glob("*.py"):
            for target in imports(path):
                assert not target.startswith(f"converters.{folder}"), f"{path} imports another of its family: {target}"


def test_rules_and_formats_need_no_torch() -> None:
    code = (
        "import sys, prototxt, prototxt.net, prototxt.weights, converters, converters.resolution, converters.summary, converters.registry;"
        "converters.registry.rules(); heavy = {'torch', 'onnx', 'onnxruntime', 'cv2', 'matplotlib'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_modules_import_torch_alone() -> None:
    for path in (ROOT / "converters/modules").glob("*.py"):
        foreign = {t.split(".")[0] for t in imports(path)} - {"torch", "math", "typing", "__future__", "collections"}
        assert not foreign, f"{path}: generated source takes this class over, so it may not import {foreign}"


def test_names_of_modules_are_unique() -> None:
    """Classes, helpers and constants of several files can meet in one generated source; only equal definitions may share a name."""
    seen: dict[str, tuple[Path, str]] = {}
    for path in sorted((ROOT / "converters/modules").glob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [node.name] if isinstance(node, (ast.ClassDef, ast.FunctionDef)) else []
            names += [target.id for target in node.targets if isinstance(target, ast.Name)] if isinstance(node, ast.Assign) else []
            for name in names:
                other, text = seen.setdefault(name, (path, ast.unparse(node)))
                assert text == ast.unparse(node), f"{name} stands in {other} and {path}"


def test_every_layer_file_registers_rules() -> None:
    from converters.registry import rules

    homes = {rule.make.__module__ for rule in rules().values()}
    for path in (ROOT / "converters/layers").glob("*.py"):
        if path.stem != "__init__":
            assert f"converters.layers.{path.stem}" in homes, f"{path} registers nothing"


def test_reserved_names_are_all_of_torchs() -> None:
    import torch

    from converters.names import RESERVED

    empty = torch.fx.GraphModule(torch.nn.Module(), torch.fx.Graph())
    public = {name for name in dir(empty) if not name.startswith("_")}
    assert not public - RESERVED, f"add to names.RESERVED: {sorted(public - RESERVED)}"


def test_generated_schema_is_current() -> None:
    from google.protobuf import descriptor_pb2

    spec = importlib.util.spec_from_file_location("schema_script", ROOT / "scripts/schema.py")
    assert spec
    assert spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    now, then = (descriptor_pb2.FileDescriptorProto.FromString(data) for data in (script.compile_proto(), script.written()))
    assert now == then, "run python scripts/schema.py"


@pytest.mark.parametrize("command", [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]], ids=["lint", "format", "types"])
def test_checks(command: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_submodule_hides_a_public_function() -> None:
    """`converters.x` must be the function, also after the import of a submodule."""
    import converters

    for name in converters.__all__:
        assert importlib.util.find_spec(f"converters.{name}") is None, f"converters/{name}.py would hide converters.{name}"
        assert callable(getattr(converters, name))
