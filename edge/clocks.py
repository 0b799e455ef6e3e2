"""A Jetson's power mode, its clocks, and whether it is being throttled.

What NVIDIA's tools print is parsed, and where they want root or are missing, sysfs is read: it
shows the same limits to every user.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from irstd_edge.edge.sysfs import read_number, read_text

Ask = Callable[[tuple[str, ...]], str | None]
"""A command -> what it prints; None where it is missing or prints nothing."""

ASK_LIMIT_S = 10.0
TOOLS = "/usr/sbin"
"""Where nvpmodel lies; not every user's PATH leads there, nor that of a command over SSH."""
NVPMODEL = ("nvpmodel", "-q")
JETSON_CLOCKS = ("jetson_clocks", "--show")
LOCK = "sudo jetson_clocks"
"""The command that holds every clock at the highest of the power mode."""
THROTTLING = re.compile("throttle|freq")
"""Types of cooling devices that slow the chip down; the others are fans and warnings."""


@dataclass(frozen=True)
class PowerMode:
    """Of nvpmodel; what a number means differs from module to module."""

    number: int
    name: str
    """As in 15W, MAXN, MAXN_SUPER, MODE_30W."""

    def __str__(self) -> str:
        """As in `nvpmodel 2 (15W)`."""
        return f"nvpmodel {self.number} ({self.name})"


@dataclass(frozen=True)
class Clock:
    """The limits of a clock that scales with load unless they are equal."""

    name: str
    """cpu0, ..., or GPU."""
    low_mhz: float
    high_mhz: float

    @property
    def locked(self) -> bool:
        """Whether it stands still."""
        return self.low_mhz == self.high_mhz


@dataclass(frozen=True)
class Throttle:
    """What slows the chip down now, and how often over-current did since it was started."""

    cooling: frozenset[str]
    """Cooling devices that are active."""
    over_current_events: int

    def since(self, before: Throttle) -> tuple[str, ...]:
        """What happened in between or still does, in words; empty when nothing did."""
        events = self.over_current_events - before.over_current_events
        words = [f"over-current, {events} times"] if events > 0 else []
        return (*sorted(self.cooling | before.cooling), *words)


def ask(command: tuple[str, ...]) -> str | None:
    """Run one of NVIDIA's tools. None where it is missing, silent, or takes too long.

    Its exit code tells nothing: nvpmodel prints the mode, and then may fail at something else.
    """
    tool = find_tool(command[0])
    if tool is None:
        return None
    try:
        done = subprocess.run(
            (tool, *command[1:]), capture_output=True, text=True, timeout=ASK_LIMIT_S, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout or None


def find_tool(name: str, folder: str = TOOLS) -> str | None:
    """The path of one of NVIDIA's tools, in PATH or in the folder; None where it is missing."""
    return shutil.which(name) or shutil.which(name, path=folder)


def parse_power_mode(text: str) -> PowerMode | None:
    """Of `nvpmodel -q`: a line `NV Power Mode: NAME`, then its number, among warnings."""
    found = re.search(r"NV Power Mode: *(\S+)\s+(\d+)\s*$", text, re.MULTILINE)
    return None if found is None else PowerMode(int(found[2]), found[1])


def parse_clocks(text: str) -> tuple[Clock, ...]:
    """CPUs (kHz) and GPU (Hz) of `jetson_clocks --show`; CPUs that are off are left out."""
    lines = re.findall(
        r"^\s*(cpu\d+|GPU):? +(Online=\d )?.*?MinFreq=(\d+) MaxFreq=(\d+)", text, re.MULTILINE
    )
    return tuple(
        Clock(name, int(low) / scale, int(high) / scale)
        for name, online, low, high in lines
        if online.strip() != "Online=0"
        for scale in (1e6 if name == "GPU" else 1e3,)
    )


def read_clocks(root: Path = Path("/")) -> tuple[Clock, ...]:
    """The same from sysfs, which needs no rights."""
    clocks = [
        _clock(folder.parent.name, folder / "scaling_min_freq", folder / "scaling_max_freq", 1e3)
        for folder in sorted(root.glob("sys/devices/system/cpu/cpu[0-9]*/cpufreq"))
    ]
    clocks += [
        _clock("GPU", folder / "min_freq", folder / "max_freq", 1e6)
        for folder in sorted(root.glob("sys/class/devfreq/*"))
        if re.search(r"\.(gpu|gv11b|ga10b|gp10b)$|^gpu-gpc", folder.name)
    ]
    return tuple(clock for clock in clocks if clock is not None)


def clocks_locked(root: Path = Path("/"), ask: Ask = ask) -> bool | None:
    """Whether CPUs and GPU all stand still; None where it cannot be told."""
    told = parse_clocks(ask(JETSON_CLOCKS) or "")
    whole = any(clock.name == "GPU" for clock in told)  # it may have failed before the end
    clocks = told if whole else read_clocks(root)
    return all(clock.locked for clock in clocks) if clocks else None


def read_throttle(root: Path = Path("/")) -> Throttle:
    """What the kernel says of it; of nothing, where it says nothing."""
    active = [
        name
        for folder in root.glob("sys/class/thermal/cooling_device*")
        if THROTTLING.search(name := read_text(folder / "type") or "")
        and (read_number(folder / "cur_state") or 0) > 0
    ]
    events = [read_number(file) or 0 for file in root.glob("sys/class/hwmon/*/oc[0-9]*_event_cnt")]
    return Throttle(frozenset(active), int(sum(events)))


def _clock(name: str, low: Path, high: Path, scale: float) -> Clock | None:
    ends = read_number(low), read_number(high)
    if ends[0] is None or ends[1] is None:
        return None
    return Clock(name, ends[0] / scale, ends[1] / scale)
