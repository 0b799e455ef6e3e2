"""The NVIDIA GPU that this process can use, asked of its driver."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from irstd_edge.edge.devices import Machine, this_machine

DRIVER = "libcuda.so.1"
MULTIPROCESSORS, CAPABILITY_MAJOR, CAPABILITY_MINOR = 16, 75, 76
"""CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT and ..._COMPUTE_CAPABILITY_* of cuda.h."""
NAME_BYTES = 100
GROUPS = "join the groups video and render (sudo usermod -aG video,render $USER), then log in again"
"""On a Jetson they alone may open the GPU's devices."""
LOOK = "look at the driver (nvidia-smi)"


@dataclass(frozen=True)
class Gpu:
    """The first device of the CUDA driver."""

    name: str
    sm: int
    """Compute capability: 87 is 8.7."""
    multiprocessors: int
    """Those enabled; modules whose GPUs have one name differ in it."""


def this_gpu(open_library: Callable[[str], Any] = ctypes.CDLL) -> Gpu | None:
    """The GPU, or None where there is no driver or no device."""
    driver, device = _driver(open_library), ctypes.c_int()
    if driver is None or driver.cuInit(0) != 0:
        return None
    if driver.cuDeviceGet(ctypes.byref(device), 0) != 0:
        return None
    major, minor, multiprocessors = (
        _attribute(driver, device, which)
        for which in (CAPABILITY_MAJOR, CAPABILITY_MINOR, MULTIPROCESSORS)
    )
    name = ctypes.create_string_buffer(NAME_BYTES)
    driver.cuDeviceGetName(name, NAME_BYTES, device)
    return Gpu(name.value.decode(errors="replace"), 10 * major + minor, multiprocessors)


def cuda_refusal(
    machine: Machine | None = None, open_library: Callable[[str], Any] = ctypes.CDLL
) -> str | None:
    """Why a driver that is there does not start, and the fix; None where it starts or is missing.

    machine: None for this one.
    """
    driver = _driver(open_library)
    status = 0 if driver is None else driver.cuInit(0)
    if status == 0:
        return None
    fix = GROUPS if (machine or this_machine()).is_jetson else LOOK
    return f"cuInit failed ({status}): {fix}"


def _driver(open_library: Callable[[str], Any]) -> Any | None:
    try:
        return open_library(DRIVER)
    except OSError:
        return None


def _attribute(driver: Any, device: ctypes.c_int, which: int) -> int:
    value = ctypes.c_int()
    driver.cuDeviceGetAttribute(ctypes.byref(value), which, device)
    return value.value
