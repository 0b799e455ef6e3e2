"""What the report's charts are drawn with: a box 340 wide that scales with the page."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from irstd_edge.benchmarks.comparison import Row
from irstd_edge.benchmarks.report_page import Html, element

WIDTH = 340.0


def swatch(kind: str, shape: str = "square") -> Html:
    """The key of a legend."""
    corners = {"down": "0,1 12,1 6,12", "up": "0,11 12,11 6,0", "square": "0,0 12,0 12,12 0,12"}
    mark = element("polygon", points=corners[shape], class_=kind)
    return element("svg", mark, viewBox="0 0 12 12", aria_hidden="true")


def family(row: Row) -> str:
    """The colour of a variant: int for INT8, else float."""
    return "int" if row.name.startswith("int8") else "float"


def svg(height: float, label: str, *children: str) -> Html:
    """A picture `WIDTH` wide that is read out as its label."""
    box = f"0 0 {WIDTH:g} {height:g}"
    return element("svg", *children, viewBox=box, role="img", aria_label=label)


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Html:
    """A straight line of a class."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=kind)


def x_axis(ticks: Sequence[float], x: Callable[[float], float], y: float, unit: str) -> Html:
    """Labels under a line at height y; the last one has the unit."""
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
    rules = [line(x(tick), y, x(tick), y + 5, "grid") for tick in ticks]
    return element("g", line(x(ticks[0]), y, WIDTH, y, "grid"), *rules, *labels)


def y_grid(ticks: Sequence[float], y: Callable[[float], float]) -> Html:
    """Lines across the picture, labelled at the left."""
    parts = []
    for tick in ticks:
        parts.append(line(34.0, y(tick), WIDTH, y(tick), "grid"))
        parts.append(element("text", f"{tick:g}", x=28, y=y(tick) + 4, class_="end"))
    return element("g", *parts)


def scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """From low..high of the data to start..end of the picture."""
    return lambda value: start + (value - low) / (high - low) * (end - start)


def padded(values: Sequence[float]) -> tuple[float, float]:
    """At least two points of a percentage: a flat difference must not look like a cliff."""
    middle = (min(values) + max(values)) / 2
    half = max(1.0, 0.75 * (max(values) - min(values)))
    return middle - half, middle + half


def round_ticks(low: float, high: float) -> list[float]:
    """Three to seven round numbers from low to high."""
    rough = (high - low) / 5
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude >= rough)
    first, last = math.ceil(low / step), math.floor(high / step)
    return [round(k * step, 10) for k in range(first, last + 1)]


def thinned(items: Sequence[Any], most: int) -> Sequence[Any]:
    """So many of them at most, evenly spread."""
    return items[:: max(1, math.ceil(len(items) / most))]
