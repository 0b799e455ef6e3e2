"""Which machine this is: what a measurement needs beside it to be compared with another."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from irstd_edge.edge.clocks import NVPMODEL, Ask, ask, parse_power_mode
from irstd_edge.edge.profiles import module_of
from irstd_edge.edge.sysfs import read_text

X86_FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8")
ARM_FEATURES = ("asimd", "asimddp", "fphp", "asimdhp", "i8mm", "bf16", "sve")
"""In the kernel's words, those that decide how fast INT8 and FP32 convolutions run."""

EXACT_INT8 = ("avx512_vnni", "avx_vnni", "amx_int8")
"""x86 features that add up products of 8 bit in 32."""
JETPACKS = {32: 4, 35: 5, 36: 6, 38: 7, 39: 7}
"""Major version of L4T -> of the JetPack that it is a part of."""
FINGERPRINT_DIGITS = 16


@dataclass(frozen=True)
class Machine:
    """A machine as far as it can be told without privileges; None where it has no such thing."""

    cpu: str
    isa: str
    """Architecture and the vector extensions that matter, as in `x86_64+avx2+avx512_vnni`."""
    threads: int
    """That the measured program may use."""
    gpu: str | None
    board: str | None
    """From the device tree: a Jetson or another single-board computer."""
    power_mode: str | None
    """nvpmodel's number on a Jetson, and its name where told, else the CPU's frequency governor."""
    load: float
    """Runnable processes, mean of the last minute, this one among them."""
    l4t: str | None = None
    """A Jetson's system, as in `L4T 36.4.3 (JetPack 6)`."""
    module: str | None = None
    """Which Jetson it is, by the name of its profile."""

    @property
    def fingerprint(self) -> str:
        """Of everything but the load: equal fingerprints may be compared in FPS."""
        same = {key: value for key, value in asdict(self).items() if key != "load"}
        for key in ("l4t", "module"):
            if same[key] is None:  # machines that have none are told apart as they always were
                del same[key]
        text = json.dumps(same, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:FINGERPRINT_DIGITS]

    @property
    def is_jetson(self) -> bool:
        """Whether the module is one of NVIDIA's; the carrier board may bear another's name."""
        named = re.search("jetson|nvidia", self.board or "", re.IGNORECASE)
        return named is not None or bool(self.gpu and re.search("tegra[0-9]", self.gpu))

    @property
    def saturates(self) -> bool:
        """Whether convolutions of 8 bit may clip inside.

        An x86 processor without VNNI adds two products of unsigned and signed 8 bit up in 16
        (VPMADDUBSW), where 2 * 255 * 127 does not fit.
        """
        architecture, *features = self.isa.split("+")
        return architecture in ("x86_64", "AMD64") and not set(features) & set(EXACT_INT8)

    def record(self) -> dict[str, Any]:
        """The `machine` object of bench.json."""
        return {**asdict(self), "fingerprint": self.fingerprint}


def this_machine(threads: int | None = None, root: Path = Path("/"), ask: Ask = ask) -> Machine:
    """Look at this machine.

    threads: given to the runners; None for all. root: where /proc, /sys and /var hang.
    ask: runs NVIDIA's tools.
    """
    cpuinfo = read_text(root / "proc/cpuinfo") or ""
    board = read_text(root / "proc/device-tree/model")
    return Machine(
        cpu=_cpu(cpuinfo, board),
        isa=_isa(cpuinfo),
        threads=threads or usable_threads(),
        gpu=_gpu(root),
        board=board,
        power_mode=_power_mode(root, ask),
        load=round(os.getloadavg()[0], 2),
        l4t=parse_l4t(read_text(root / "etc/nv_tegra_release") or ""),
        module=module_of(read_text(root / "proc/device-tree/compatible") or ""),
    )


def parse_l4t(text: str) -> str | None:
    """Of /etc/nv_tegra_release: `# R36 (release), REVISION: 4.3, GCID: ...`."""
    found = re.match(r"# R(\d+) \(release\), REVISION: ([\d.]+)", text)
    if found is None:
        return None
    jetpack = JETPACKS.get(int(found[1]))
    return f"L4T {found[1]}.{found[2]}" + (f" (JetPack {jetpack})" if jetpack else "")


def usable_threads() -> int:
    """CPUs that this process may run on: fewer than the machine has, in a container or a cpuset."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu(cpuinfo: str, board: str | None) -> str:
    """x86 names the model; ARM gives numbers only, so the board's name says more."""
    model = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    if model:
        return model[1].strip()
    part = re.search(r"^CPU part\s*:\s*(\S+)$", cpuinfo, re.MULTILINE)
    name = f"{platform.machine()} part {part[1]}" if part else platform.machine()
    return f"{name} ({board})" if board else name


def _isa(cpuinfo: str) -> str:
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    there = set(flags[1].split()) if flags else set()
    features = [name for name in (*X86_FEATURES, *ARM_FEATURES) if name in there]
    return "+".join((platform.machine(), *features))


def _gpu(root: Path) -> str | None:
    """The driver's own words; a Jetson's GPU is part of its chip and named by the device tree."""
    for file in sorted(root.glob("proc/driver/nvidia/gpus/*/information")):
        model = re.search(r"^Model:\s*(.+)$", read_text(file) or "", re.MULTILINE)
        if model:
            return model[1].strip()
    chips = re.search(r"nvidia,(tegra\d+)", read_text(root / "proc/device-tree/compatible") or "")
    return f"integrated, {chips[1]}" if chips else None


def _power_mode(root: Path, ask: Ask) -> str | None:
    """The file that the tool keeps knows the mode's number, the tool alone its name."""
    kept = re.search(r"pmode:(\d+)", read_text(root / "var/lib/nvpmodel/status") or "")
    if kept:
        number, named = int(kept[1]), parse_power_mode(ask(NVPMODEL) or "")
        return str(named) if named and named.number == number else f"nvpmodel {number}"
    return read_text(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
