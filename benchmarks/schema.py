"""The shape of a bench.json, checked before anything is shown or judged from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from irstd_edge.benchmarks.accuracy import METRICS
from irstd_edge.benchmarks.limits import LOWER_IS_BETTER
from irstd_edge.edge.json_files import read_json, write_json
from irstd_edge.edge.policy import MAX_BENCH_BYTES, is_printable
from irstd_edge.edge.types import IrstdError

SCHEMA = "irstd-edge/bench/1"
SENSITIVITY = "irstd-edge/sensitivity/2"

MAX_NUMBER = 1e15
"""No figure of a bench comes near; sums and ratios of larger ones run over."""
TEXT, NUMBER, COUNT, FLAG = "a string", "a number", "a count", "true or false"
NUMBERS, PAIR = "numbers", "two numbers"
AMOUNT, FRACTION = "a number of 0 or more", "a fraction from 0 to 1"
POSITIVE, POSITIVES, POSITIVE_PAIR = "a number above 0", "numbers above 0", "two numbers above 0"
SLACK = 1e-9
"""Of a fraction: floats carry rounding errors."""


@dataclass(frozen=True)
class Maybe:
    """A value that may be null."""

    shape: Any
    optional: bool = False
    """Its name may be missing as well."""


def _all(shape: Any, *names: str) -> dict[str, Any]:
    return dict.fromkeys(names, shape)


_CHANGES = ("iou", "niou", "pd", "fa_per_mpx", "f1_3px", "f1_5px")

_CURVE = {
    **_all(NUMBERS, "threshold", "fa_per_mpx"),
    **_all([Maybe(FRACTION)], "precision_3px", "recall_3px", "pd"),
}

_ACCURACY = {
    "protocol": TEXT,
    **_all(COUNT, "images", "targets"),
    **{name: Maybe(AMOUNT if name in LOWER_IS_BETTER else FRACTION) for name in METRICS},
    **_all(Maybe(FRACTION, optional=True), "precision_5px", "recall_5px"),
    "position_median_px": Maybe(AMOUNT, optional=True),
    "undefined": [TEXT],
    "threshold": Maybe(NUMBER, optional=True),
    "frames_sha256": Maybe(TEXT, optional=True),
    "curve": Maybe(_CURVE, optional=True),
}

_TARGET = {
    "image": TEXT,
    "row": NUMBER,
    "col": NUMBER,
    **_all(Maybe(NUMBER), "area_px", "scr", "score_reference", "score_candidate"),
    "flip": Maybe(TEXT),
    **_all(Maybe(FLAG, optional=True), "matched_reference", "matched_candidate"),
}

_EQUAL_FA = {
    "fa_per_mpx": AMOUNT,
    **_all(FRACTION, "pd_reference", "pd_candidate"),
    **_all(NUMBER, "threshold_reference", "threshold_candidate"),
    "own": FLAG,
    "ci95": Maybe(PAIR),
}

_RANGE = {"above": NUMBER, "up_to": Maybe(NUMBER), **_all(COUNT, "targets", "lost", "gained")}

_ALARM = {"image": TEXT, **_all(NUMBER, "row", "col", "area_px", "score")}

_CI95_OF = {
    **_all(Maybe(PAIR), "iou", "f1_3px", "pd"),
    **_all(Maybe(PAIR, optional=True), "niou", "fa_per_mpx", "f1_5px"),
}

_DRIFT = {
    **_all(TEXT, "reference", "candidate", "runtime"),
    "reference_runtime": Maybe(TEXT, optional=True),
    "masked": Maybe(FLAG, optional=True),
    **_all(Maybe(NUMBER), *_CHANGES, "p_value"),
    "position_px": Maybe(NUMBER, optional=True),
    **_all(COUNT, "targets_lost", "targets_gained", "false_alarms_gained"),
    "ci95": Maybe(PAIR),
    "ci95_of": Maybe(_CI95_OF, optional=True),
    "pd_at_fa": Maybe([_EQUAL_FA], optional=True),
    **_all(Maybe([_RANGE], optional=True), "by_area", "by_scr"),
    "targets": [_TARGET],
    "false_alarms": Maybe([_ALARM], optional=True),
}

_NOISE = {
    "counts": AMOUNT,
    "masked": Maybe(FLAG, optional=True),
    **_all(TEXT, "variant", "runtime"),
    **_all(Maybe(NUMBER), *_CHANGES, "position_px", "p_value", "score_error"),
    **_all(COUNT, "targets", "targets_lost", "targets_gained", "false_alarms_gained"),
    "ci95_of": Maybe(_CI95_OF),
}

_PACE = {
    "rate_hz": NUMBER,
    **_all(COUNT, "arrived", "detected", "missed", "dropped", "queued"),
    "age_ms": _all(NUMBER, "p50", "p99"),
    "ages_ms": NUMBERS,
}

_SENSOR_STEP = {
    "bit_depth": COUNT,
    **_all(TEXT, "normalisation", "tensor"),
    **_all(NUMBER, "counts_per_unit", "int8_input", "first_activation"),
}

_VARIANT = {
    **_all(TEXT, "name", "runtime", "precision", "device"),
    "measured": FLAG,
    "not_measured": Maybe(TEXT),
    **_all(Maybe(NUMBER), "bytes", "memory_mb"),
    **_all(Maybe(POSITIVE), "fps", "fps_end_to_end"),
    "batch": Maybe(COUNT, optional=True),
    **_all(Maybe(NUMBER), "power_w", "joule_per_frame"),
    "latency_ms": Maybe(
        {**_all(Maybe(POSITIVE), "p50", "p90", "p99", "mean"), "samples": Maybe(NUMBER)}
    ),
    "stages_ms": Maybe(_all(Maybe(AMOUNT), "read", "pre", "infer", "post")),
    "accuracy": Maybe(_ACCURACY),
    **_all(Maybe(NUMBERS, optional=True), "read_ms", "pre_ms", "post_ms"),
    "infer_ms": Maybe(POSITIVES, optional=True),
    "range_ms": Maybe(POSITIVE_PAIR, optional=True),
    **_all(Maybe(NUMBER, optional=True), "load_ms", "gpu_memory_mb", "hottest_c"),
    "runtime_version": Maybe(TEXT, optional=True),
    "engine": Maybe({"version": TEXT, "flags": [TEXT], "cuda_graph": FLAG}, optional=True),
    "pace": Maybe(_PACE, optional=True),
    "layers_ms": Maybe([{**_all(TEXT, "layer", "op"), "ms": AMOUNT}], optional=True),
    "weak": Maybe([TEXT], optional=True),
    "sensor_step": Maybe(_SENSOR_STEP, optional=True),
}

_LAYER = {**_all(TEXT, "name", "op"), **_all(COUNT, "macs", "params", "output_bytes")}

_COUNTED = ("params", "macs", "gflops")

_COST = {
    **_all(Maybe(NUMBER), *_COUNTED),
    "activation_bytes": Maybe(NUMBER, optional=True),
    "input": NUMBERS,
    "layers": Maybe([_LAYER], optional=True),
}

_RESULT = {
    "model": TEXT,
    "bundle": Maybe(TEXT, optional=True),
    "cost": _COST,
    "timed_on": Maybe(TEXT, optional=True),
    "warnings": Maybe([TEXT], optional=True),
    "variants": [_VARIANT],
    "drift": [_DRIFT],
    "noise": Maybe(_NOISE, optional=True),
}

_SENSITIVITY = {
    "bundle": TEXT,
    "layers": [
        {
            "layer": TEXT,
            **_all(COUNT, "macs", "targets_lost", "targets_gained"),
            "score_error": NUMBER,
            "mask_error": Maybe(NUMBER, optional=True),
            **_all(Maybe(NUMBER), "sqnr_db", "pd_at_fa"),
        }
    ],
}

_MACHINE = {"fingerprint": Maybe(TEXT), "clocks_locked": Maybe(FLAG, optional=True)}

_BENCH = {"machine": _MACHINE, "results": [_RESULT]}


def read_bench(path: Path) -> dict[str, Any]:
    """The value of a bench.json. Raises IrstdError where it is none."""
    return check_bench(read_json(path, "a bench.json", MAX_BENCH_BYTES), str(path))


def write_bench(path: Path, bench: Mapping[str, Any]) -> None:
    """Write a bench.json, a target a line. Raises IrstdError where `path` cannot be written."""
    write_json(path, bench, rows=True)


def read_sensitivity(path: Path) -> dict[str, Any]:
    """What `irstd-edge sensitivity --out` wrote. Raises IrstdError where it is none."""
    value = read_json(path, "what each layer costs")
    if not isinstance(value, dict) or value.get("schema") != SENSITIVITY:
        raise IrstdError(f"{path}: is no sensitivity, write it by `irstd-edge sensitivity --out`")
    _check(value, _SENSITIVITY, str(path), "")
    return value


def check_bench(value: Any, source: str = "bench.json") -> dict[str, Any]:
    """The value itself, if it has the shape of a bench.json; fields beyond it are welcome.

    Raises:
        IrstdError: `source: where: what is wrong, and the fix`.
    """
    found = value.get("schema") if isinstance(value, dict) else None
    if not isinstance(value, dict) or found is None:
        raise IrstdError(f"{source}: is no bench.json; give the file of `irstd-edge bench --json`")
    if found != SCHEMA:
        _fail(source, "", f"schema is {found!r}, not {SCHEMA!r}")
    _check(value, _BENCH, source, "")
    for index, result in enumerate(value["results"]):
        known = [result["cost"][name] is not None for name in _COUNTED]
        if any(known) and not all(known):
            _fail(source, f"results[{index}].cost", f"of {', '.join(_COUNTED)} some are null")
        for at, drift in enumerate(result["drift"]):
            _check_flips(drift, source, f"results[{index}].drift[{at}]")
    _refuse_unprintable(value, source)
    return value


def _check_flips(drift: Mapping[str, Any], source: str, where: str) -> None:
    """The counts, by which a gate judges, are those of the targets, which a page lists."""
    for kind in ("lost", "gained"):
        listed = sum(target["flip"] == kind for target in drift["targets"])
        if listed != drift[f"targets_{kind}"]:
            told = drift[f"targets_{kind}"]
            _fail(source, where, f"targets_{kind} is {told}, and {listed} are listed")


def _refuse_unprintable(value: Any, source: str) -> None:
    """Whatever stands in a bench may come to stand on a terminal, a page or in a log."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str) and not is_printable(item):
            _fail(source, "", f"{item!r:.60} cannot be printed")
        elif isinstance(item, Mapping):
            waiting += [*item, *item.values()]
        elif isinstance(item, list):
            waiting += item


def _check(value: Any, shape: Any, source: str, where: str) -> None:
    if isinstance(shape, Maybe):
        if value is not None:
            _check(value, shape.shape, source, where)
    elif isinstance(shape, Mapping):
        _require(isinstance(value, dict), "an object", value, source, where)
        for name, inner in shape.items():
            if name not in value and not (isinstance(inner, Maybe) and inner.optional):
                _fail(source, where, f"{name} is missing")
            _check(value.get(name), inner, source, f"{where}.{name}")
    elif isinstance(shape, list):
        _require(isinstance(value, list), "a list", value, source, where)
        for index, item in enumerate(value):
            _check(item, shape[0], source, f"{where}[{index}]")
    else:
        _require(_IS[shape](value), shape, value, source, where)


def _require(holds: bool, what: str, value: Any, source: str, where: str) -> None:
    if not holds:
        shown = repr(value)
        _fail(source, where, f"{shown[:40]} is not {what}")


def _fail(source: str, where: str, what: str) -> NoReturn:
    place = f"{where.lstrip('.')}: " if where else ""
    raise IrstdError(f"{source}: {place}{what}, write it anew with `irstd-edge bench --json`")


def _is_number(value: Any) -> bool:
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return plain and abs(value) <= MAX_NUMBER  # NaN is not


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_NUMBER


def _are_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(_is_number(item) for item in value)


def _are_two(value: Any) -> bool:
    return _are_numbers(value) and len(value) == 2


def _is_positive(value: Any) -> bool:
    return _is_number(value) and value >= 1 / MAX_NUMBER


def _are_positive(value: Any) -> bool:
    return isinstance(value, list) and all(_is_positive(item) for item in value)


_IS: dict[str, Callable[[Any], bool]] = {
    TEXT: lambda value: isinstance(value, str),
    NUMBER: _is_number,
    COUNT: _is_count,
    FLAG: lambda value: isinstance(value, bool),
    NUMBERS: _are_numbers,
    PAIR: _are_two,
    AMOUNT: lambda value: _is_number(value) and value >= 0,
    FRACTION: lambda value: _is_number(value) and -SLACK <= value <= 1 + SLACK,
    POSITIVE: _is_positive,
    POSITIVES: _are_positive,
    POSITIVE_PAIR: lambda value: _are_two(value) and _are_positive(value),
}
