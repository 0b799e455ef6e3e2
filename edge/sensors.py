"""A Jetson's own sensors: watts of its rails, temperatures, memory.

From sysfs (INA3221 chips, thermal zones) or from a line of tegrastats.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from irstd_edge.edge.sysfs import read_number, read_text

MODULE_RAILS = (
    ("VDD_IN",),
    ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"),
    ("VDD_GPU", "VDD_CPU_SOC_MSS", "VIN_SYS_5V0"),
    ("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"),
)
"""Rails that add up to the module: Nano and NX have one at its input; AGX Orin, Thor and AGX Xavier
have several side by side. What else they report lies behind one of these."""
ABSENT_C = -200.0
"""A sensor of a part that is powered down reports -256 degrees."""


@dataclass(frozen=True)
class Reading:
    """What the sensors say at one moment."""

    rails_w: Mapping[str, float]
    """Rail -> watts."""
    temperatures_c: Mapping[str, float]
    """Part -> degrees Celsius; `tj` is the hottest place of the chip."""
    ram_mb: tuple[int, int] | None = None
    """Used and total, of 2^20 bytes; tegrastats alone says it."""

    @property
    def rails(self) -> tuple[str, ...] | None:
        """Those that add up to the module, or None where they are not all there."""
        complete = (names for names in MODULE_RAILS if set(names) <= set(self.rails_w))
        return next(complete, None)

    @property
    def module_w(self) -> float | None:
        """Of the whole module, without the carrier board."""
        return None if self.rails is None else sum(self.rails_w[name] for name in self.rails)


def read_sensors(root: Path = Path("/")) -> Reading:
    """Rails of every INA3221 and temperatures of every thermal zone, from sysfs."""
    rails: dict[str, float] = {}
    for chip in sorted(root.glob("sys/class/hwmon/hwmon*")):
        if read_text(chip / "name") == "ina3221":
            rails |= _rails(chip)
    zones = {}
    for zone in sorted(root.glob("sys/class/thermal/thermal_zone*")):
        name, milli = read_text(zone / "type"), read_number(zone / "temp")
        if name and milli is not None and _tells(name, milli / 1e3):
            zones[name.removesuffix("-thermal")] = milli / 1e3
    return Reading(rails, zones)


def parse_tegrastats(line: str) -> Reading:
    """A line of tegrastats, of JetPack 4 (`VDD_IN 3902/3611`) to 7 (`VDD_IN 3902mW/3611mW`).

    Each rail comes as now/mean since the start; now is taken.
    """
    rails = re.findall(r"\b([A-Z][A-Z0-9_]+) (-?\d+)(?:mW)?(?:/-?\d+(?:mW)?)+(?= |$)", line.strip())
    heat = re.findall(r"([A-Za-z][\w-]*)@ ?(-?[\d.]+)C\b", line)
    ram = re.search(r"\bRAM (\d+)/(\d+)MB", line)
    return Reading(
        {name: int(milli) / 1e3 for name, milli in rails if name != "NC"},
        {name: float(c) for name, c in heat if _tells(name, float(c))},
        None if ram is None else (int(ram[1]), int(ram[2])),
    )


def _tells(zone: str, degrees_c: float) -> bool:
    """Whether a thermal zone has a sensor: that of Xavier's PMIC always says 50 or 100."""
    return degrees_c > ABSENT_C and not zone.startswith("PMIC")


def _rails(chip: Path) -> dict[str, float]:
    """Channels 1 to 3 that have a label; 4 and up are sums and shunt voltages."""
    rails = {}
    for channel in (1, 2, 3):
        label = read_text(chip / f"in{channel}_label")
        milli_v = read_number(chip / f"in{channel}_input")
        milli_a = read_number(chip / f"curr{channel}_input")
        if label and label != "NC" and milli_v is not None and milli_a is not None:
            rails[label] = milli_v * milli_a / 1e6
    return rails
