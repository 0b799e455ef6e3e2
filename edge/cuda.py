"""The few calls of the CUDA driver that running an engine takes, without CUDA's own packages.

Only libcuda.so.1 is needed, which comes with every driver and with JetPack. TensorRT works in the
device's primary context, so addresses and streams made here are good there.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np

from irstd_edge.edge.gpu import DRIVER
from irstd_edge.edge.types import FloatArray, MachineError

NON_BLOCKING = 1
"""CU_STREAM_NON_BLOCKING: work in the default stream waits for nothing here, nor ends a capture."""
RELAXED = 2
"""CU_STREAM_CAPTURE_MODE_RELAXED: what TensorRT does on the side during a capture is allowed."""


class Cuda:
    """A stream of the first device, and what was allocated beside it; `close` frees all."""

    def __init__(self, open_library: Callable[[str], Any] = ctypes.CDLL) -> None:
        """Raises MachineError where there is no driver or no device."""
        try:
            self._driver = open_library(DRIVER)
        except OSError as error:
            raise MachineError(
                f"tensorrt: no NVIDIA driver here ({error}): run it on the device"
            ) from error
        self._frees: list[Callable[[], object]] = []
        device, context, stream = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_void_p()
        self.call("cuInit", 0)
        self.call("cuDeviceGet", ctypes.byref(device), 0)
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self._later("cuDevicePrimaryCtxRelease_v2", device)
        self._context = context
        self.enter()
        self.call("cuStreamCreate", ctypes.byref(stream), NON_BLOCKING)
        self._later("cuStreamDestroy_v2", stream)
        self.stream = stream

    def call(self, name: str, *arguments: Any) -> None:
        """Call the driver. Raises MachineError with its own words where it fails."""
        status = getattr(self._driver, name)(*arguments)
        if status != 0:
            raise MachineError(
                f"tensorrt: {name} failed ({self._words(status)}): look at free memory and at "
                "dmesg, then run again"
            )

    def enter(self) -> None:
        """Make the context current in this thread, as every thread that calls has to."""
        self.call("cuCtxSetCurrent", self._context)

    def device_memory(self, size_bytes: int) -> int:
        """The address of new memory of the GPU."""
        address = ctypes.c_uint64()
        self.call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(size_bytes))
        self._later("cuMemFree_v2", address)
        return address.value

    def free_bytes(self) -> int:
        """Of the device's memory; a Jetson's is the CPU's too."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self.call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        return free.value

    def pinned(self, shape: tuple[int, ...]) -> FloatArray:
        """A float32 array that the GPU can copy from and to without the CPU; zeros."""
        size_bytes = 4 * int(np.prod(shape))
        pointer = ctypes.c_void_p()
        self.call("cuMemAllocHost_v2", ctypes.byref(pointer), ctypes.c_size_t(size_bytes))
        self._later("cuMemFreeHost", pointer)
        assert pointer.value is not None
        memory = (ctypes.c_float * (size_bytes // 4)).from_address(pointer.value)
        array: FloatArray = np.ctypeslib.as_array(memory).reshape(shape)
        array[...] = 0
        return array

    def upload(self, source: FloatArray, address: int) -> None:
        """Queue a copy of a pinned array to the GPU."""
        size, pointer = ctypes.c_size_t(source.nbytes), ctypes.c_void_p(source.ctypes.data)
        self.call("cuMemcpyHtoDAsync_v2", ctypes.c_uint64(address), pointer, size, self.stream)

    def download(self, address: int, target: FloatArray) -> None:
        """Queue a copy from the GPU to a pinned array."""
        size, pointer = ctypes.c_size_t(target.nbytes), ctypes.c_void_p(target.ctypes.data)
        self.call("cuMemcpyDtoHAsync_v2", pointer, ctypes.c_uint64(address), size, self.stream)

    def wait(self) -> None:
        """Until all that was queued is done."""
        self.call("cuStreamSynchronize", self.stream)

    def record(self, work: Callable[[], object]) -> Callable[[], None] | None:
        """Queue work once as a CUDA graph, without running it; a function that queues it again.

        None where it cannot be recorded: then queue the work itself.
        """
        graph, ready = ctypes.c_void_p(), ctypes.c_void_p()
        self.call("cuStreamBeginCapture_v2", self.stream, RELAXED)
        try:
            work()
        except MachineError:
            self._driver.cuStreamEndCapture(self.stream, ctypes.byref(graph))
            return None
        try:
            self.call("cuStreamEndCapture", self.stream, ctypes.byref(graph))
            self._later("cuGraphDestroy", graph)
            flags = ctypes.c_ulonglong(0)
            self.call("cuGraphInstantiateWithFlags", ctypes.byref(ready), graph, flags)
        except MachineError:
            return None
        self._later("cuGraphExecDestroy", ready)
        return lambda: self.call("cuGraphLaunch", ready, self.stream)

    def close(self) -> None:
        """Free everything, the latest first; may be called twice."""
        while self._frees:
            self._frees.pop()()

    def _later(self, name: str, *arguments: Any) -> None:
        self._frees.append(lambda: getattr(self._driver, name)(*arguments))

    def _words(self, status: int) -> str:
        text = ctypes.c_char_p()
        self._driver.cuGetErrorString(status, ctypes.byref(text))
        return (text.value or b"").decode(errors="replace") or f"error {status}"
