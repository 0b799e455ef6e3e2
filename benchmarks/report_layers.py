"""The report's account of layers: where the time goes, and what rounding each of them costs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from irstd_edge.benchmarks.comparison import (
    Layer,
    Row,
    fixed,
    layer_headings,
    layer_rows,
    moves,
    of_masks,
    percent,
)
from irstd_edge.benchmarks.report_page import Html, element, figure, joined, table
from irstd_edge.benchmarks.report_svg import WIDTH, family, scale, svg, swatch

BLOCKS, LAYERS, KERNELS = 14, 14, 20
"""Most bars of each chart, and rows of the table of kernels."""
LANE = 34.0
BETWEEN = "between blocks"


def layer_parts(rows: Sequence[Row], layers: Sequence[Layer]) -> list[Html]:
    """Headings, charts and tables; empty without times and without a sensitivity.

    rows: of one model. layers: of the sensitivity of its bundle, empty without one.
    """
    timed = _fastest_pair(rows)
    figures = [*_time_figure(timed), *_sensitivity_figure(layers)]
    if not figures:
        return []
    tables = [_kernel_table(timed)] if timed else []
    tables += [_sensitivity_table(layers)] if layers else []
    charts = element("div", *figures, class_="charts")
    return [element("h3", "Layer by layer"), charts, *tables]


def _fastest_pair(rows: Sequence[Row]) -> list[Row]:
    """The fastest variant that was profiled, and its reference before it."""
    profiled = [row for row in rows if row.variant.get("layers_ms")]
    if not profiled:
        return []
    best = max(profiled, key=lambda row: row.variant["fps"] or 0.0)
    before = [row for row in profiled if row.variant is best.reference and row is not best]
    return [*before, best]


def blocks_of(kernels: Sequence[Layer]) -> dict[str, float]:
    """Block -> ms. A runtime names what it fused after one of the nodes: only the block is sure."""
    times: dict[str, float] = defaultdict(float)
    for kernel in kernels:
        parts = str(kernel["layer"]).split("/")
        of_block = len(parts) > 2 and not parts[0] and parts[1] and "_output_" not in parts[1]
        times[parts[1] if of_block else BETWEEN] += kernel["ms"]
    return dict(times)


def _time_figure(timed: Sequence[Row]) -> list[Html]:
    if not timed:
        return []
    sides = [(row, blocks_of(row.variant["layers_ms"])) for row in timed]
    longest = {n: max(times.get(n, 0.0) for _, times in sides) for _, ts in sides for n in ts}
    names = sorted(longest, key=lambda name: -longest[name])
    x = scale(0.0, max(longest.values()) or 1.0, 0.0, WIDTH)
    lanes: list[Html] = []
    for k, name in enumerate(names[:BLOCKS]):
        top = k * LANE
        values = [times.get(name) for _, times in sides]
        lanes.append(element("text", name, x=0, y=top + 11, class_="name"))
        words = " → ".join(fixed(ms, 2) for ms in values)
        lanes.append(element("text", f"{words} ms", x=WIDTH, y=top + 11, class_="end"))
        for place, ((row, _), ms) in enumerate(zip(sides, values, strict=True)):
            bar = {"x": 0, "y": top + 15 + 7 * place, "width": x(ms or 0.0), "height": 6}
            lanes.append(element("rect", class_=family(row), **bar))
    chart = svg(
        min(len(names), BLOCKS) * LANE,
        "Time by block: " + "; ".join(f"{n} {sides[-1][1].get(n, 0.0):.2f} ms" for n in names),
        *lanes,
    )
    key = [element("li", swatch(family(row)), row.label) for row in timed]
    words = "As the runtime's profiler tells it, which slows it down: compare shares."
    return [figure("Time by block", words, chart, key)]


def _sensitivity_figure(layers: Sequence[Layer]) -> list[Html]:
    worst = sorted(layers, key=lambda layer: -moves(layer))[:LAYERS]
    if not worst:
        return []
    x = scale(0.0, moves(worst[0]) or 1.0, 0.0, WIDTH)
    lanes: list[Html] = []
    for k, layer in enumerate(worst):
        top = k * LANE
        flips = f"−{layer['targets_lost']} +{layer['targets_gained']}"
        lanes.append(element("text", layer["layer"], x=0, y=top + 11, class_="name"))
        words = f"{moves(layer):.4f}, {flips}"
        lanes.append(element("text", words, x=WIDTH, y=top + 11, class_="end"))
        bar = {"x": 0, "y": top + 16, "width": x(moves(layer)), "height": 10}
        lanes.append(element("rect", class_="int", **bar))
    named = "; ".join(f"{layer['layer']} {moves(layer):.4f}" for layer in worst)
    what, words = "scores", "Root mean square change of a target's score"
    if of_masks(layers):
        what, words = "masks", "1 less the soft IoU of masks with FP32's"
    chart = svg(len(worst) * LANE, f"Change of {what} by layer: {named}", *lanes)
    words += ", and targets lost and gained."
    return [figure("What rounding one layer alone costs", words, chart)]


def _kernel_table(timed: Sequence[Row]) -> Html:
    rows = [
        [
            kernel["layer"],
            row.label,
            kernel["op"],
            fixed(kernel["ms"], 3),
            percent(kernel["ms"] / all_),
        ]
        for row in timed
        for all_ in [sum(each["ms"] for each in row.variant["layers_ms"]) or 1.0]
        for kernel in row.variant["layers_ms"][:KERNELS]
    ]
    caption = f"The {KERNELS} longest kernels of each; all are in bench.json"
    grid = table(caption, ("kernel", "variant", "operator", "ms", "% of it"), rows, texts=3)
    return _folded("Kernels", grid)


def _sensitivity_table(layers: Sequence[Layer]) -> Html:
    title = "Each layer rounded alone, on held-out frames"
    return _folded("Sensitivity", table(title, layer_headings(layers), layer_rows(layers), texts=1))


def _folded(title: str, grid: Html) -> Html:
    return element(
        "details", element("summary", title), joined([element("div", grid, class_="tall")])
    )
