"""The NVIDIA GPU that this process can use, asked of its driver."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

DRIVER = "libcuda.so.1"
CAPABILITY_MAJOR, CAPABILITY_MINOR = 75, 76
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_* of cuda.h."""
NAME_BYTES = 100


@dataclass(frozen=True)
class Gpu:
    """The first device of the CUDA driver."""

    name: str
    sm: int
    """Compute capability: 87 is 8.7."""


def this_gpu(open_library: Callable[[str], Any] = ctypes.CDLL) -> Gpu | None:
    """The GPU, or None where there is no driver or no device."""
    try:
        driver = open_library(DRIVER)
    except OSError:
        return None
    device = ctypes.c_int()
    if driver.cuInit(0) != 0 or driver.cuDeviceGet(ctypes.byref(device), 0) != 0:
        return None
    major, minor = (
        _attribute(driver, device, which) for which in (CAPABILITY_MAJOR, CAPABILITY_MINOR)
    )
    name = ctypes.create_string_buffer(NAME_BYTES)
    driver.cuDeviceGetName(name, NAME_BYTES, device)
    return Gpu(name.value.decode(errors="replace"), 10 * major + minor)


def _attribute(driver: Any, device: ctypes.c_int, which: int) -> int:
    value = ctypes.c_int()
    driver.cuDeviceGetAttribute(ctypes.byref(value), which, device)
    return value.value
