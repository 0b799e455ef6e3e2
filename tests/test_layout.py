"""The house: which folder imports which, and what must not be imported where."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("edge", "models", "benchmarks", "calibration")
MAY_IMPORT = {
    "edge": {"edge"},
    "models": {"edge", "models"},
    "benchmarks": {"edge", "benchmarks"},
    "calibration": set(FOLDERS),
}
INSIDE_FUNCTIONS = {
    *("torch", "nncf", "onnx", "openvino", "polygraphy", "tensorrt", "tensorrt_rtx", "matplotlib"),
    *("cryptography", "torch_tensorrt"),
}
FILES = [path for folder in FOLDERS for path in sorted((ROOT / folder).glob("**/*.py"))]


def imports(node: ast.AST) -> set[str]:
    """Full names of what a node and all inside it import."""
    found = set()
    for child in ast.walk(node):
        if isinstance(child, ast.Import):
            found |= {alias.name for alias in child.names}
        elif isinstance(child, ast.ImportFrom) and child.module:
            found |= {f"{child.module}.{alias.name}" for alias in child.names}
    return found


def imports_of_module(path: Path) -> set[str]:
    """Names that importing the file imports: those outside of functions and TYPE_CHECKING."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        guarded = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if isinstance(node, ast.Import | ast.ImportFrom | ast.If | ast.Try) and not guarded:
            found |= imports(node)
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    folder = path.relative_to(ROOT).parts[0]
    ours = {
        name.split(".")[1]
        for name in imports(ast.parse(path.read_text()))
        if name.startswith("irstd_edge.")
    }
    assert ours - {"__version__"} <= MAY_IMPORT[folder]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_heavy_packages_are_imported_where_they_are_used(path: Path) -> None:
    folder = path.relative_to(ROOT).parts[0]
    # Whoever trains or quantizes has these two anyway; a device has neither.
    allowed = {"torch", "onnx"} if folder in ("models", "calibration") else set()
    heavy = {name.split(".")[0] for name in imports_of_module(path)} & INSIDE_FUNCTIONS
    assert heavy <= allowed


def test_only_quantize_imports_nncf() -> None:
    importers = {
        str(path.relative_to(ROOT))
        for path in FILES
        if any(name.split(".")[0] == "nncf" for name in imports(ast.parse(path.read_text())))
    }
    assert importers == {"calibration/quantize.py"}


def test_device_code_never_imports_torch() -> None:
    device = [p for p in FILES if p.relative_to(ROOT).parts[0] in ("edge", "benchmarks")]
    users = {
        path.name
        for path in device
        if any(name.split(".")[0] == "torch" for name in imports(ast.parse(path.read_text())))
    }
    assert users == {"runners.py"}  # in the one function that is given a module


def test_root_holds_the_package_and_the_command_line_alone() -> None:
    assert {path.name for path in ROOT.glob("*.py")} == {"__init__.py", "cli.py"}


def test_help_costs_little_more_than_the_libraries_it_is_made_of() -> None:
    code = (
        "import sys, time; import typer, rich, rich.console; start = time.process_time();"
        "import irstd_edge.cli; print(time.process_time() - start);"
        "heavy = {'torch', 'numpy', 'cv2', 'onnxruntime', 'openvino', 'nncf'} & set(sys.modules);"
        "print(sorted(heavy))"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        for _ in range(3)
    ]
    lines = [run.stdout.splitlines() for run in runs]
    assert min(float(line[0]) for line in lines) < 0.2
    assert lines[0][1] == "[]"
