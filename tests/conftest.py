"""Real data and the authors' figures, which may be absent; and a process without a network."""

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

ROOT = Path(__file__).parent.parent
DATA = Path(os.environ.get("IRSTD_EDGE_DATA", ROOT.parent / "shared" / "data"))
GOLDEN = Path(os.environ.get("IRSTD_EDGE_GOLDEN", ROOT.parent / "shared" / "golden"))


# A slow machine is no fault of what is tested.
settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")

LONG = (
    *("test_demo.py", "test_readme.py"),
    *("test_to_bundle.py", "test_resume.py"),
    *("test_qat.py", "test_train.py"),
    *("test_qat_checkpoint.py", "test_cli.py"),
)
"""Files that take over half a minute, in turn those for the first and the second of two workers;
what the files of a folder share is then made by one of them."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every worker begins with long files: at the end the others would wait for it.

    pytest-xdist gives each worker an equal share of the tests, in a row.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    others = [item for item in items if item.path.name not in LONG]
    ordered: list[pytest.Item] = []
    for worker in range(workers):
        share = (len(items) - len(ordered)) // (workers - worker)
        own = [item for name in LONG[worker::workers] for item in items if item.path.name == name]
        rest = max(0, share - len(own))
        ordered += own + others[:rest]
        del others[:rest]
    items[:] = ordered + others


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder that holds NUDT-SIRST and NUAA-SIRST."""
    if not (DATA / "NUDT-SIRST").is_dir():
        pytest.skip(f"no NUDT-SIRST in {DATA}: set IRSTD_EDGE_DATA")
    return DATA


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of figures that the MSHNet authors' own code gave."""
    if not (GOLDEN / "mshnet_reference.json").is_file():
        pytest.skip(f"no mshnet_reference.json in {GOLDEN}: set IRSTD_EDGE_GOLDEN")
    return GOLDEN


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree."""
    out = tmp_path_factory.mktemp("wheel")
    # The sources are copied: setuptools leaves its build folder in the tree it builds.
    tree = tmp_path_factory.mktemp("tree")
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_bytes((ROOT / name).read_bytes())
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out)]
    subprocess.run([*build, str(tree)], check=True, capture_output=True)
    return next(out.glob("*.whl"))


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for PYTHONPATH that holds what the wheel installs, and nothing else."""
    folder = tmp_path_factory.mktemp("site")
    zipfile.ZipFile(wheel).extractall(folder)
    return folder


@pytest.fixture(scope="session")
def threshold_net() -> Callable[[float], bytes]:
    """A function that gives the ONNX of a net that finds what is brighter than so many of 255."""
    onnx = pytest.importorskip("onnx", reason="the tiny graphs are written with the train extra")

    def graph_of(counts: float) -> bytes:
        weights = [
            onnx.numpy_helper.from_array(np.full((1, 1, 1, 1), 40, np.float32), "w"),
            onnx.numpy_helper.from_array(np.array([-40 * counts / 255], np.float32), "b"),
        ]
        node = onnx.helper.make_node("Conv", ["frame", "w", "b"], ["logits"], name="conv")
        ends = [
            [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 1, "h", "w"])]
            for name in ("frame", "logits")
        ]
        graph = onnx.helper.make_graph([node], "net", *ends, weights)
        opsets = [onnx.helper.make_opsetid("", 17)]
        model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)
        return bytes(model.SerializeToString())

    return graph_of


# Two nets: Python's socket calls leave a trace in a file, also in child processes; and a seccomp
# filter kills the process on a socket(2) of the internet families, whatever code makes the call.
NETS = """
import ctypes, os, platform, socket, struct, sys

def told(*args, **kwargs):
    open(os.environ["TRACE"], "a").write(f"{args}\\n")
    raise OSError("no network here")

socket.getaddrinfo = told
socket.socket.connect = told

NO_NEW_PRIVS, SET_SECCOMP, FILTER_MODE = 38, 22, 2
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
KILL, ALLOW = 0x80000000, 0x7FFF0000
SOCKET = {"x86_64": 41, "aarch64": 198}[platform.machine()]
program = b"".join(struct.pack("HBBI", *step) for step in (
    (LOAD, 0, 0, 0),              # the number of the call
    (EQUAL, 0, 4, SOCKET),
    (LOAD, 0, 0, 16),             # its first argument: the family
    (EQUAL, 1, 0, socket.AF_INET),
    (EQUAL, 0, 1, socket.AF_INET6),
    (RETURN, 0, 0, KILL),
    (RETURN, 0, 0, ALLOW),
))
steps = ctypes.create_string_buffer(program)
fprog = ctypes.create_string_buffer(struct.pack("HxxxxxxP", 7, ctypes.addressof(steps)))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(NO_NEW_PRIVS, 1, 0, 0, 0) == 0
assert libc.prctl(SET_SECCOMP, FILTER_MODE, fprog, 0, 0) == 0
"""

ENVIRONMENT = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH")


def _cut_off(code: str, folder: Path) -> tuple[int, list[str]]:
    """Exit status, and what was left: files of the home folder and traced calls."""
    home, trace = folder / "home", folder / "trace"
    home.mkdir()
    # Libraries hold their tongue under CI and test runners, and here they are to be caught.
    kept = {k: v for k, v in os.environ.items() if k in ENVIRONMENT}
    env = {**kept, "HOME": str(home), "TRACE": str(trace), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", NETS + code],
        env=env,
        cwd=folder,
        capture_output=True,
        text=True,
    )
    left = [str(file.relative_to(home)) for file in home.rglob("*") if file.is_file()]
    calls = trace.read_text().splitlines() if trace.exists() else []
    if done.returncode > 0:
        raise AssertionError(done.stderr)
    return done.returncode, left + calls


@pytest.fixture(scope="session")
def cut_off() -> Callable[[str, Path], tuple[int, list[str]]]:
    """A function that runs code in a plain process with an empty home and no network.

    It returns the exit status, and what was left: files of the home folder and traced calls.
    """
    return _cut_off
