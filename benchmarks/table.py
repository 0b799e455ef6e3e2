"""bench.json on a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from irstd_edge.benchmarks.accuracy import METRICS
from irstd_edge.benchmarks.bench_file import told_apart
from irstd_edge.benchmarks.buckets import range_name
from irstd_edge.benchmarks.comparison import (
    ABSENT,
    COLUMNS,
    Column,
    cost_of,
    fixed,
    layer_headings,
    layer_rows,
    percent,
    reference_of,
    rows_of,
    skipped_words,
    timed_words,
    weak_words,
)
from irstd_edge.benchmarks.equal_fa import equal_fa_words
from irstd_edge.benchmarks.noise_floor import noise_words
from irstd_edge.benchmarks.projection import METHOD
from irstd_edge.benchmarks.verdict import Verdict
from irstd_edge.edge.first_step import step_words

NO_LIMIT = 1000
"""Columns of a terminal in which every table fits."""


_QUALITY = ("f1_3px", "iou", "pd", "fa", "fa_px", "flips")
_SPEED = ("p50", "fps", "end_to_end", "speed_up", "size")
_PACE = ("frames", "missed", "dropped", "queued", "age_p50", "age_p99")


def print_table(bench: Mapping[str, Any], console: Console) -> None:
    """Print every model of a bench.json: accuracy, drift, speed and cost.

    Narrow terminals get accuracy and speed in two tables; 80 columns are enough for each.
    """
    for result in told_apart(bench["results"]):
        if not any(variant["measured"] for variant in result["variants"]):
            _print_projection(result, console)
            continue
        whole = _table(result, _QUALITY + _SPEED)
        unlimited = console.options.update(max_width=NO_LIMIT)
        fits = console.measure(whole, options=unlimited).maximum <= console.width
        parts = (_table(result, names) for names in (_QUALITY, _SPEED))
        for table in (whole,) if fits else parts:
            console.print(table)
        if any(variant.get("pace") for variant in result["variants"]):
            console.print(_table(result, _PACE))
        for line in _notes(result):
            console.print(Text(line, style="dim"))
        console.print()


def _table(result: Mapping[str, Any], names: Sequence[str]) -> Table:
    title = Text(str(result["model"]), style="bold")
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("variant", no_wrap=True)
    table.add_column("runtime", overflow="fold")
    rows = rows_of(result)
    unused = "fa" if any(row.is_masked for row in rows) else "fa_px"
    columns = [COLUMNS[name] for name in names if name != unused]
    for column in columns:
        table.add_column(column.narrow or column.heading, justify="right")
    for row in rows:
        cells = [row.name, row.where, *(column.text(row) for column in columns)]
        style = "" if row.variant["measured"] else "dim italic"
        table.add_row(*(Text(cell) for cell in cells), style=style)
    return table


_PROJECTED = (
    Column("p50 ms", lambda row: _between(row.variant.get("range_ms"))),
    Column("FPS", lambda row: _between(_rates(row.variant.get("range_ms")))),
)


def _print_projection(result: Mapping[str, Any], console: Console) -> None:
    """Ranges alone: a projection has no accuracy, and its speed is no more than that."""
    console.print(Text(f"{result['model']}: projection, not measured", style="bold"))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("device", "variant", "runtime"):
        table.add_column(heading, no_wrap=True)
    for column in _PROJECTED:
        table.add_column(column.heading, justify="right", no_wrap=True)
    for row in rows_of(result):
        cells = [str(row.variant["device"]), row.name, str(row.variant["runtime"])]
        cells += [column.text(row) for column in _PROJECTED]
        table.add_row(*(Text(cell) for cell in cells), style="dim italic")
    console.print(table)
    notes = dict.fromkeys(row.variant["not_measured"] for row in rows_of(result))
    for line in (cost_of(result["cost"]), *filter(None, notes), METHOD):
        console.print(Text(line, style="dim"))
    console.print()


def _between(ends: Sequence[float] | None) -> str:
    return ABSENT if ends is None else f"{fixed(ends[0], 1)} to {fixed(ends[1], 1)}"


def _rates(ends_ms: Sequence[float] | None) -> list[float] | None:
    return None if ends_ms is None else [1000 / ends_ms[1], 1000 / ends_ms[0]]


def _notes(result: Mapping[str, Any]) -> Iterator[str]:
    rows = rows_of(result)
    yield from result.get("warnings") or ()
    yield from skipped_words(rows)
    yield cost_of(result["cost"])
    if timed := timed_words(result, rows):
        yield f"{timed}; p50 and FPS: inference alone, ~: weak"
    rates = {rate for row in rows if (rate := row.pace("rate_hz")) is not None}
    for rate in sorted(rates):
        yield (
            f"frames at {rate:g} Hz: missed, detections after the next frame; dropped, replaced by "
            "a newer frame; queued, waited for the detector; age, from arrival to detections"
        )
    for row in rows:
        watts, joule = row.variant["power_w"], row.variant["joule_per_frame"]
        if watts is not None and joule is not None:
            yield f"{row.label}: {watts:.1f} W, {1000 * joule:.1f} mJ per frame, the whole module"
    loads = [
        f"{row.label} {load_ms:.0f} ms, {row.variant['memory_mb']:.0f} MB"
        for row in rows
        if (load_ms := row.variant.get("load_ms")) is not None and row.variant["memory_mb"]
    ]
    if loads:
        yield f"until the first detections, and the process's peak memory: {'; '.join(loads)}"
    yield from (f"{row.label}: {step_words(step)}" for row in rows if (step := row.sensor_step))
    yield from weak_words(rows)
    for drift in result["drift"]:
        if (reference := reference_of(drift)) != drift["reference"]:
            yield f"{drift['candidate']} {drift['runtime']}: lost and gained against {reference}"
        if words := equal_fa_words(drift):
            yield f"{drift['runtime']}: {words}"
    if noise := noise_words(result):
        yield noise
    yield from (f"{row.label}: {note}" for row in rows if (note := row.variant["not_measured"]))


_METRIC_WORDS = {
    "iou": "IoU",
    "niou": "nIoU (frames with truth or prediction)",
    "pd": "Pd",
    "precision_3px": "precision at 3 px",
    "recall_3px": "recall at 3 px",
    "f1_3px": "F1 at 3 px",
    "precision_5px": "precision at 5 px",
    "recall_5px": "recall at 5 px",
    "f1_5px": "F1 at 5 px",
    "fa_per_mpx": "Fa per Mpx",
    "fa_legacy_per_mpx": "Fa per Mpx as published (by area value)",
    "position_px": "mean position error, px",
    "position_median_px": "median position error, px",
}
_SHARES = frozenset(METRICS) - {"fa_per_mpx", "fa_legacy_per_mpx", "position_px"}
"""In percent; the median is none of METRICS."""


def print_accuracy(found: Mapping[str, Any], console: Console) -> None:
    """Print what `irstd-edge eval` found: an `accuracy` object, what was run, and the ranges."""
    title = f"{found['model']} {found['variant']} on {found['runtime']}"
    scope = f"{found['images']} frames, {found['targets']} targets, {found['protocol']}"
    scope += f", threshold {found['threshold']:g}"
    console.print(Text(f"{title}: {scope}", style="bold"), soft_wrap=True)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("metric")
    table.add_column("value", justify="right")
    for name, words in _METRIC_WORDS.items():
        if (value := found.get(name)) is not None:
            table.add_row(words, f"{percent(value)} %" if name in _SHARES else fixed(value, 2))
    console.print(table)
    for words, ranges in (("area, px", found["by_area"]), ("SCR", found["by_scr"])):
        console.print(_found_by(words, ranges))
    for name in found["undefined"]:
        console.print(Text(f"{_METRIC_WORDS[name]}: undefined on these frames", style="dim"))
    for skip in found["skipped"]:
        console.print(Text(f"skipped {skip['name']}: {skip['reason']}", style="dim"))


def _found_by(words: str, ranges: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in (f"targets by {words}", "found", "of", "Pd %"):
        table.add_column(heading, justify="right")
    for each in ranges:
        where = range_name(each["above"], each["up_to"])
        table.add_row(where, str(each["found"]), str(each["targets"]), percent(each["pd"]))
    return table


def print_faults(records: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Print what `irstd-edge eval --faults` found, the frames as they are first."""
    compared = any(record["reference"] for record in records)
    masks = any(record["iou"] is not None for record in records)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("sensor fault", no_wrap=True)
    iou = ("IoU %",) if masks else ()
    fa = COLUMNS["fa_px" if masks else "fa"].heading
    fp32 = ("FP32 F1 %", *(f"FP32 {name}" for name in iou), f"FP32 {fa}", "lost gained")
    for heading in ("F1 3px %", *iou, "Pd %", fa, *(fp32 if compared else ())):
        table.add_column(heading, justify="right")
    for record in records:
        cells = [record["fault"], percent(record["f1_3px"])]
        cells += [percent(record["iou"])] if masks else []
        cells += [percent(record["pd"]), fixed(record["fa_per_mpx"], 2)]
        if compared:
            before, change = record["reference"], record["drift"]
            cells += [percent(before["f1_3px"])]
            cells += [percent(before["iou"])] if masks else []
            cells += [fixed(before["fa_per_mpx"], 2)]
            cells.append(f"−{change['targets_lost']} +{change['targets_gained']}")
        table.add_row(*map(Text, cells))
    console.print(table)
    if any(not record["targets"] for record in records):
        note = "where no target can be seen, only false alarms count"
        console.print(Text(note, style="dim"))


def print_layers(layers: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Print what rounding each layer alone costs, the worst first."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    first, *others = layer_headings(layers)
    table.add_column(first, overflow="fold")
    for heading in others:
        table.add_column(heading, justify="right")
    for cells in layer_rows(layers):
        table.add_row(*map(Text, cells))
    console.print(table)


def print_verdict(verdict: Verdict, sentences: Sequence[str], console: Console) -> None:
    """Print the verdict, a sentence for each model, and every check that did not simply pass.

    One line each, of any length, but on a terminal: other programs look for words in a line.
    """
    whole = not console.is_terminal
    counts = Counter(check.state for check in verdict.checks)
    words = ", ".join(f"{count} {state}" for state, count in counts.items())
    style = "bold green" if verdict.passed else "bold red"
    console.print(Text("PASSED" if verdict.passed else "FAILED", style=style), Text(f"({words})"))
    for sentence in sentences:
        console.print(Text(sentence), soft_wrap=whole)
    for check in verdict.checks:
        if check.state != "passed":
            parts = (check.state, check.name, check.who, check.variant, check.runtime)
            why = check.why if not check.passed else check.why.removeprefix("skipped: ")
            line = f"{' '.join(part for part in parts if part)}: {why}"
            console.print(Text(line), soft_wrap=whole)
