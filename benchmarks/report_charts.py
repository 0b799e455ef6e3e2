"""The report's charts as inline SVG, drawn in a box 340 wide that scales with the page."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from irstd_edge.benchmarks.comparison import Row, fixed, percent
from irstd_edge.benchmarks.report_page import Html, element

WIDTH = 340.0
LANE = 46.0
"""Height of a row of the lane charts: its name above, its track below."""
MAX_DOTS = 200
"""Per variant: more would only darken the page."""
MAX_TARGETS, MAX_FLIPS = 1500, 300
"""Per score chart, evenly thinned beyond."""
STAGES = ("read", "pre", "infer", "post")


def latency_chart(rows: Sequence[Row]) -> Html | None:
    """Every timed inference as a dot; the line is the median, the tick p99."""
    timed = [row for row in rows if row.latency_ms("p50") is not None]
    if not timed:
        return None
    end = 1.08 * max(_furthest(row) for row in timed)
    x = _scale(0.0, end, 0.0, WIDTH)
    lanes = [_latency_lane(row, k * LANE, x, end) for k, row in enumerate(timed)]
    bottom = len(timed) * LANE
    words = "; ".join(f"{row.label} p50 {fixed(row.latency_ms('p50'), 1)} ms" for row in timed)
    axis = _x_axis(_ticks(0.0, end), x, bottom, "ms")
    return _svg(bottom + 26, f"Latency of the inference: {words}", axis, *lanes)


def _furthest(row: Row) -> float:
    return max(row.latency_ms(name) or 0.0 for name in ("p50", "p90", "p99"))


def _latency_lane(row: Row, top: float, x: Callable[[float], float], end: float) -> Html:
    p50, p99 = row.latency_ms("p50") or 0.0, row.latency_ms("p99")
    times = row.variant.get("infer_ms") or []
    shown = [ms for ms in _thinned(times, MAX_DOTS) if ms <= end]
    middle = top + 31
    dots = [
        # The golden ratio spreads neighbours over the lane without a pattern or a seed.
        element("circle", cx=x(ms), cy=middle + 12 * ((0.618 * k) % 1 - 0.5), r=2.2, class_="dot")
        for k, ms in enumerate(shown)
    ]
    value = f"{'~' if row.is_noisy else ''}{p50:.1f} ms"
    tail = [_line(x(p99), middle - 5, x(p99), middle + 5, "mark")] if p99 is not None else []
    return element(
        "g",
        element("text", row.label, x=0, y=top + 15, class_="name"),
        element("text", value, x=WIDTH, y=top + 15, class_="end"),
        element("rect", x=0, y=middle - 9, width=WIDTH, height=18, rx=4, class_="track"),
        element("g", *dots, class_=_family(row)),
        _line(x(p50), middle - 9, x(p50), middle + 9, "mark"),
        *tail,
    )


def stages_chart(rows: Sequence[Row]) -> Html | None:
    """Where the time of a frame goes, stage by stage, at the mean."""
    staged = [row for row in rows if row.variant["stages_ms"] is not None]
    if not staged:
        return None
    totals = [sum(_stages(row).values()) for row in staged]
    x = _scale(0.0, max(totals) or 1.0, 0.0, WIDTH)
    lanes = []
    for k, (row, total) in enumerate(zip(staged, totals, strict=True)):
        top, left = k * LANE, 0.0
        lanes.append(element("text", row.label, x=0, y=top + 15, class_="name"))
        lanes.append(element("text", f"{total:.1f} ms", x=WIDTH, y=top + 15, class_="end"))
        for stage, ms in _stages(row).items():
            kind = _family(row) if stage == "infer" else stage
            bar = {"x": x(left), "y": top + 22, "width": x(ms), "height": 18, "class_": kind}
            lanes.append(element("rect", element("title", f"{stage} {ms:.2f} ms"), **bar))
            left += ms
    words = "; ".join(f"{r.label} {t:.1f} ms" for r, t in zip(staged, totals, strict=True))
    return _svg(len(staged) * LANE, f"Mean time of a frame: {words}", *lanes)


def _stages(row: Row) -> dict[str, float]:
    stages = row.variant["stages_ms"]
    return {name: stages[name] for name in STAGES if stages[name] is not None}


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
    low, high = _padded([100 * (value or 0.0) for *_, value in points])
    x, y = _scale(0.0, fastest, 40.0, WIDTH), _scale(low, high, 230.0, 14.0)
    places = {k: (x(fps), y(100 * (value or 0.0))) for k, _, fps, value in points}
    numbers = {id(row.variant): k for k, row, _, _ in points}
    links = [
        _line(*places[start], *places[k], "link")
        for k, row, _, _ in points
        if (start := numbers.get(id(row.reference))) is not None and start != k
    ]
    marks = [_numbered(k, places[k], row) for k, row, _, _ in points]
    words = "; ".join(f"{row.label} {fps:.1f} FPS, {percent(v)} %" for _, row, fps, v in points)
    grid = [
        _y_grid(_ticks(max(low, 0.0), min(high, 100.0)), y),
        _x_axis(_ticks(0.0, fastest), x, 230.0, "FPS"),
    ]
    return _svg(258.0, f"{name} against speed: {words}", *grid, *links, *marks)


def _numbered(number: int, place: tuple[float, float], row: Row) -> Html:
    x, y = place
    return element(
        "g",
        element("title", row.label),
        element("circle", cx=x, cy=y, r=9, class_=_family(row)),
        element("text", str(number), x=x, y=y + 4, class_="mid on"),
    )


def score_chart(drift: Mapping[str, Any]) -> Html | None:
    """Every target's score before and after; the diagonal is no change."""
    targets = [t for t in drift["targets"] if None not in _scores(t)]
    if not targets:
        return None
    flipped = [t for t in targets if t["flip"] is not None]
    steady = _thinned([t for t in targets if t["flip"] is None], MAX_TARGETS)
    x, y = _scale(0.0, 1.0, 30.0, WIDTH - 10), _scale(0.0, 1.0, 286.0, 8.0)
    ticks = [0.0, 0.25, 0.5, 0.75, 1.0]
    quiet = [element("circle", cx=x(a), cy=y(b), r=2.4) for a, b in map(_scores, steady)]
    words = f"Scores of {len(targets)} targets, {len(flipped)} of them flipped"
    return _svg(
        326.0,
        words,
        _y_grid(ticks, y),
        _x_axis(ticks, x, 286.0, ""),
        _line(x(0.0), y(0.0), x(1.0), y(1.0), "diagonal"),
        element("g", *quiet, class_="quiet"),
        *[_flip_mark(target, x, y) for target in _thinned(flipped, MAX_FLIPS)],
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


def swatch(kind: str, shape: str = "square") -> Html:
    """The key of a legend."""
    corners = {"down": "0,1 12,1 6,12", "up": "0,11 12,11 6,0", "square": "0,0 12,0 12,12 0,12"}
    mark = element("polygon", points=corners[shape], class_=kind)
    return element("svg", mark, viewBox="0 0 12 12", aria_hidden="true")


def _family(row: Row) -> str:
    return "int" if row.name.startswith("int8") else "float"


def _svg(height: float, label: str, *children: str) -> Html:
    box = f"0 0 {WIDTH:g} {height:g}"
    return element("svg", *children, viewBox=box, role="img", aria_label=label)


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Html:
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=kind)


def _x_axis(ticks: Sequence[float], x: Callable[[float], float], y: float, unit: str) -> Html:
    last = len(ticks) - 1
    labels = [
        element(
            "text",
            f"{tick:g}{f' {unit}' if k == last and unit else ''}",
            x=x(tick),
            y=y + 18,
            class_="mid" if 0 < x(tick) < WIDTH - 16 else ("end" if tick else None),
        )
        for k, tick in enumerate(ticks)
    ]
    rules = [_line(x(tick), y, x(tick), y + 5, "grid") for tick in ticks]
    return element("g", _line(x(ticks[0]), y, WIDTH, y, "grid"), *rules, *labels)


def _y_grid(ticks: Sequence[float], y: Callable[[float], float]) -> Html:
    parts = []
    for tick in ticks:
        parts.append(_line(34.0, y(tick), WIDTH, y(tick), "grid"))
        parts.append(element("text", f"{tick:g}", x=28, y=y(tick) + 4, class_="end"))
    return element("g", *parts)


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    return lambda value: start + (value - low) / (high - low) * (end - start)


def _padded(values: Sequence[float]) -> tuple[float, float]:
    """At least two points of a percentage: a flat difference must not look like a cliff."""
    middle = (min(values) + max(values)) / 2
    half = max(1.0, 0.75 * (max(values) - min(values)))
    return middle - half, middle + half


def _ticks(low: float, high: float) -> list[float]:
    """Three to seven round numbers from low to high."""
    rough = (high - low) / 5
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude >= rough)
    first, last = math.ceil(low / step), math.floor(high / step)
    return [round(k * step, 10) for k in range(first, last + 1)]


def _thinned(items: Sequence[Any], most: int) -> Sequence[Any]:
    """So many of them at most, evenly spread."""
    return items[:: max(1, math.ceil(len(items) / most))]
