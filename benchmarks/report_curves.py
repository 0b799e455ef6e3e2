"""The report's curves over thresholds: precision against recall, and Pd against false alarms."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from irstd_edge.benchmarks.comparison import Row
from irstd_edge.benchmarks.report_page import Html, element, figure
from irstd_edge.benchmarks.report_svg import (
    WIDTH,
    family,
    line,
    round_ticks,
    scale,
    svg,
    x_axis,
    y_grid,
)

Point = tuple[float, float]
LEFT, TOP, BOTTOM = 40.0, 18.0, 230.0
MARGIN = 12.0
"""Percentage points shown below the worst variant at its own threshold: there they differ."""
MAX_DECADES = 4
STROKES = ("solid", "dashed", "dotted")
"""One a runtime, in the order of the rows; the colour says float or INT8."""


@dataclass(frozen=True)
class _Line:
    """A variant's curve in the units of the axes."""

    row: Row
    stroke: str
    points: tuple[Point, ...]
    own: Point | None
    """At the variant's own threshold."""


def curve_figures(rows: Sequence[Row]) -> list[Html]:
    """Both figures of the variants whose curves the bench holds; empty ones without any."""
    recall = _lines(rows, "recall_3px", "precision_3px", 100.0)
    alarms = _lines(rows, "fa_per_mpx", "pd", 1.0)
    return [
        figure(
            "Precision and recall at 3 px",
            "Along the thresholds; the dot is the variant's own: its recall R, its precision P.",
            _recall_chart(recall),
            [_key(each, "R {:.2f} %, P {:.2f} %") for each in recall],
            "rows",
        ),
        figure(
            "Pd against false alarms",
            "Up and to the left is better. Thresholds without a false alarm lie on the left edge.",
            _alarm_chart(alarms),
            [_key(each, "{:.2f} per Mpx, Pd {:.2f} %") for each in alarms],
            "rows",
        ),
    ]


def _lines(rows: Sequence[Row], x: str, y: str, x_factor: float) -> list[_Line]:
    """y is a share and becomes a percentage; places where either is undefined are left out."""
    runtimes = list(dict.fromkeys(str(row.variant["runtime"]) for row in rows))
    found = []
    for row in rows:
        accuracy = row.variant["accuracy"] or {}
        places = dict(_places(accuracy.get("curve") or {}, x, y, x_factor))
        stroke = STROKES[min(runtimes.index(str(row.variant["runtime"])), len(STROKES) - 1)]
        if places:
            own = places.get(accuracy.get("threshold"))
            found.append(_Line(row, stroke, tuple(places.values()), own))
    return found


def _places(
    curve: Mapping[str, Sequence[float | None]], x: str, y: str, x_factor: float
) -> Iterator[tuple[float | None, Point]]:
    if curve:
        for threshold, across, up in zip(curve["threshold"], curve[x], curve[y], strict=False):
            if across is not None and up is not None:
                yield threshold, (x_factor * across, 100 * up)


def _recall_chart(lines: Sequence[_Line]) -> Html | None:
    if not lines:
        return None
    own = [each.own for each in lines if each.own is not None]
    left, low = (_floor([point[axis] for point in own]) for axis in (0, 1))
    x, y = scale(left, 100.0, LEFT, WIDTH - 8), scale(low, 100.0, BOTTOM, TOP)
    drawn = [_drawn(each, x, y, lambda p: p[0] >= left and p[1] >= low) for each in lines]
    words = _words(lines, "recall {:.2f} %, precision {:.2f} %")
    return svg(
        BOTTOM + 46,
        f"Precision against recall: {words}",
        y_grid(round_ticks(low, 100.0), y),
        x_axis(round_ticks(left, 100.0), x, BOTTOM, ""),
        element("text", "precision %", x=LEFT, y=8),
        element("text", "recall %", x=WIDTH, y=BOTTOM + 38, class_="end"),
        *drawn,
    )


def _alarm_chart(lines: Sequence[_Line]) -> Html | None:
    if not lines:
        return None
    low = _floor([each.own[1] for each in lines if each.own is not None])
    first, last = _decades([fa for each in lines for fa, pd in each.points if pd >= low])
    along, y = scale(first, last, LEFT, WIDTH - 8), scale(low, 100.0, BOTTOM, TOP)

    def x(fa_per_mpx: float) -> float:
        return along(first if fa_per_mpx <= 0 else max(first, math.log10(fa_per_mpx)))

    limit = 10.0**last
    drawn = [_drawn(each, x, y, lambda p: p[0] <= limit and p[1] >= low) for each in lines]
    words = _words(lines, "{:.2f} false alarms per Mpx, Pd {:.2f} %")
    return svg(
        BOTTOM + 46,
        f"Pd against false alarms: {words}",
        y_grid(round_ticks(low, 100.0), y),
        x_axis([10.0**k for k in range(first, last + 1)], x, BOTTOM, ""),
        element("text", "Pd %", x=LEFT, y=8),
        element("text", "false alarms per Mpx", x=WIDTH, y=BOTTOM + 38, class_="end"),
        *drawn,
    )


def _floor(own: Sequence[float]) -> float:
    """A round percentage below the worst of the variants."""
    return max(0.0, math.floor((min(own, default=0.0) - MARGIN) / 10) * 10)


def _decades(fa_per_mpx: Sequence[float]) -> tuple[int, int]:
    above = [value for value in fa_per_mpx if value > 0]
    if not above:
        return 0, 1
    first = math.floor(math.log10(min(above)))
    last = max(math.ceil(math.log10(max(above))), first + 1)
    return first, min(last, first + MAX_DECADES)


def _drawn(
    each: _Line,
    x: Callable[[float], float],
    y: Callable[[float], float],
    is_inside: Callable[[Point], bool],
) -> Html:
    """The part of a curve that lies inside the axes, and its own threshold."""
    kind = family(each.row)
    inside = [point for point in each.points if is_inside(point)]
    corners = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in inside)
    parts = [element("title", each.row.label)]
    parts.append(element("polyline", points=corners, class_=f"curve {kind} {each.stroke}"))
    if each.own is not None and is_inside(each.own):
        a, b = each.own
        parts.append(element("circle", cx=x(a), cy=y(b), r=4.5, class_=f"{kind} ringed"))
    return element("g", *parts)


def _words(lines: Sequence[_Line], form: str) -> str:
    return "; ".join(
        f"{each.row.label} {form.format(*each.own) if each.own else 'as drawn'}" for each in lines
    )


def _key(each: _Line, form: str) -> Html:
    """The stroke, the variant, and where it stands at its own threshold."""
    mark = line(0.0, 6.0, 24.0, 6.0, f"curve {family(each.row)} {each.stroke}")
    swatch = element("svg", mark, viewBox="0 0 24 12", aria_hidden="true", class_="long")
    place = f": {form.format(*each.own)}" if each.own else ""
    return element("li", swatch, f"{each.row.label}{place}")
