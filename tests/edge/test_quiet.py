"""No library of ours opens a socket or marks the home folder, in a process that is not a test.

Two nets: Python's socket calls leave a trace in a file, also in child processes; and a seccomp
filter kills the process on a socket(2) of the internet families, whatever code makes the call.
"""

import os
import platform
import signal
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

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

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"),
    reason="seccomp is Linux's, and the call's number is known for x86_64 and aarch64",
)


def needs(distribution: str) -> None:
    """Skip where it is not installed; importing it here would be loud."""
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        pytest.skip(f"{distribution} is not installed")


def run(code: str, folder: Path) -> tuple[int, list[str]]:
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


def test_the_nets_catch_python_and_its_children(tmp_path):
    code = """
import multiprocessing, urllib.request
child = multiprocessing.get_context("fork").Process(
    target=lambda: urllib.request.urlopen("http://192.0.2.1/"))
sys.stderr = open(os.devnull, "w")
child.start(); child.join()
"""
    status, left = run(code, tmp_path)
    assert status == 0
    assert "192.0.2.1" in left[0]


def test_the_nets_catch_native_code(tmp_path):
    assert run("libc.socket(socket.AF_INET, 1, 0)", tmp_path) == (-signal.SIGSYS, [])


@pytest.mark.parametrize("module", ["onnxruntime", "openvino", "nncf"])
def test_nothing_is_sent_or_left_behind(module, tmp_path):
    needs(module)
    code = f"""
from irstd_edge.edge.quiet import silence_telemetry
silence_telemetry()
import {module}, time
time.sleep(1.0)
"""
    assert run(code, tmp_path) == (0, [])


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_runner_is_silent_by_itself(runtime, tmp_path, mask_graph):
    needs(runtime)
    (tmp_path / "fp32.onnx").write_bytes(mask_graph)
    code = f"""
import time
from pathlib import Path
import numpy as np
from irstd_edge.edge.runners import open_graph
from irstd_edge.edge.types import DecodeSpec, Frame, InputSpec, ModelSpec
spec = ModelSpec("mshnet", InputSpec(4), DecodeSpec("mask"))
with open_graph(Path("fp32.onnx"), spec, "fp32", "{runtime}", 1) as run:
    assert len(run.detect(Frame("f", np.full((8, 8), 255, np.uint8), 8))) == 1
time.sleep(1.0)
"""
    assert run(code, tmp_path) == (0, [])


def test_a_module_that_was_imported_before_sends_nothing_more(tmp_path):
    needs("openvino-telemetry")
    code = """
from openvino_telemetry import Telemetry
from irstd_edge.edge.quiet import silence_telemetry
silence_telemetry()
telemetry = Telemetry(app_name="a", app_version="1", tid="t", backend="ga4",
                      enable_opt_in_dialog=False)
telemetry.send_event("ov", "import", "x", force_send=True)
import time
time.sleep(1.0)
"""
    status, left = run(code, tmp_path)
    assert status == 0
    assert not [line for line in left if "google" in line]


def test_a_loud_library_is_caught_when_it_is_not_silenced(tmp_path):
    """The nets hold for the real thing: unsilenced, openvino's package leaves its traces."""
    needs("openvino-telemetry")
    code = """
from openvino_telemetry import Telemetry
telemetry = Telemetry(app_name="a", app_version="1", tid="t", backend="ga4",
                      enable_opt_in_dialog=False)
telemetry.send_event("ov", "import", "x")
import time
time.sleep(1.0)
"""
    status, left = run(code, tmp_path)
    assert status == 0
    assert [line for line in left if "google" in line]
