"""The report's section of one model: tiles, variants and charts; its drift comes after them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from irstd_edge.benchmarks.comparison import (
    ABSENT,
    COLUMNS,
    Layer,
    Row,
    cost_of,
    fixed,
    percent,
    rows_of,
    signed,
    size_of,
    skipped_words,
    timed_words,
    weak_words,
)
from irstd_edge.benchmarks.noise_floor import noise_words
from irstd_edge.benchmarks.report_charts import (
    latency_chart,
    stages_chart,
    trade_chart,
)
from irstd_edge.benchmarks.report_curves import curve_figures
from irstd_edge.benchmarks.report_drift import drift_parts
from irstd_edge.benchmarks.report_layers import layer_parts
from irstd_edge.benchmarks.report_page import Html, element, figure, joined, table
from irstd_edge.benchmarks.report_svg import swatch
from irstd_edge.edge.first_step import step_words


def model_section(result: Mapping[str, Any], layers: Sequence[Layer] = ()) -> Html:
    """A card with everything that bench.json, and the sensitivity of its layers, say of a model."""
    rows, noise = rows_of(result), noise_words(result)
    return element(
        "section",
        element("h2", str(result["model"])),
        element("p", cost_of(result["cost"]), class_="soft"),
        _tiles(result, rows),
        _variants(rows),
        _notes(rows, result),
        _charts(rows),
        *[element("p", f"{words[0].upper()}{words[1:]}.") for words in filter(None, [noise])],
        *[part for drift in result["drift"] for part in drift_parts(drift)],
        *layer_parts([row for row in rows if row.variant["measured"]], layers),
        class_="card",
    )


def _tiles(result: Mapping[str, Any], rows: Sequence[Row]) -> Html:
    """The headline numbers of the fastest integer variant."""
    measured = [row for row in rows if row.variant["measured"]]
    integer = [row for row in measured if row.name.startswith("int8")] or measured
    if not integer:
        return Html("")
    best = max(integer, key=lambda row: row.variant["fps"] or 0.0)
    metric, name = _headline(rows)
    change = None if best.drift is None else best.drift[metric]
    before = None if best.reference is None else best.reference["bytes"]
    targets = 0 if best.drift is None else len(best.drift["targets"])
    runtime = best.variant["runtime"]
    times = "" if best.speed_up is None else f", {best.speed_up:.2f}× FP32 on {runtime}"
    tiles = [
        (f"{name}, {best.name}", f"{percent(best.accuracy(metric))} %", _points(best, change)),
        ("targets lost, gained", best.flips(), f"of {targets}" if targets else "not compared"),
        ("inference, p50", f"{fixed(best.latency_ms('p50'), 1)} ms", best.where),
        ("speed", f"{fixed(best.variant['fps'], 1)} FPS", f"inference alone{times}"),
        ("graph", size_of(best.variant["bytes"]), f"FP32: {size_of(before)}"),
        ("GFLOPs", fixed(result["cost"]["gflops"], 2), _gmacs(result["cost"])),
    ]
    return element("dl", *[_tile(*tile) for tile in tiles], class_="tiles")


def _headline(rows: Sequence[Row]) -> tuple[str, str]:
    """Masks are judged by IoU, points by F1."""
    has_iou = any(row.accuracy("iou") is not None for row in rows)
    return ("iou", "IoU") if has_iou else ("f1_3px", "F1 at 3 px")


def _points(row: Row, change: float | None) -> str:
    if change is not None:
        return f"{signed(100 * change, 2)} points to FP32"
    if row.variant["accuracy"] is None:
        return "not measured"
    return "no FP32 beside it" if row.drift is None else "undefined"


def _gmacs(cost: Mapping[str, Any]) -> str:
    return "not counted" if cost["macs"] is None else f"= {cost['macs'] / 1e9:.2f} GMACs × 2"


def _tile(title: str, value: str, detail: str) -> Html:
    big = element("dd", value, class_="big")
    return element(
        "div", element("dt", title), big, element("dd", detail, class_="soft"), class_="tile"
    )


def _variants(rows: Sequence[Row]) -> Html:
    """Columns in which no variant has a number are left out."""
    columns = [c for c in COLUMNS.values() if any(c.text(row) != ABSENT for row in rows)]
    headings = ["variant", "runtime", *(column.heading for column in columns)]
    lines = [[row.name, _where(row), *(column.text(row) for column in columns)] for row in rows]
    return table("Variants side by side", headings, lines, texts=2)


def _where(row: Row) -> Html:
    if row.variant["measured"]:
        return joined([row.where])
    place = row.where.removesuffix(", projected")
    return joined([place, " ", element("span", "projected", class_="pill")])


def _notes(rows: Sequence[Row], result: Mapping[str, Any]) -> Html:
    timed = timed_words(result, rows)
    lines = [f"Warning: {words}." for words in result.get("warnings") or ()]
    lines += [f"{words[0].upper()}{words[1:]}." for words in skipped_words(rows)]
    lines += [f"{timed[0].upper()}{timed[1:]}."] if timed else []
    weak = weak_words(rows)
    lines += [f"{row.label}: {step_words(step)}" for row in rows if (step := row.sensor_step)]
    lines += [f"Weak numbers: {'; '.join(weak)}."] if weak else []
    lines += [f"{row.label}: {note}" for row in rows if (note := row.variant["not_measured"])]
    return joined([element("p", line, class_="soft") for line in lines])


def _charts(rows: Sequence[Row]) -> Html:
    """Of what was measured; a projection stays in the table, where it is marked."""
    measured = [row for row in rows if row.variant["measured"]]
    metric, name = _headline(rows)
    stages = ("read", "pre", "float", "int", "post")
    words = ("read", "preprocess", "infer (float)", "infer (int8)", "decode")
    key = [element("li", swatch(s), w) for s, w in zip(stages, words, strict=True)]
    numbered = [
        element("li", f"{k} {row.label}: {percent(row.accuracy(metric))} %")
        for k, row in enumerate(measured, start=1)
    ]
    latency, frame = latency_chart(measured), stages_chart(measured)
    trade = trade_chart(measured, metric, name)
    figures = (
        figure("Latency", "Timed inferences, without the few slowest; bar p50, tick p99.", latency),
        figure("A frame, end to end", "Mean time of each stage.", frame, key),
        figure(f"{name} against speed", "Up and to the right is better.", trade, numbered, "rows"),
        *curve_figures(measured),
    )
    return element("div", *figures, class_="charts") if any(figures) else Html("")
