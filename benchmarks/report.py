"""report.html: one self-contained page of what a cheaper detector costs and gains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from irstd_edge.benchmarks.bench_file import told_apart
from irstd_edge.benchmarks.comparison import Layer
from irstd_edge.benchmarks.report_model import model_section
from irstd_edge.benchmarks.report_page import Html, element, joined, page, table
from irstd_edge.benchmarks.report_pictures import Picture, pictures_section
from irstd_edge.benchmarks.schema import check_bench
from irstd_edge.benchmarks.verdict import named
from irstd_edge.edge.files import write_atomic
from irstd_edge.edge.types import IrstdError

TITLE = "What the cheaper detector costs"
MACHINE = {
    "host": "reached as",
    "cpu": "processor",
    "isa": "instruction set",
    "threads": "threads",
    "gpu": "GPU",
    "board": "board",
    "module": "module",
    "l4t": "system",
    "power_mode": "power mode",
    "clocks_locked": "clocks locked",
    "load": "load before",
    "fingerprint": "fingerprint",
}
CONVENTIONS = (
    "One multiply-accumulate (MAC) is two operations: GFLOPs = 2 × GMACs. Papers of this field "
    "often print MACs as GFLOPs.",
    "FPS is frames a call over p50 of the inference alone; end to end adds reading, preprocessing "
    "and decoding, one after the other, at their mean. Variants took turns of two calls, of which "
    "the second is timed.",
    "Changes are candidate minus reference, in percentage points where the metric is a "
    "percentage. A target is lost when FP32 finds it and the candidate does not.",
    "A dash stands for what does not apply, is undefined or was not measured.",
)


def write_report(
    benches: Sequence[Mapping[str, Any]],
    path: Path,
    *,
    verdict: Mapping[str, Any] | None = None,
    summaries: Sequence[str] = (),
    pictures: Sequence[Picture] = (),
    sensitivities: Mapping[str, Sequence[Layer]] = MappingProxyType({}),
) -> None:
    """Write one HTML file that asks for nothing outside itself.

    Args:
        benches: values of bench.json, in the order to show.
        path: the file, written whole or not at all.
        verdict: of the gate, as `gate --json` has it.
        summaries: a sentence each, shown under the verdict.
        pictures: (caption, PNG bytes) of targets worth a look.
        sensitivities: sha256 of a bundle -> what each of its layers costs when it alone is rounded.

    Raises:
        IrstdError: no bench, a malformed bench or verdict, or a picture that is no PNG.
    """
    write_atomic(path, report_html(benches, verdict, summaries, pictures, sensitivities))


def report_html(
    benches: Sequence[Mapping[str, Any]],
    verdict: Mapping[str, Any] | None = None,
    summaries: Sequence[str] = (),
    pictures: Sequence[Picture] = (),
    sensitivities: Mapping[str, Sequence[Layer]] = MappingProxyType({}),
) -> str:
    """The page of `write_report` as text."""
    if not benches:
        raise IrstdError("BENCH.json: none is given, write one with `irstd-edge bench --json`")
    checked = [check_bench(bench, f"bench {k}") for k, bench in enumerate(benches, start=1)]
    header = element(
        "header",
        element("p", "irstd-edge · infrared small-target detection", class_="brand"),
        element("h1", TITLE),
    )
    main = element(
        "main",
        _verdict(verdict, summaries),
        *[part for bench in checked for part in _bench_sections(bench, sensitivities)],
        pictures_section(pictures),
    )
    footer = element("footer", *[element("p", line) for line in CONVENTIONS])
    return page(f"irstd-edge: {TITLE}", header, main, footer)


def _verdict(verdict: Mapping[str, Any] | None, summaries: Sequence[str]) -> Html:
    sentences = element("ul", *[element("li", line) for line in summaries]) if summaries else ""
    if verdict is None:
        how = element("p", "Run ", element("code", "irstd-edge gate BENCH.json"), " for a verdict.")
        state = element("p", "Not judged", class_="state")
        return _card("Verdict", joined([state, sentences, how]), "verdict")
    checks = _checks(verdict)
    failed = [check for check in checks if not check["passed"]]
    kind = "passed" if verdict["passed"] is True else "failed"
    words = f"✓ Passed: {len(checks)} checks"
    if kind == "failed":
        words = f"✗ Failed: {len(failed)} of {len(checks)} checks"
    parts = [element("p", words, class_="state"), sentences, _check_table(checks, bool(failed))]
    return _card("Verdict", joined(parts), f"verdict {kind}")


def _checks(verdict: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    checks = verdict.get("checks")
    whole = isinstance(checks, list) and all(
        isinstance(check, dict) and {"name", "passed", "why"} <= set(check) for check in checks
    )
    if not whole or not isinstance(verdict.get("passed"), bool):
        raise IrstdError("verdict: not of the gate, write it with `irstd-edge gate --json`")
    return list(checks or ())


def _check_table(checks: Sequence[Mapping[str, Any]], is_open: bool) -> Html:
    rows = [_check_row(check) for check in sorted(checks, key=lambda check: bool(check["passed"]))]
    headings = ("check", "state", "why", "model", "variant")
    grid = table("Every check, failed ones first", headings, rows, texts=len(headings))
    summary = element("summary", "All checks")
    return element("details", summary, grid, open="" if is_open else None)


def _check_row(check: Mapping[str, Any]) -> list[str]:
    state = "passed" if check["passed"] else "failed"
    if str(check["why"]).startswith("skipped"):
        state = "skipped" if check["passed"] else "failed"
    variant = " ".join(str(check[key]) for key in ("variant", "runtime") if check.get(key))
    return [
        str(check["name"]),
        element("span", state, class_=f"pill {state}"),
        element("span", str(check["why"]), class_="why"),
        named(str(check.get("model") or ""), check.get("place")) or "",
        variant,
    ]


def _bench_sections(
    bench: Mapping[str, Any], sensitivities: Mapping[str, Sequence[Layer]]
) -> list[Html]:
    models = [
        model_section(result, sensitivities.get(str(result.get("bundle")), ()))
        for result in told_apart(bench["results"])
    ]
    return [*models, _machine(bench["machine"])]


def _machine(machine: Mapping[str, Any]) -> Html:
    known = [
        (words, machine.get(key))
        for key, words in MACHINE.items()
        if key != "host" or key in machine
    ]
    facts = [
        element("div", element("dt", words), element("dd", "–" if value is None else str(value)))
        for words, value in known
    ]
    return _card("Measured on", element("dl", *facts, class_="facts"), "machine")


def _card(title: str, content: Html, kind: str) -> Html:
    return element("section", element("h2", title), content, class_=f"card {kind}")
