import ctypes
from typing import Any

from irstd_edge.edge.devices import Machine
from irstd_edge.edge.gpu import Gpu, cuda_refusal, this_gpu


class Driver:
    """Answers as libcuda does."""

    def __init__(self, init: int = 0, device: int = 0) -> None:
        self.init, self.device = init, device

    def cuInit(self, flags: int) -> int:
        return self.init

    def cuDeviceGet(self, device: Any, ordinal: int) -> int:
        return self.device

    def cuDeviceGetAttribute(self, value: Any, which: int, device: ctypes.c_int) -> int:
        value._obj.value = {16: 8, 75: 8, 76: 7}[which]
        return 0

    def cuDeviceGetName(self, name: Any, size: int, device: ctypes.c_int) -> int:
        name.value = b"Orin"
        return 0


def test_the_driver_tells_name_capability_and_multiprocessors() -> None:
    assert this_gpu(lambda name: Driver()) == Gpu("Orin", 87, 8)


DESKTOP = Machine("CPU", "x86_64", 2, None, None, None, 0.1)
JETSON = Machine("Cortex", "aarch64", 6, "integrated, tegra234", None, None, 0.1)


def test_a_driver_that_does_not_start_says_why() -> None:
    assert cuda_refusal(JETSON, lambda name: Driver(init=801)) == (
        "cuInit failed (801): join the groups video and render "
        "(sudo usermod -aG video,render $USER), then log in again"
    )
    assert cuda_refusal(DESKTOP, lambda name: Driver(init=999)) == (
        "cuInit failed (999): look at the driver (nvidia-smi)"
    )


def test_a_driver_that_starts_or_is_missing_refuses_nothing() -> None:
    def missing(name: str) -> Any:
        raise OSError(name)

    assert cuda_refusal(JETSON, missing) is None
    assert cuda_refusal(JETSON, lambda name: Driver()) is None


def test_no_driver_no_device_no_gpu() -> None:
    def missing(name: str) -> Any:
        raise OSError(name)

    assert this_gpu(missing) is None
    assert this_gpu(lambda name: Driver(init=100)) is None
    assert this_gpu(lambda name: Driver(device=101)) is None
