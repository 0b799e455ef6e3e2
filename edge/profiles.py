"""What NVIDIA's data sheets say of each Jetson: the figures that a projection is made from.

Only what the GPU does without structured sparsity counts here. The sheets' headline figures are
sparse, twice the dense rate from Orin on, and add the DLA's share where a module has one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from irstd_edge.edge.types import IrstdError


@dataclass(frozen=True)
class Profile:
    """One module in one power mode, clocks at their highest."""

    name: str
    """As in `bench --device NAME`."""
    sm: int
    """Compute capability: 87 is 8.7."""
    sms: int
    """Streaming multiprocessors."""
    cores: int
    """CUDA cores of all of them."""
    gpu_mhz: int
    int8_tops: float
    """Dense, GPU alone, 10^12 operations a second; a multiply-accumulate is two."""
    fp16_tflops: float
    """Dense, tensor cores."""
    bandwidth_gb_s: float
    """Of the DRAM, which the CPU shares."""
    power_w: tuple[float, float]
    """Of the module, lowest and highest power mode."""
    source: str
    """The data sheet."""
    derived: str
    """Which of the figures do not stand in it as they are, and how they were found."""

    @property
    def tf32_tflops(self) -> float:
        """Of convolutions on float32, on tensor cores from Ampere on."""
        return self.fp16_tflops / 2 if self.sm >= 80 else self.fp32_tflops

    @property
    def fp32_tflops(self) -> float:
        """Of the same where TF32 is off: CUDA cores."""
        return 2 * self.cores * self.gpu_mhz / 1e6


_ORIN_NANO = "NVIDIA Jetson Orin Nano Series Modules Data Sheet"
_ORIN_NX = "NVIDIA Jetson Orin NX Series Modules Data Sheet, DS-10712-001"
_AGX_ORIN = "NVIDIA Jetson AGX Orin Series Modules Data Sheet"
_XAVIER_NX = "NVIDIA Jetson Xavier NX System-on-Module Data Sheet, DA-09366-001"
_AGX_XAVIER = "NVIDIA Jetson AGX Xavier Series System-on-Module Data Sheet"
_THOR = "NVIDIA Jetson Thor Series Modules Data Sheet"

_HALVES = "FP16: half the INT8 rate"
_DENSE = f"INT8: half of the sheet's sparse figure; {_HALVES}"
_UNCHECKED = "; not yet held against the sheet: clock, power and the DLA's share in Super mode"
_LESS_DLA = "INT8: half of the sheet's sparse figure less the DLA's {} TOPS; " + _HALVES

_ALL = (
    Profile("orin-nano-4gb", 87, 4, 512, 625, 10, 5, 34, (7, 10), _ORIN_NANO, _HALVES),
    Profile(
        "orin-nano-4gb-super",
        87,
        4,
        512,
        1020,
        17,
        8.5,
        51,
        (7, 25),
        _ORIN_NANO,
        _DENSE + _UNCHECKED,
    ),
    Profile("orin-nano-8gb", 87, 8, 1024, 625, 20, 10, 68, (7, 15), _ORIN_NANO, _DENSE),
    Profile("orin-nano-8gb-super", 87, 8, 1024, 1020, 33.5, 16.7, 102, (7, 25), _ORIN_NANO, _DENSE),
    Profile(
        *("orin-nx-8gb", 87, 8, 1024, 765, 25, 12.5, 102.4, (10, 20), _ORIN_NX),
        _LESS_DLA.format(20),
    ),
    Profile(
        *("orin-nx-8gb-super", 87, 8, 1024, 1173, 38.5, 19.2, 102.4, (10, 40), _ORIN_NX),
        _LESS_DLA.format(40) + _UNCHECKED,
    ),
    Profile(
        *("orin-nx-16gb", 87, 8, 1024, 918, 30, 15, 102.4, (10, 25), _ORIN_NX),
        _LESS_DLA.format(40),
    ),
    Profile(
        *("orin-nx-16gb-super", 87, 8, 1024, 1173, 38.5, 19.2, 102.4, (10, 40), _ORIN_NX),
        _LESS_DLA.format(80) + _UNCHECKED,
    ),
    Profile(
        *("agx-orin-32gb", 87, 14, 1792, 930, 54, 27, 204.8, (15, 40), _AGX_ORIN),
        _LESS_DLA.format(92),
    ),
    Profile("agx-orin-64gb", 87, 16, 2048, 1300, 85, 42.5, 204.8, (15, 60), _AGX_ORIN, _DENSE),
    Profile(
        *("xavier-nx", 72, 6, 384, 1100, 12, 6, 59.7, (10, 20), _XAVIER_NX),
        f"INT8: the sheet's 21 TOPS less the DLAs' 9; {_HALVES}",
    ),
    Profile(
        *("agx-xavier", 72, 8, 512, 1377, 22, 11, 136.5, (10, 30), _AGX_XAVIER),
        f"INT8: the sheet's 32 TOPS less the DLAs' 10; {_HALVES}",
    ),
    Profile(
        *("thor-t5000", 110, 20, 2560, 1570, 517, 258.7, 273, (40, 130), _THOR),
        "FP16: an eighth of the sheet's 2070 sparse FP4 TFLOPS; INT8: taken as dense FP8, twice it",
    ),
)
PROFILES = {profile.name: profile for profile in _ALL}


def profile_of(name: str) -> Profile:
    """The profile of a module. Raises IrstdError listing the names."""
    if name not in PROFILES:
        raise IrstdError(
            f"--device: {name!r} is not one of cpu, cuda, jetson, {', '.join(PROFILES)}"
        )
    return PROFILES[name]


_MODULES = {
    "p3767-0000": "orin-nx-16gb",
    "p3767-0001": "orin-nx-8gb",
    "p3767-0003": "orin-nano-8gb",
    "p3767-0004": "orin-nano-4gb",
    "p3767-0005": "orin-nano-8gb",  # of the developer kit
    "p3701-0000": "agx-orin-64gb",  # of the developer kit: 32 GB, with the GPU of the 64 GB module
    "p3701-0004": "agx-orin-32gb",
    "p3701-0005": "agx-orin-64gb",
    "p3668-0000": "xavier-nx",
    "p3668-0001": "xavier-nx",
    "p3668-0003": "xavier-nx",
    "p2888-0001": "agx-xavier",
    "p2888-0003": "agx-xavier",
    "p2888-0004": "agx-xavier",
    "p2888-0005": "agx-xavier",
    "p3834-0008": "thor-t5000",
}
"""NVIDIA's numbers of the modules, as in the Jetson Linux Developer Guide and in device trees."""


def module_of(compatible: str) -> str | None:
    """The profile of the module that a device tree's `compatible` names; None for another, or two.

    The model's name is no help: it is that of the carrier board, and every Orin Nano and Orin NX
    fits on the same. A tree of Super mode says so: `p3768-0000+p3767-0005-super`.
    """
    numbers = re.findall(r"\b(p\d{4}-\d{4})", compatible)
    names = {_MODULES[number] for number in numbers if number in _MODULES}
    if len(names) != 1:
        return None
    (name,) = names
    fast = f"{name}-super"
    return fast if fast in PROFILES and "-super" in compatible else name
