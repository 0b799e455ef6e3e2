"""No library of ours opens a socket or marks the home folder, in a process that is not a test.

The fixture `cut_off` runs code under two nets (see tests/conftest.py).
"""

import platform
import signal
import sys
from importlib import metadata

import pytest

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


def test_the_nets_catch_python_and_its_children(tmp_path, cut_off):
    code = """
import multiprocessing, urllib.request
child = multiprocessing.get_context("fork").Process(
    target=lambda: urllib.request.urlopen("http://192.0.2.1/"))
sys.stderr = open(os.devnull, "w")
child.start(); child.join()
"""
    status, left = cut_off(code, tmp_path)
    assert status == 0
    assert "192.0.2.1" in left[0]


def test_the_nets_catch_native_code(tmp_path, cut_off):
    assert cut_off("libc.socket(socket.AF_INET, 1, 0)", tmp_path) == (-signal.SIGSYS, [])


@pytest.mark.parametrize("module", ["onnxruntime", "openvino", "nncf"])
def test_nothing_is_sent_or_left_behind(module, tmp_path, cut_off):
    needs(module)
    code = f"""
from irstd_edge.edge.quiet import silence_telemetry
silence_telemetry()
import {module}, time
time.sleep(1.0)
"""
    assert cut_off(code, tmp_path) == (0, [])


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_runner_is_silent_by_itself(runtime, tmp_path, mask_graph, cut_off):
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
    assert cut_off(code, tmp_path) == (0, [])


def test_a_module_that_was_imported_before_sends_nothing_more(tmp_path, cut_off):
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
    status, left = cut_off(code, tmp_path)
    assert status == 0
    assert not [line for line in left if "google" in line]


def test_a_loud_library_is_caught_when_it_is_not_silenced(tmp_path, cut_off):
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
    status, left = cut_off(code, tmp_path)
    assert status == 0
    assert [line for line in left if "google" in line]
