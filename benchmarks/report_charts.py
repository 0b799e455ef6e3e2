"""The report's charts of speed and of scores, as inline SVG."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from irstd_edge.benchmarks.comparison import Row, fixed, percent
from irstd_edge.benchmarks.report_page import Html, element
from irstd_edge.benchmarks.report_svg import (
    WIDTH,
    family,
    line,
    padded,
    round_ticks,
    scale,
    svg,
    thinned,
    x_axis,
    y_grid,
)

LANE = 46.0
"""Height of a row of the lane charts: its name above, its track below."""
MAX_DOTS = 200
"""Per variant: more would only darken the page."""
MAX_TARGETS, MAX_FLIPS = 1500, 300
"""Per score chart, evenly thinned beyond."""
STAGES = ("read", "pre", "infer", "post")


def latency_chart(rows: Sequence[Row]) -> Html | None:
    """Timed inferences as dots, up to a little over p99; the line is the median, the tick p99."""
    timed = [row for row in rows if row.latency_ms("p50") is not None]
    if not timed:
        return None
    end = 1.08 * max(_furthest(row) for row in timed)
    x = scale(0.0, end, 0.0, WIDTH)
    lanes = [_latency_lane(row, k * LANE, x, end) for k, row in enumerate(timed)]
    bottom = len(timed) * LANE
    words = "; ".join(f"{row.label} p50 {fixed(row.latency_ms('p50'), 1)} ms" for row in timed)
    axis = x_axis(round_ticks(0.0, end), x, bottom, "ms")
    return svg(bottom + 26, f"Latency of the inference: {words}", axis, *lanes)


def _furthest(row: Row) -> float:
    return max(row.latency_ms(name) or 0.0 for name in ("p50", "p90", "p99"))


def _latency_lane(row: Row, top: float, x: Callable[[float], float], end: float) -> Html:
    p50, p99 = row.latency_ms("p50") or 0.0, row.latency_ms("p99")
    times = row.variant.get("infer_ms") or []
    shown = [ms for ms in thinned(times, MAX_DOTS) if ms <= end]
    middle = top + 31
    dots = [
        # The golden ratio spreads neighbours over the lane without a pattern or a seed.
        element("circle", cx=x(ms), cy=middle + 12 * ((0.618 * k) % 1 - 0.5), r=2.2, class_="dot")
        for k, ms in enumerate(shown)
    ]
    value = f"{'~' if row.is_noisy else ''}{p50:.1f} ms"
    tail = [line(x(p99), middle - 5, x(p99), middle + 5, "mark")] if p99 is not None else []
    return element(
        "g",
        element("text", row.label, x=0, y=top + 15, class_="name"),
        element("text", value, x=WIDTH, y=top + 15, class_="end"),
        element("rect", x=0, y=middle - 9, width=WIDTH, height=18, rx=4, class_="track"),
        element("g", *dots, class_=family(row)),
        line(x(p50), middle - 9, x(p50), middle + 9, "mark"),
        *tail,
    )


def stages_chart(rows: Sequence[Row]) -> Html | None:
    """Where the time of a frame goes, stage by stage, at the mean."""
    staged = [row for row in rows if row.variant["stages_ms"] is not None]
    if not staged:
        return None
    totals = [sum(_stages(row).values()) for row in staged]
    x = scale(0.0, max(totals) or 1.0, 0.0, WIDTH)
    lanes = []
    for k, (row, total) in enumerate(zip(staged, totals, strict=True)):
        top, left = k * LANE, 0.0
        lanes.append(element("text", row.label, x=0, y=top + 15, class_="name"))
        lanes.append(element("text", f"{total:.1f} ms", x=WIDTH, y=top + 15, class_="end"))
        for stage, ms in _stages(row).items():
            kind = family(row) if stage == "infer" else stage
            bar = {"x": x(left), "y": top + 22, "width": x(ms), "height": 18, "class_": kind}
            lanes.append(element("rect", element("title", f"{stage} {ms:.2f} ms"), **bar))
            left += ms
    words = "; ".join(f"{r.label} {t:.1f} ms" for r, t in zip(staged, totals, strict=True))
    return svg(len(staged) * LANE, f"Mean time of a frame: {words}", *lanes)


def _stages(row: Row) -> dict[str, float]:
    """Of one frame: a call may hold several."""
    stages = row.variant["stages_ms"]
    return {name: stages[name] / row.batch for name in STAGES if stages[name] is not None}


def trade_chart(rows: Sequence[Row], metric: str, name: str) -> Html | None:
    """Accuracy against speed: numbered points, FP32 and its cheaper variant linked."""
    points = [
        (k, row, row.variant["fps"], row.accuracy(metric))
        for k, row in enumerate(rows, start=1)
        if row.variant["fps"] is not None and row.accuracy(metric) is not None
    ]
    if not points:
        return None
    fastest = 1.12 * max(fps for _, _, fps, _ in points)
    low, high = padded([100 * (value or 0.0) for *_, value in points])
    x, y = scale(0.0, fastest, 40.0, WIDTH), scale(low, high, 230.0, 14.0)
    places = {k: (x(fps), y(100 * (value or 0.0))) for k, _, fps, value in points}
    numbers = {id(row.variant): k for k, row, _, _ in points}
    links = [
        line(*places[start], *places[k], "link")
        for k, row, _, _ in points
        if (start := numbers.get(id(row.reference))) is not None and start != k
    ]
    marks = [_numbered(k, places[k], row) for k, row, _, _ in points]
    words = "; ".join(f"{row.label} {fps:.1f} FPS, {percent(v)} %" for _, row, fps, v in points)
    grid = [
        y_grid(round_ticks(max(low, 0.0), min(high, 100.0)), y),
        x_axis(round_ticks(0.0, fastest), x, 230.0, "FPS"),
    ]
    return svg(258.0, f"{name} against speed: {words}", *grid, *links, *marks)


def _numbered(number: int, place: tuple[float, float], row: Row) -> Html:
    x, y = place
    return element(
        "g",
        element("title", row.label),
        element("circle", cx=x, cy=y, r=9, class_=family(row)),
        element("text", str(number), x=x, y=y + 4, class_="mid on"),
    )


def score_chart(drift: Mapping[str, Any]) -> Html | None:
    """Every target's score before and after; the diagonal is no change."""
    targets = [t for t in drift["targets"] if None not in _scores(t)]
    if not targets:
        return None
    flipped = [t for t in targets if t["flip"] is not None]
    steady = thinned([t for t in targets if t["flip"] is None], MAX_TARGETS)
    x, y = scale(0.0, 1.0, 30.0, WIDTH - 10), scale(0.0, 1.0, 286.0, 8.0)
    quarters = [0.0, 0.25, 0.5, 0.75, 1.0]
    quiet = [element("circle", cx=x(a), cy=y(b), r=2.4) for a, b in map(_scores, steady)]
    words = f"Scores of {len(targets)} targets, {len(flipped)} of them flipped"
    return svg(
        326.0,
        words,
        y_grid(quarters, y),
        x_axis(quarters, x, 286.0, ""),
        line(x(0.0), y(0.0), x(1.0), y(1.0), "diagonal"),
        element("g", *quiet, class_="quiet"),
        *[_flip_mark(target, x, y) for target in thinned(flipped, MAX_FLIPS)],
        element("text", f"score of {drift['reference']}", x=WIDTH - 10, y=322, class_="end"),
        element("text", f"score of {drift['candidate']}", x=36, y=20),
    )


def _flip_mark(
    target: Mapping[str, Any], x: Callable[[float], float], y: Callable[[float], float]
) -> Html:
    """A triangle: down is lost, up is gained."""
    before, after = _scores(target)
    place = f"{target['flip']}: {target['image']} at {target['row']:.1f}, {target['col']:.1f}"
    kind = "lost" if target["flip"] == "lost" else "gained"
    down = 1 if kind == "lost" else -1
    cx, cy = x(before), y(after)
    corners = f"{cx - 5:.1f},{cy - 4 * down:.1f} {cx + 5:.1f},{cy - 4 * down:.1f} "
    corners += f"{cx:.1f},{cy + 5 * down:.1f}"
    return element("polygon", element("title", place), points=corners, class_=kind)


def _scores(target: Mapping[str, Any]) -> tuple[float, float]:
    return target["score_reference"], target["score_candidate"]
