"""The report's account of a drift: scores before and after, buckets, target by target."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from irstd_edge.benchmarks.buckets import AREA_EDGES_PX, SCR_EDGES, range_name, ranges_of
from irstd_edge.benchmarks.comparison import fixed, reference_of, signed
from irstd_edge.benchmarks.drift import difference
from irstd_edge.benchmarks.equal_fa import equal_fa_words, false_alarm_unit, is_masked
from irstd_edge.benchmarks.report_charts import score_chart
from irstd_edge.benchmarks.report_page import Html, element, figure, joined, table
from irstd_edge.benchmarks.report_svg import swatch

TARGET_ROWS = 60
"""Flipped targets are listed first; unflipped ones fill up to so many."""
MAX_TARGET_ROWS = 400
"""More flips than these are a broken graph, not a list to read."""


def drift_parts(drift: Mapping[str, Any]) -> list[Html]:
    """What changed between two variants on one runtime: heading, sentence, chart, tables."""
    title = f"{drift['candidate']} against {reference_of(drift)}, {drift['runtime']}"
    targets = drift["targets"]
    parts = [element("h3", title), element("p", _drift_words(drift))]
    if sentence := equal_fa_words(drift):
        parts.append(element("p", sentence))
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
        unit = false_alarm_unit(drift)
        parts.append(f"false alarms {signed(drift['fa_per_mpx'], 2)} {unit}")
    if drift.get("position_px") is not None:
        parts.append(f"mean position error {signed(drift['position_px'], 3)} px")
    lost, gained = drift["targets_lost"], drift["targets_gained"]
    parts.append(f"{lost} lost and {gained} gained of {len(drift['targets'])} targets")
    if drift["p_value"] is not None:
        parts[-1] += f" (McNemar p = {drift['p_value']:.2g})"
    parts.append(f"{drift['false_alarms_gained']} new false alarms")
    metric = "Pd" if is_masked(drift) else "F1"
    intervals = {"IoU": (drift.get("ci95_of") or {}).get("iou"), metric: drift["ci95"]}
    told = [
        f"of {name} {' to '.join(signed(100 * end, 2) for end in ends)}"
        for name, ends in intervals.items()
        if ends
    ]
    if told:
        parts.append(f"95 % interval of the change {' and '.join(told)} points")
    return "; ".join(parts) + "."


def _score_figure(drift: Mapping[str, Any]) -> Html:
    key = [
        element("li", swatch("quiet"), "kept or missed by both"),
        element("li", swatch("lost", "down"), "lost"),
        element("li", swatch("gained", "up"), "gained"),
    ]
    words = "A dot is a target; below the diagonal its score fell."
    return figure("Score of every target", words, score_chart(drift), key)


def _bucket_tables(targets: Sequence[Mapping[str, Any]]) -> list[Html]:
    headings = ("targets", "lost", "gained", "Δ score")
    by_area = _buckets(targets, "area_px", AREA_EDGES_PX)
    by_scr = _buckets(targets, "scr", SCR_EDGES)
    return [
        table("By area of the target", ("area px", *headings), by_area, texts=1),
        table("By signal-to-clutter ratio", ("SCR", *headings), by_scr, texts=1),
    ]


def _buckets(
    targets: Sequence[Mapping[str, Any]], key: str, edges: Sequence[float]
) -> list[list[str]]:
    rows = [
        _bucket_row(range_name(ends["above"] or 0.0, ends["up_to"]), inside)
        for ends, inside in ranges_of(targets, lambda target: target[key], edges)
        if inside
    ]
    unknown = [t for t in targets if t[key] is None]
    return rows + ([_bucket_row("unknown", unknown)] if unknown else [])


def _bucket_row(name: str, targets: Sequence[Mapping[str, Any]]) -> list[str]:
    changes = [change for t in targets if (change := _change(t)) is not None]
    mean = sum(changes) / len(changes) if changes else None
    lost, gained = (sum(t["flip"] == flip for t in targets) for flip in ("lost", "gained"))
    return [name, str(len(targets)), str(lost), str(gained), signed(mean, 3)]


def _change(target: Mapping[str, Any]) -> float | None:
    return difference(target["score_reference"], target["score_candidate"])


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
