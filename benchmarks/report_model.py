"""The report's section of one model: tiles, variants, charts, drift target by target."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from irstd_edge.benchmarks.comparison import (
    ABSENT,
    Row,
    cost_of,
    fixed,
    percent,
    rows_of,
    signed,
    size_of,
)
from irstd_edge.benchmarks.report_charts import (
    latency_chart,
    score_chart,
    stages_chart,
    swatch,
    trade_chart,
)
from irstd_edge.benchmarks.report_page import Html, element, joined, table

TARGET_ROWS = 60
"""Flipped targets are listed first; unflipped ones fill up to so many."""
MAX_TARGET_ROWS = 400
"""More flips than these are a broken graph, not a list to read."""

COLUMNS: tuple[tuple[str, Callable[[Row], str]], ...] = (
    ("F1 3 px %", lambda row: percent(row.accuracy("f1_3px"))),
    ("F1 5 px %", lambda row: percent(row.accuracy("f1_5px"))),
    ("IoU %", lambda row: percent(row.accuracy("iou"))),
    ("nIoU %", lambda row: percent(row.accuracy("niou"))),
    ("Pd %", lambda row: percent(row.accuracy("pd"))),
    ("Fa /Mpx", lambda row: fixed(row.accuracy("fa_per_mpx"), 2)),
    ("lost gained", lambda row: row.flips()),
    ("p50 ms", lambda row: ("~" if row.is_noisy else "") + fixed(row.latency_ms("p50"), 1)),
    ("p90 ms", lambda row: fixed(row.latency_ms("p90"), 1)),
    ("p99 ms", lambda row: fixed(row.latency_ms("p99"), 1)),
    ("FPS", lambda row: fixed(row.variant["fps"], 1)),
    ("FPS end to end", lambda row: fixed(row.variant["fps_end_to_end"], 1)),
    ("speed-up", lambda row: fixed(row.speed_up, 2) + ("×" if row.speed_up else "")),
    ("size", lambda row: size_of(row.variant["bytes"])),
    ("memory MB", lambda row: fixed(row.variant["memory_mb"], 0)),
    ("power W", lambda row: fixed(row.variant["power_w"], 1)),
)

AREAS_PX = (4.0, 9.0, 25.0, 64.0, math.inf)
SCRS = (1.0, 2.0, 4.0, 8.0, math.inf)
"""Upper ends of the buckets, the last one open."""


def model_section(result: Mapping[str, Any]) -> Html:
    """A card with everything that bench.json says of one model."""
    rows = rows_of(result)
    timed_on = result.get("timed_on")
    return element(
        "section",
        element("h2", str(result["model"])),
        element("p", cost_of(result["cost"]), class_="soft"),
        _tiles(result, rows),
        _variants(rows),
        _notes(rows, timed_on),
        _charts(rows),
        *[part for drift in result["drift"] for part in _drift(drift)],
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
    times = "" if best.speed_up is None else f", {best.speed_up:.2f}× FP32"
    tiles = [
        (f"{name}, {best.name}", f"{percent(best.accuracy(metric))} %", _points(change)),
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


def _points(change: float | None) -> str:
    return "no FP32 beside it" if change is None else f"{signed(100 * change, 2)} points to FP32"


def _gmacs(cost: Mapping[str, Any]) -> str:
    return "not counted" if cost["macs"] is None else f"= {cost['macs'] / 1e9:.2f} GMACs × 2"


def _tile(title: str, value: str, detail: str) -> Html:
    big = element("dd", value, class_="big")
    return element(
        "div", element("dt", title), big, element("dd", detail, class_="soft"), class_="tile"
    )


def _variants(rows: Sequence[Row]) -> Html:
    """Columns in which no variant has a number are left out."""
    columns = [
        (heading, text) for heading, text in COLUMNS if any(text(row) != ABSENT for row in rows)
    ]
    headings = ["variant", "runtime", *(heading for heading, _ in columns)]
    lines = [[row.name, _where(row), *(text(row) for _, text in columns)] for row in rows]
    return table("Variants side by side", headings, lines, texts=2)


def _where(row: Row) -> Html:
    if row.variant["measured"]:
        return joined([row.where])
    place = row.where.removesuffix(", projected")
    return joined([place, " ", element("span", "projected", class_="pill")])


def _notes(rows: Sequence[Row], timed_on: str | None) -> Html:
    lines = [f"Timed on {timed_on}."] if timed_on else []
    for reason in dict.fromkeys(reason for row in rows for reason in row.weak):
        who = ", ".join(row.label for row in rows if reason in row.weak)
        lines.append(f"Weak: {reason} ({who}).")
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
        _figure("Latency", "Every timed inference; bar p50, tick p99.", latency),
        _figure("A frame, end to end", "Mean time of each stage.", frame, key),
        _figure(f"{name} against speed", "Up and to the right is better.", trade, numbered, "rows"),
    )
    return element("div", *figures, class_="charts") if any(figures) else Html("")


def _figure(
    title: str, words: str, chart: Html | None, key: Sequence[Html] = (), kind: str = ""
) -> Html:
    if chart is None:
        return Html("")
    legend = element("ul", *key, class_=f"legend {kind}") if key else ""
    return element("figure", element("figcaption", title), element("p", words), chart, legend)


def _drift(drift: Mapping[str, Any]) -> list[Html]:
    title = f"{drift['candidate']} against {drift['reference']}, {drift['runtime']}"
    targets = drift["targets"]
    parts = [element("h3", title), element("p", _drift_words(drift))]
    if not targets:
        return parts
    halves = [_score_figure(drift), element("div", *_bucket_tables(targets))]
    return [*parts, element("div", *halves, class_="halves"), _target_table(drift)]


def _drift_words(drift: Mapping[str, Any]) -> str:
    parts = [
        f"{name} {signed(100 * drift[key], 2)} points"
        for key, name in (("f1_3px", "F1 at 3 px"), ("iou", "IoU"), ("pd", "Pd"))
        if drift[key] is not None
    ]
    if drift["fa_per_mpx"] is not None:
        parts.append(f"false alarms {signed(drift['fa_per_mpx'], 2)} px per Mpx")
    lost, gained = drift["targets_lost"], drift["targets_gained"]
    parts.append(f"{lost} lost and {gained} gained of {len(drift['targets'])} targets")
    if drift["p_value"] is not None:
        parts[-1] += f" (McNemar p = {drift['p_value']:.2g})"
    parts.append(f"{drift['false_alarms_gained']} new false alarms")
    if drift["ci95"]:
        metric = "F1" if drift["iou"] is None else "Pd"
        ends = " to ".join(signed(100 * end, 2) for end in drift["ci95"])
        parts.append(f"95 % interval of the change of {metric}: {ends} points")
    return "; ".join(parts) + "."


def _score_figure(drift: Mapping[str, Any]) -> Html:
    key = [
        element("li", swatch("quiet"), "kept or missed by both"),
        element("li", swatch("lost", "down"), "lost"),
        element("li", swatch("gained", "up"), "gained"),
    ]
    words = "A dot is a target; below the diagonal its score fell."
    return _figure("Score of every target", words, score_chart(drift), key)


def _bucket_tables(targets: Sequence[Mapping[str, Any]]) -> list[Html]:
    by_area = _buckets(targets, "area_px", AREAS_PX)
    by_scr = _buckets(targets, "scr", SCRS)
    headings = ("targets", "lost", "gained", "Δ score")
    return [
        table(
            "By area of the target, upper ends excluded", ("area px", *headings), by_area, texts=1
        ),
        table(
            "By signal-to-clutter ratio, upper ends excluded", ("SCR", *headings), by_scr, texts=1
        ),
    ]


def _buckets(
    targets: Sequence[Mapping[str, Any]], key: str, ends: Sequence[float]
) -> list[list[str]]:
    rows, start = [], 0.0
    for end in ends:
        inside = [t for t in targets if t[key] is not None and start <= t[key] < end]
        name = f"≥ {start:g}" if end == math.inf else f"{start:g} – {end:g}"
        rows += [_bucket_row(name, inside)] if inside else []
        start = end
    unknown = [t for t in targets if t[key] is None]
    return rows + ([_bucket_row("unknown", unknown)] if unknown else [])


def _bucket_row(name: str, targets: Sequence[Mapping[str, Any]]) -> list[str]:
    changes = [change for t in targets if (change := _change(t)) is not None]
    mean = sum(changes) / len(changes) if changes else None
    lost, gained = (sum(t["flip"] == flip for t in targets) for flip in ("lost", "gained"))
    return [name, str(len(targets)), str(lost), str(gained), signed(mean, 3)]


def _change(target: Mapping[str, Any]) -> float | None:
    before, after = target["score_reference"], target["score_candidate"]
    return None if before is None or after is None else after - before


def _target_table(drift: Mapping[str, Any]) -> Html:
    shown = _worth_listing(drift["targets"])
    total = len(drift["targets"])
    caption = f"{len(shown)} of {total} targets: flipped ones, then the largest changes of score"
    if len(shown) < total:
        caption += "; all are in bench.json"
    headings = ("frame", "flip", "row", "col", "area px", "SCR")
    scores = (f"score {drift['reference']}", f"score {drift['candidate']}", "Δ score")
    grid = table(caption, (*headings, *scores), [_target_row(t) for t in shown], texts=2)
    flips = sum(t["flip"] is not None for t in drift["targets"])
    summary = element("summary", f"Target by target ({flips} flipped)")
    is_open = "" if flips else None
    return element("details", summary, element("div", grid, class_="tall"), open=is_open)


def _worth_listing(targets: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    order = {"lost": 0, "gained": 1}
    by_flip = sorted(targets, key=lambda t: (order.get(t["flip"], 2), -abs(_change(t) or 0.0)))
    flipped = sum(t["flip"] is not None for t in by_flip)
    return by_flip[: min(max(TARGET_ROWS, flipped), MAX_TARGET_ROWS)]


def _target_row(target: Mapping[str, Any]) -> list[str]:
    flip = target["flip"]
    pill = element("span", flip, class_=f"pill {flip}") if flip else joined(["–"])
    return [
        target["image"],
        pill,
        fixed(target["row"], 1),
        fixed(target["col"], 1),
        fixed(target["area_px"], 0),
        fixed(target["scr"], 1),
        fixed(target["score_reference"], 3),
        fixed(target["score_candidate"], 3),
        signed(_change(target), 3),
    ]
