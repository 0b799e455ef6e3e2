"""One row per variant, beside the FP32 graph it came from: what the table and the page show."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ABSENT = "–"


@dataclass(frozen=True)
class Row:
    """A variant of bench.json with its reference and its drift; missing numbers are None."""

    variant: Mapping[str, Any]
    reference: Mapping[str, Any] | None
    """fp32 on the same runtime and device."""
    drift: Mapping[str, Any] | None

    @property
    def name(self) -> str:
        """fp32, fp16, int8, int8-fp16."""
        return str(self.variant["name"])

    @property
    def where(self) -> str:
        """Runtime, and the device when it is not the processor; a projection says so."""
        device, runtime = self.variant["device"], self.variant["runtime"]
        place = runtime if device == "cpu" else f"{runtime}, {device}"
        return place if self.variant["measured"] else f"{place}, projected"

    @property
    def label(self) -> str:
        """Unique among the rows of a model."""
        return f"{self.name} {self.where}"

    @property
    def weak(self) -> tuple[str, ...]:
        """Why its times deserve distrust."""
        return tuple(self.variant.get("weak") or ())

    @property
    def is_noisy(self) -> bool:
        """Whether the median itself is weak, and not only its 99th percentile."""
        return any(not reason.startswith("p99") for reason in self.weak)

    @property
    def speed_up(self) -> float | None:
        """Median time of the reference over its own: 2 is twice as fast."""
        mine = self.latency_ms("p50")
        theirs = None if self.reference is None else _inner(self.reference, "latency_ms", "p50")
        return theirs / mine if theirs and mine else None

    @property
    def sensor_step(self) -> Mapping[str, Any] | None:
        """What its first rounding is in counts of the sensor; None where nothing is rounded."""
        return self.variant.get("sensor_step")

    @property
    def batch(self) -> int:
        """Frames a call, of which all its times are."""
        return self.variant.get("batch") or 1

    def latency_ms(self, name: str) -> float | None:
        """Of the inference alone: p50, p90, p99, mean."""
        return _inner(self.variant, "latency_ms", name)

    def accuracy(self, name: str) -> float | None:
        """A metric of its accuracy."""
        return _inner(self.variant, "accuracy", name)

    @property
    def is_masked(self) -> bool:
        """Whether masks were scored, in pixels, also where their IoU is undefined."""
        accuracy = self.variant.get("accuracy") or {}
        return accuracy.get("iou") is not None or "iou" in accuracy.get("undefined", ())

    def pace(self, name: str) -> float | None:
        """Of the frames at the sensor's rate: missed, dropped, queued, arrived, rate_hz."""
        return _inner(self.variant, "pace", name)

    def age_ms(self, name: str) -> float | None:
        """Of a detection at the sensor's rate: p50, p99."""
        return _inner(self.variant.get("pace") or {}, "age_ms", name)

    def flips(self) -> str:
        """Targets lost and gained, as in -3 +1."""
        if self.drift is None:
            return ABSENT
        lost, gained = self.drift["targets_lost"], self.drift["targets_gained"]
        return f"−{lost} +{gained}" if lost or gained else "none"


def rows_of(result: Mapping[str, Any]) -> tuple[Row, ...]:
    """The rows of one model, in the order of its variants."""
    variants = result["variants"]
    references = {_place(v): v for v in variants if v["name"] == "fp32"}
    drifts = {(d["candidate"], d["runtime"]): d for d in result["drift"]}
    return tuple(
        Row(v, references.get(_place(v)), drifts.get((v["name"], v["runtime"]))) for v in variants
    )


def reference_of(drift: Mapping[str, Any]) -> str:
    """Of a drift entry: fp32, or `fp32 on onnxruntime` where the candidate ran on another."""
    name, runtime = str(drift["reference"]), drift.get("reference_runtime")
    return f"{name} on {runtime}" if runtime and runtime != drift["runtime"] else name


def _place(variant: Mapping[str, Any]) -> tuple[str, str]:
    return variant["runtime"], variant["device"]


def _inner(variant: Mapping[str, Any], group: str, name: str) -> float | None:
    return (variant.get(group) or {}).get(name)


def fixed(value: float | None, digits: int, factor: float = 1.0) -> str:
    """A number with so many decimals, or the sign for none."""
    return ABSENT if value is None else f"{factor * value:,.{digits}f}"


def signed(value: float | None, digits: int) -> str:
    """A change: its sign is always written, and nothing rounds to minus zero."""
    if value is None:
        return ABSENT
    rounded = round(value, digits)
    return f"{rounded or 0.0:+.{digits}f}".replace("-", "−")


def percent(value: float | None) -> str:
    """A fraction as a percentage with two decimals: one target in 945 is 0.11."""
    return fixed(value, 2, 100)


def size_of(size_bytes: float | None) -> str:
    """Bytes as kB or MB of a thousand."""
    if size_bytes is None:
        return ABSENT
    return f"{size_bytes / 1e6:.2f} MB" if size_bytes >= 1e6 else f"{size_bytes / 1e3:.0f} kB"


def cost_of(cost: Mapping[str, Any]) -> str:
    """Parameters, MACs and GFLOPs at their input, with the convention."""
    shape = "×".join(str(int(extent)) for extent in cost["input"])
    if cost["macs"] is None:
        return f"not counted at {shape}: {cost.get('not_counted') or 'no reason given'}"
    written = cost.get("activation_bytes")
    activations = "" if written is None else f", {size_of(written)} of activations written"
    return (
        f"{cost['params']:,.0f} parameters, {cost['macs'] / 1e9:.3f} GMACs = "
        f"{cost['gflops']:.3f} GFLOPs (2 per MAC){activations} at {shape}"
    )


@dataclass(frozen=True)
class Column:
    """A heading and how a row is written under it."""

    heading: str
    text: Callable[[Row], str]
    narrow: str = ""
    """The heading where there is little room, if it is another."""


COLUMNS = {
    "f1_3px": Column("F1 3 px %", lambda row: percent(row.accuracy("f1_3px")), "F1 3px %"),
    "f1_5px": Column("F1 5 px %", lambda row: percent(row.accuracy("f1_5px"))),
    "iou": Column("IoU %", lambda row: percent(row.accuracy("iou"))),
    "niou": Column("nIoU %", lambda row: percent(row.accuracy("niou"))),
    "pd": Column("Pd %", lambda row: percent(row.accuracy("pd"))),
    "fa": Column("Fa /Mpx", lambda row: ABSENT if row.is_masked else _false_alarms(row)),
    "fa_px": Column("Fa px /Mpx", lambda row: _false_alarms(row) if row.is_masked else ABSENT),
    "position": Column("position px", lambda row: _position(row)),
    "flips": Column("lost gained", lambda row: row.flips()),
    "p50": Column("p50 ms", lambda row: ("~" if row.is_noisy else "") + _latency(row, "p50")),
    "p90": Column("p90 ms", lambda row: _latency(row, "p90")),
    "p99": Column("p99 ms", lambda row: _latency(row, "p99")),
    "fps": Column("FPS", lambda row: fixed(row.variant["fps"], 1)),
    "end_to_end": Column(
        "FPS end to end", lambda row: fixed(row.variant["fps_end_to_end"], 1), "FPS\nend to end"
    ),
    "speed_up": Column(
        "vs FP32, same runtime",
        lambda row: fixed(row.speed_up, 2) + ("×" if row.speed_up else ""),
        "vs FP32\nsame runtime",
    ),
    "rate": Column("rate Hz", lambda row: _rate(row)),
    "frames": Column("frames", lambda row: fixed(row.pace("arrived"), 0)),
    "missed": Column("missed", lambda row: fixed(row.pace("missed"), 0)),
    "dropped": Column("dropped", lambda row: fixed(row.pace("dropped"), 0)),
    "queued": Column("queued", lambda row: fixed(row.pace("queued"), 0)),
    "age_p50": Column("age p50 ms", lambda row: fixed(row.age_ms("p50"), 1), "age\np50 ms"),
    "age_p99": Column("age p99 ms", lambda row: fixed(row.age_ms("p99"), 1), "age\np99 ms"),
    "size": Column("size", lambda row: size_of(row.variant["bytes"])),
    "memory": Column("memory MB", lambda row: fixed(row.variant["memory_mb"], 0)),
    "load": Column("load ms", lambda row: fixed(row.variant.get("load_ms"), 0)),
    "power": Column("power W", lambda row: fixed(row.variant["power_w"], 1)),
}
"""Of the page, in its order; the terminal has room for some."""


def _false_alarms(row: Row) -> str:
    """Alarms where points are scored, pixels where masks are."""
    return fixed(row.accuracy("fa_per_mpx"), 2)


def _position(row: Row) -> str:
    """Of points, which are all that such a network tells."""
    return ABSENT if row.is_masked else fixed(row.accuracy("position_px"), 2)


def _rate(row: Row) -> str:
    rate_hz = row.pace("rate_hz")
    return ABSENT if rate_hz is None else f"{rate_hz:g}"


def _latency(row: Row, name: str) -> str:
    return fixed(row.latency_ms(name), 1)


def timed_words(result: Mapping[str, Any], rows: Sequence[Row]) -> str | None:
    """What was timed, and how many frames a call; None where nothing was."""
    sizes = {row.batch for row in rows if row.variant["measured"]} - {1}
    calls = "".join(f", {size} a call" for size in sorted(sizes))
    return f"timed on {result['timed_on']}{calls}" if result.get("timed_on") else None


def skipped_words(rows: Sequence[Row]) -> list[str]:
    """Each frame that was not scored, and why."""
    skips = [skip for row in rows for skip in (row.variant["accuracy"] or {}).get("skipped") or ()]
    return sorted({f"skipped {skip['name']}: {skip['reason']}" for skip in skips})


def weak_words(rows: Sequence[Row]) -> list[str]:
    """Each reason to distrust a time, with the rows that have it."""
    return [
        f"{reason} ({', '.join(row.label for row in rows if reason in row.weak)})"
        for reason in dict.fromkeys(reason for row in rows for reason in row.weak)
    ]


Layer = Mapping[str, Any]
"""What rounding it alone costs, as `sensitivity` writes it."""


def of_masks(layers: Sequence[Layer]) -> bool:
    """Whether they are of a segmentation net, whose scores saturate."""
    return any(layer.get("mask_error") is not None for layer in layers)


def moves(layer: Layer) -> float:
    """How far it moves what the network is for: its masks, or its targets' scores."""
    return float(layer["mask_error"] if of_masks([layer]) else layer["score_error"])


def layer_headings(layers: Sequence[Layer]) -> tuple[str, ...]:
    """Of the columns of `layer_rows`."""
    moved = f"{'mask' if of_masks(layers) else 'score'} moves"
    return "layer", "MACs %", "SQNR dB", moved, "lost", "gained", "Pd at same Fa, points"


def layer_rows(layers: Sequence[Layer]) -> list[list[str]]:
    """What rounding each layer alone costs, the worst first, under `layer_headings`."""
    total = sum(layer["macs"] for layer in layers) or 1
    return [
        [
            layer["layer"],
            percent(layer["macs"] / total),
            fixed(layer["sqnr_db"], 1),
            fixed(moves(layer), 4),
            str(layer["targets_lost"]),
            str(layer["targets_gained"]),
            percent(layer["pd_at_fa"]),
        ]
        for layer in sorted(layers, key=lambda layer: -moves(layer))
    ]
