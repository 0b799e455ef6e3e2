"""What a Jetson draws and how warm it gets, sampled while something runs.

with PowerSampler(open_meter()) as power:
    ...
print(power.mean_w)

The module's sensors (INA3221) are read from sysfs, or where that is closed, from tegrastats.
"""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from irstd_edge.edge.clocks import find_tool
from irstd_edge.edge.sensors import Reading, parse_tegrastats, read_sensors

INTERVAL_S = 0.05
TEGRASTATS = ("tegrastats", "--interval", "100")


@dataclass(frozen=True)
class Meter:
    """A way to read the sensors."""

    read: Callable[[], Reading | None]
    """May wait for the next reading; None when there will be no more."""
    interrupt: Callable[[], None] = lambda: None
    """Makes a read that waits return."""
    close: Callable[[], None] = lambda: None
    """Called when nobody reads any more."""
    interval_s: float = INTERVAL_S
    """To rest between readings."""


class PowerSampler:
    """Reads a meter in a thread of its own for as long as the `with` block runs."""

    def __init__(self, meter: Meter) -> None:
        """The meter is closed when the block ends."""
        self.readings: list[Reading] = []
        self._meter = meter
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    @property
    def mean_w(self) -> float | None:
        """Of the module; None where the rails do not tell, or the block was too short."""
        watts = [w for reading in self.readings if (w := reading.module_w) is not None]
        return sum(watts) / len(watts) if watts else None

    @property
    def hottest_c(self) -> float | None:
        """The highest temperature that any part reached."""
        return max(
            (c for reading in self.readings for c in reading.temperatures_c.values()), default=None
        )

    def __enter__(self) -> PowerSampler:
        """Start to read."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        """Stop."""
        self._stop.set()
        self._meter.interrupt()
        self._thread.join()
        self._meter.close()

    def _sample(self) -> None:
        while not self._stop.is_set():
            reading = self._meter.read()
            if reading is None:
                return
            self.readings.append(reading)
            self._stop.wait(self._meter.interval_s)


def open_meter(
    root: Path = Path("/"), which: Callable[[str], str | None] = find_tool
) -> Meter | None:
    """The sensors of this board; None where it has none that add up to a module."""
    if read_sensors(root).module_w is not None:
        return Meter(lambda: read_sensors(root))
    tool = which(TEGRASTATS[0])
    return None if tool is None else _tegrastats(tool)


def _tegrastats(tool: str) -> Meter | None:
    """None where it does not start: a bench goes without watts rather than fail for them."""
    try:
        process = subprocess.Popen(
            (tool, *TEGRASTATS[1:]), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
    except OSError:
        return None

    lines = process.stdout
    assert lines is not None

    def read() -> Reading | None:
        line = lines.readline()
        return parse_tegrastats(line) if line else None

    def close() -> None:
        lines.close()
        process.wait()

    return Meter(read, process.terminate, close, interval_s=0.0)
