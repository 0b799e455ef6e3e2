"""The HTML of the report: markup that escapes by itself, tables, and the frame of the page."""

from __future__ import annotations

import html
from collections.abc import Sequence

VOID = frozenset({"img", "meta"})


class Html(str):
    """Markup that needs no further escaping; every other string is text."""

    __slots__ = ()


def element(tag: str, /, *children: str, **attributes: object) -> Html:
    """`<tag attributes>children</tag>`: text children and attribute values are escaped.

    An attribute's trailing underscore is dropped (class_), an inner one is a hyphen
    (aria_label); None leaves it out. Floats are written with two decimals.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(_value(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if tag in VOID:
        return Html(f"<{tag}{written}>")
    return Html(f"<{tag}{written}>{joined(children)}</{tag}>")


def joined(children: Sequence[str]) -> Html:
    """Children one after the other, text escaped."""
    return Html("".join(c if isinstance(c, Html) else html.escape(c) for c in children))


def _value(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def table(
    caption: str, headings: Sequence[str], rows: Sequence[Sequence[str]], *, texts: int
) -> Html:
    """A table that scrolls by itself where it is too wide; the first column names the row.

    texts: so many leading columns hold text, the others are numbers. Rows may be of any width
    up to that of `headings`.
    """
    align = [None if index < texts else "n" for index in range(len(headings))]
    head = [element("th", h, scope="col", class_=a) for h, a in zip(headings, align, strict=True)]
    body = [_row(row, align) for row in rows]
    grid = element(
        "table",
        element("caption", caption),
        element("thead", element("tr", *head)),
        element("tbody", *body),
        class_="numbers" if texts < len(headings) else None,
    )
    return element("div", grid, class_="scroll", role="region", aria_label=caption, tabindex=0)


def _row(cells: Sequence[str], align: Sequence[str | None]) -> Html:
    first = element("th", cells[0], scope="row", class_=align[0])
    others = [element("td", c, class_=a) for c, a in zip(cells[1:], align[1:], strict=False)]
    return element("tr", first, *others)


def figure(
    title: str, words: str, chart: Html | None, key: Sequence[Html] = (), kind: str = ""
) -> Html:
    """A chart with its title, a word on how to read it and its legend; empty without a chart."""
    if chart is None:
        return Html("")
    legend = element("ul", *key, class_=f"legend {kind}") if key else ""
    return element("figure", element("figcaption", title), element("p", words), chart, legend)


def page(title: str, *body: str) -> Html:
    """A whole document that asks for nothing outside itself."""
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("style", Html(STYLE)),
    )
    return Html(f"<!DOCTYPE html>\n{element('html', head, element('body', *body), lang='en')}\n")


STYLE = """
:root { --paper: #f5f6f8; --card: #fff; --ink: #14181d; --soft: #59636f; --line: #e0e4e9;
  --float: #3b6ea8; --int: #c2540a; --good: #17734a; --bad: #b3261e; --good-wash: #e4f3eb;
  --bad-wash: #fbe7e5; --wash: #eef1f4; --read: #8a94a0; --pre: #5f8fc4; --post: #7d6bb0; }
@media (prefers-color-scheme: dark) { :root { --paper: #0e1115; --card: #161b21; --ink: #e9ecf0;
  --soft: #9ba6b3; --line: #2a323b; --float: #7db4ee; --int: #f39a4e; --good: #5bcf97;
  --bad: #ff8a7d; --good-wash: #12301f; --bad-wash: #3a1a17; --wash: #1e252d; --read: #77828f;
  --pre: #6ea3dc; --post: #a594dc; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
  border-top: 5px solid; border-image: linear-gradient(90deg, #1b0c41, #781c6d, #cf4446,
  #fb9b06, #f7d13d) 1; }
main, header, footer { max-width: 1180px; margin: 0 auto; padding: 0 24px; }
header { padding-top: 28px; }
footer { padding: 8px 24px 48px; color: var(--soft); font-size: 14px; }
.brand { color: var(--soft); font-size: 14px; letter-spacing: .02em; margin: 0 0 4px; }
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 16px; letter-spacing: -.01em; }
h2 { font-size: 22px; margin: 0 0 4px; letter-spacing: -.01em; overflow-wrap: anywhere; }
h3 { font-size: 16px; margin: 32px 0 8px; overflow-wrap: anywhere; }
p { margin: 0 0 12px; max-width: 75ch; overflow-wrap: anywhere; }
.soft { color: var(--soft); font-size: 14px; }
code { font: .92em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace;
  background: var(--wash); padding: 1px 5px; border-radius: 4px; overflow-wrap: anywhere; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 12px;
  padding: 24px; margin: 0 0 24px; }
.verdict { border-left: 6px solid var(--soft); }
.verdict.passed { border-left-color: var(--good); }
.verdict.failed { border-left-color: var(--bad); }
.verdict ul { margin: 0 0 12px; padding-left: 20px; max-width: 80ch; overflow-wrap: anywhere; }
.state { font-size: 24px; font-weight: 650; margin: 0 0 8px; line-height: 1.3; }
.passed .state { color: var(--good); } .failed .state { color: var(--bad); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(168px, 1fr)); gap: 12px;
  margin: 16px 0 8px; }
.tile { background: var(--wash); border-radius: 8px; padding: 12px 14px; margin: 0; }
.tile dt { color: var(--soft); font-size: 13px; }
.tile dd { margin: 0; } .tile dd.big { font-size: 21px; font-weight: 600; line-height: 1.3;
  font-variant-numeric: tabular-nums; }
.tile dd.soft { font-size: 13px; }
.scroll { overflow-x: auto; margin: 12px 0; }
.scroll:focus-visible, summary:focus-visible { outline: 2px solid var(--float);
  outline-offset: 2px; }
.tall { max-height: 420px; overflow-y: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14px;
  font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--soft); padding: 0 0 6px; font-size: 14px; }
th, td { padding: 7px 6px; text-align: left; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
thead th { color: var(--soft); font-weight: 500; font-size: 13px; vertical-align: bottom;
  white-space: normal; }
tbody th { font-weight: 600; max-width: 320px; overflow: hidden; text-overflow: ellipsis; }
table:not(.numbers) tbody th { white-space: normal; overflow-wrap: anywhere; min-width: 112px; }
.numbers tbody th { position: sticky; left: 0; background: var(--card); }
.n { text-align: right; } tbody tr:last-child > * { border-bottom: 0; }
.pill { display: inline-block; border-radius: 99px; padding: 0 9px; font-size: 13px;
  font-weight: 600; background: var(--wash); color: var(--soft); }
.pill.lost, .pill.failed { background: var(--bad-wash); color: var(--bad); }
.pill.gained, .pill.passed { background: var(--good-wash); color: var(--good); }
.why { display: inline-block; white-space: normal; min-width: min(260px, 55vw); }
.charts { display: grid; gap: 28px 36px;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 330px), 1fr)); margin: 20px 0 8px; }
figure { margin: 0; min-width: 0; }
figcaption { font-weight: 600; font-size: 15px; margin-bottom: 2px; }
figure p { font-size: 13px; color: var(--soft); margin: 0 0 6px; }
svg { display: block; width: 100%; max-width: 430px; height: auto; overflow: visible; }
svg text { font: 11.5px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
  fill: var(--soft); font-variant-numeric: tabular-nums; }
svg .name { fill: var(--ink); font-weight: 600; } svg .end { text-anchor: end; }
svg .mid { text-anchor: middle; } svg .on { fill: var(--card); font-weight: 700; }
svg .grid { stroke: var(--line); } svg .track { fill: var(--wash); }
svg .float { fill: var(--float); } svg .int { fill: var(--int); }
svg .dot { opacity: .3; } svg .quiet { fill: var(--soft); opacity: .38; }
svg .mark { stroke: var(--ink); stroke-width: 2; } svg .link { stroke: var(--soft); fill: none;
  stroke-dasharray: 3 3; } svg .diagonal { stroke: var(--soft); stroke-dasharray: 2 4; }
svg .curve { fill: none; stroke: var(--float); stroke-width: 2; stroke-linejoin: round; }
svg .curve.int { stroke: var(--int); } svg .dashed { stroke-dasharray: 7 4; }
svg .dotted { stroke-dasharray: 2 3; } svg .ringed { stroke: var(--card); stroke-width: 1.5; }
svg .lost { fill: var(--bad); } svg .gained { fill: var(--good); }
svg .read { fill: var(--read); } svg .pre { fill: var(--pre); } svg .post { fill: var(--post); }
.legend { list-style: none; padding: 0; margin: 6px 0 0; font-size: 13px; color: var(--soft); }
.legend li { display: inline-block; margin-right: 14px; }
.legend.rows li { display: block; margin: 0; }
.legend svg { display: inline-block; width: 11px; height: 11px; margin-right: 5px; }
.legend svg.long { width: 24px; }
.halves { display: grid; gap: 0 36px;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 330px), 1fr)); }
.halves > * { min-width: 0; }
details { margin-top: 8px; } summary { cursor: pointer; font-weight: 600; padding: 4px 0; }
.pictures { display: grid; gap: 16px; margin: 16px 0 0;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 320px), 1fr)); }
.pictures img { width: 100%; height: auto; border-radius: 6px; image-rendering: pixelated;
  display: block; background: #000; }
.pictures figcaption { font-weight: 400; font-size: 13px; color: var(--soft); margin: 6px 0 0;
  overflow-wrap: anywhere; }
.facts { display: grid; gap: 10px 28px; margin: 12px 0 0;
  grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); }
.facts dt { color: var(--soft); font-size: 13px; }
.facts dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 640px) { main, header, footer { padding-left: 14px; padding-right: 14px; }
  .card { padding: 18px 16px; border-radius: 10px; } h1 { font-size: 24px; }
  .tiles { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  .tile dd.big { font-size: 19px; }
  thead th { white-space: nowrap; }
  tbody th { max-width: 42vw; } }
@media print { body { background: #fff; }
  .card { break-inside: avoid; } .tall { max-height: none; } }
"""
