import ctypes
from typing import Any

import numpy as np
import pytest

from irstd_edge.edge.cuda import Cuda
from irstd_edge.edge.gpu import this_gpu
from irstd_edge.edge.types import MachineError


def test_what_goes_up_comes_down_when_it_is_waited_for(driver: Any) -> None:
    cuda = Cuda(lambda name: driver)
    first, second = cuda.pinned((2, 3)), cuda.pinned((2, 3))
    assert first.dtype == np.float32 and not first.any()
    first[...] = np.arange(6).reshape(2, 3)
    address = cuda.device_memory(first.nbytes)
    cuda.upload(first, address)
    cuda.download(address, second)
    assert not second.any()
    cuda.wait()
    assert np.array_equal(second, first)


def test_recorded_work_runs_each_time_it_is_queued(driver: Any) -> None:
    cuda = Cuda(lambda name: driver)
    source, target = cuda.pinned((4,)), cuda.pinned((4,))
    address = cuda.device_memory(source.nbytes)

    def work() -> None:
        cuda.upload(source, address)
        cuda.download(address, target)

    again = cuda.record(work)
    assert again is not None and not driver.queued
    for value in (1.0, 2.0):
        source[...] = value
        again()
        cuda.wait()
        assert (target == value).all()
    assert driver.launches == 2


@pytest.mark.parametrize("call", ["cuStreamEndCapture", "cuGraphInstantiateWithFlags"])
def test_work_that_cannot_be_recorded_is_told_by_none(driver: Any, call: str) -> None:
    cuda = Cuda(lambda name: driver)
    driver.fails[call] = 900
    assert cuda.record(lambda: None) is None


def test_work_that_fails_ends_the_recording(driver: Any) -> None:
    def work() -> None:
        raise MachineError("no")

    assert Cuda(lambda name: driver).record(work) is None
    assert driver.recording is None


def test_everything_is_freed_the_latest_first(driver: Any) -> None:
    cuda = Cuda(lambda name: driver)
    cuda.pinned((3,))
    cuda.device_memory(12)
    driver.calls.clear()
    cuda.close()
    cuda.close()
    assert driver.memory == {}
    assert driver.calls == [
        *("cuMemFree_v2", "cuMemFreeHost", "cuStreamDestroy_v2", "cuDevicePrimaryCtxRelease_v2")
    ]


def test_a_call_that_fails_is_told_in_the_drivers_words(driver: Any) -> None:
    cuda = Cuda(lambda name: driver)
    driver.fails["cuMemAlloc_v2"] = 2
    with pytest.raises(MachineError, match=r"cuMemAlloc_v2 failed \(out of memory\): look at"):
        cuda.device_memory(1 << 40)


def test_without_a_driver_it_says_where_to_run() -> None:
    def missing(name: str) -> Any:
        raise OSError(f"{name}: cannot open shared object file")

    with pytest.raises(MachineError, match=r"no NVIDIA driver here \(libcuda.so.1: .* device"):
        Cuda(missing)


def test_free_memory_is_what_the_driver_says(driver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def info(self: Any, free: Any, total: Any) -> int:
        free._obj.value, total._obj.value = 5_000_000_000, 8_000_000_000
        return 0

    monkeypatch.setattr(type(driver), "_cuMemGetInfo_v2", info, raising=False)
    assert Cuda(lambda name: driver).free_bytes() == 5_000_000_000


needs_gpu = pytest.mark.skipif(this_gpu() is None, reason="needs an NVIDIA GPU")


@needs_gpu
def test_a_gpu_replays_what_was_recorded_on_what_is_new_in_the_buffers() -> None:
    cuda = Cuda()
    source, target = cuda.pinned((3, 5)), cuda.pinned((3, 5))
    there, beside = (cuda.device_memory(source.nbytes) for _ in range(2))
    free = cuda.free_bytes()

    def work() -> None:
        cuda.upload(source, there)
        size = ctypes.c_size_t(source.nbytes)
        cuda.call(
            "cuMemcpyDtoDAsync_v2",
            ctypes.c_uint64(beside),
            ctypes.c_uint64(there),
            size,
            cuda.stream,
        )
        cuda.download(beside, target)

    source[...] = 7
    again = cuda.record(work)
    assert again is not None
    cuda.wait()
    assert not target.any(), "recording runs nothing"
    for value in (1.0, 2.0):
        source[...] = value + np.arange(15).reshape(3, 5)
        again()
        cuda.wait()
        assert np.array_equal(target, source)
    assert free > 0
    cuda.close()
    cuda.close()


@needs_gpu
def test_a_gpu_says_in_words_what_failed() -> None:
    cuda = Cuda()
    with pytest.raises(MachineError, match=r"cuMemAlloc_v2 failed \(out of memory\)"):
        cuda.device_memory(1 << 50)
    cuda.close()


@needs_gpu
def test_work_that_a_gpu_cannot_record_is_told_by_none() -> None:
    cuda = Cuda()
    source = cuda.pinned((2,))

    def work() -> None:
        cuda.upload(source, cuda.device_memory(source.nbytes))
        cuda.wait()  # nothing may be waited for in a recording

    assert cuda.record(work) is None
    cuda.upload(source, cuda.device_memory(source.nbytes))
    cuda.wait()
    cuda.close()
