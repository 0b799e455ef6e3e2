"""The limits of a gate, and gate.toml that sets them."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from irstd_edge.benchmarks.accuracy import METRICS
from irstd_edge.benchmarks.buckets import AREA_EDGES_PX, SCR_EDGES, range_names
from irstd_edge.edge.files import read_bytes
from irstd_edge.edge.policy import MAX_TOML_BYTES
from irstd_edge.edge.runtimes import RUNTIMES
from irstd_edge.edge.tensorrt_runtime import TENSORRT_RUNTIMES
from irstd_edge.edge.types import IrstdError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CHANGES: Mapping[str, float] = {
    "net_targets_lost": 1,
    "targets_flipped": 0.005,
    "f1_3px": -0.005,
    "iou": -0.005,
    "fa_per_mpx": 2.0,
}
"""Against a reference: targets lost less gained, share of targets that flipped either way,
lowest allowed changes of F1 and IoU, highest allowed rise of Fa."""
SPEED = "fps_ratio"
ASKED = ("pd_at_fa", "position_px", SPEED)
"""Off unless gate.toml sets them (fps_ratio of [baseline] has a default): lowest allowed change of
Pd at the reference's false-alarm rate; highest allowed rise of the mean position error; lowest
allowed speed relative to the reference."""
RANGES: Mapping[str, tuple[str, ...]] = {
    "lost_by_area": range_names(AREA_EDGES_PX),
    "lost_by_scr": range_names(SCR_EDGES),
}
"""Sections within [drift] and [baseline]: most targets lost of each range of area in px, and of
SCR."""
MAX_LIMIT = 1e12
"""Of a finite one; infinity turns a limit off, on the side where it allows everything."""
COSTS: Mapping[str, str] = {
    "fps": "bench again",
    "fps_end_to_end": "bench again",
    "p99_ms": "bench again",
    "memory_mb": "bench on Linux, where the variant opens in a process of its own",
    "joule_per_frame": "bench on a board with power sensors, by --device jetson",
    "missed": "bench with --rate-hz",
}
"""What a variant costs where it runs, and what brings the figure where a bench lacks it. `p99_ms`
is of the inference alone, `missed` counts frames at the rate of the sensor."""
FLOORS = (*COSTS, "images", "targets", *METRICS)
"""What [floor] may name."""
LOWER_IS_BETTER = frozenset(
    {
        *("fa_per_mpx", "fa_legacy_per_mpx", "position_px"),
        *("p99_ms", "memory_mb", "joule_per_frame", "missed"),
        *("net_targets_lost", "targets_flipped", *RANGES),
    }
)
"""Their limits are the highest allowed values; all others are the lowest. In [floor] too: for
false alarms, position error, time, memory, energy and missed frames the "floor" is a ceiling."""
FRACTIONS = frozenset(METRICS) - LOWER_IS_BETTER | {"targets_flipped", "pd_at_fa"}
"""Those that lie in 0..1; a change of one in -1..1."""


@dataclass(frozen=True)
class Limits:
    """What the gate lets pass."""

    drift: Mapping[str, float] = field(default_factory=lambda: dict(CHANGES))
    """A candidate against the reference of its bundle."""
    lost: Mapping[tuple[str, str], float] = field(default_factory=dict)
    """(section of `RANGES`, name of a range) -> most targets that a candidate may lose of it."""
    floor: Mapping[str, float] = field(default_factory=dict)
    """Absolute, of every measured variant that is not just a reference."""
    floor_on: Mapping[tuple[str, str], float] = field(default_factory=dict)
    """(runtime, name) -> a floor of the variants on that runtime alone, in place of `floor`'s."""
    baseline: Mapping[str, float] = field(default_factory=lambda: {**CHANGES, "fps_ratio": 0.9})
    """A variant against itself in an earlier bench."""
    baseline_lost: Mapping[tuple[str, str], float] = field(default_factory=dict)
    """As `lost`, of a variant against itself."""
    baseline_asked: bool = False
    """Whether gate.toml has [baseline]: then an earlier bench has to be given."""

    def __post_init__(self) -> None:
        # Infinity turns a limit off, and nothing has to answer it; those with a default keep it.
        for name in ("drift", "lost", "floor", "baseline", "baseline_lost"):
            kept = CHANGES if name in ("drift", "baseline") else ()
            given = getattr(self, name)
            on = {k: v for k, v in given.items() if k in kept or not math.isinf(v)}
            object.__setattr__(self, name, on)

    def floor_of(self, runtime: str) -> dict[str, float]:
        """The floors of the variants on a runtime."""
        own = {name: limit for (on, name), limit in self.floor_on.items() if on == runtime}
        both = {**self.floor, **own}
        return {name: limit for name, limit in both.items() if not math.isinf(limit)}


def load_limits(path: Path | None = None) -> Limits:
    """The defaults, changed by a gate.toml; IrstdError names what it gets wrong."""
    if path is None:
        return Limits()
    given = _read_toml(path)
    defaults = Limits()
    changes = (*CHANGES, *ASKED)
    sections = {"drift": changes, "floor": FLOORS, "baseline": changes}
    _check_names(given, tuple(sections), f"{path}: section")
    lost = {name: _lost_by_range(given, name, path) for name in ("drift", "baseline")}
    floor_on = _floor_by_runtime(given, path)
    for name, valid in sections.items():
        values = _section(given, name, path)
        _check_names(values, (*valid, *(RANGES if name in lost else ())), f"{path}: [{name}] key")
        for key, value in values.items():
            _check_limit(value, key, absolute=name == "floor", where=f"{path}: [{name}] {key}")
    return Limits(
        drift={**defaults.drift, **given.get("drift", {})},
        lost=lost["drift"],
        floor=given.get("floor", {}),
        floor_on=floor_on,
        baseline={**defaults.baseline, **given.get("baseline", {})},
        baseline_lost=lost["baseline"],
        baseline_asked="baseline" in given,
    )


def _section(given: Mapping[str, Any], name: str, path: Path, inside: str = "") -> dict[str, Any]:
    values = given.get(name, {})
    if not isinstance(values, dict):
        raise IrstdError(
            f"{path}: {inside}{name} is not a section; write [{inside}{name}] on its own line"
        )
    return values


def _lost_by_range(
    given: Mapping[str, Any], section: str, path: Path
) -> dict[tuple[str, str], float]:
    """The sections of `RANGES`, taken out of [drift] or [baseline]."""
    changes, limits = _section(given, section, path), {}
    for name, valid in RANGES.items():
        where = f"{path}: [{section}.{name}]"
        values = _section(changes, name, path, f"{section}.")
        changes.pop(name, None)
        _check_names(values, valid, f"{where} range")
        for key, value in values.items():
            _check_limit(value, name, absolute=True, where=f"{where} {key}")
            limits[name, key] = value
    return limits


def _floor_by_runtime(given: Mapping[str, Any], path: Path) -> dict[tuple[str, str], float]:
    """The sections [floor.RUNTIME], taken out of [floor]."""
    floor, limits = _section(given, "floor", path), {}
    for runtime in [name for name, value in floor.items() if isinstance(value, dict)]:
        where = f"{path}: [floor.{runtime}]"
        _check_names({runtime: None}, (*RUNTIMES, *TENSORRT_RUNTIMES), f"{path}: [floor] runtime")
        values = floor.pop(runtime)
        _check_names(values, FLOORS, f"{where} key")
        for key, value in values.items():
            _check_limit(value, key, absolute=True, where=f"{where} {key}")
            limits[runtime, key] = value
    return limits


def _read_toml(path: Path) -> dict[str, Any]:
    data = read_bytes(path, MAX_TOML_BYTES)
    try:
        return tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:  # bad TOML and bad UTF-8 are ValueErrors
        why = " ".join(str(error).split())
        raise IrstdError(f"{path}: is not TOML ({why}); correct that line") from error


def _check_names(given: Mapping[str, Any], valid: tuple[str, ...], where: str) -> None:
    for name in given:
        if name not in valid:
            raise IrstdError(f"{where} {name!r} is unknown; valid are {', '.join(valid)}")


def _check_limit(value: Any, key: str, *, absolute: bool, where: str) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not (abs(value) <= MAX_LIMIT or abs(value) == math.inf):
        raise IrstdError(f"{where} is {value!r:.60}; write a number up to {MAX_LIMIT:g}")
    if absolute or key == "fps_ratio" or key in LOWER_IS_BETTER:
        if value < 0:
            raise IrstdError(f"{where} = {value} is negative; write 0 or more")
    elif value > 0:
        raise IrstdError(f"{where} = {value} demands a rise; write {-value} to allow that drop")
    if value == math.inf and key not in LOWER_IS_BETTER:
        raise IrstdError(f"{where} = {value} is out of reach; leave it out or write 0")
    if key in FRACTIONS and 1 < abs(value) < math.inf:
        raise IrstdError(f"{where} = {value} is no fraction; write {value / 100:g} for {value} %")
