"""The gate's verdict and its forms: JSON, Markdown, JUnit."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from irstd_edge.edge.policy import printable


@dataclass(frozen=True)
class Check:
    """One thing that was held against one limit."""

    name: str
    """section.field, as in gate.toml."""
    model: str | None
    variant: str | None
    runtime: str | None
    passed: bool
    why: str
    """The figures in a sentence; begins with "skipped: " where they could not be compared."""
    reference: float | None = None
    candidate: float | None = None
    limit: float | None = None
    place: int | None = None
    """Of the model's bundle among those of the bench, from 1; None where it is the only one."""

    @property
    def who(self) -> str | None:
        """The model, and which of several bundles."""
        return named(self.model, self.place)

    @property
    def is_off(self) -> bool:
        """Whether its limit is infinite, so that nothing can break it."""
        return self.limit is not None and math.isinf(self.limit)

    @property
    def skipped(self) -> bool:
        """Could not be judged: passed, unless the gate is strict."""
        return self.why.startswith("skipped: ")

    @property
    def state(self) -> str:
        """passed, skipped or FAILED."""
        return "FAILED" if not self.passed else "skipped" if self.skipped else "passed"


def named(model: str | None, place: int | None) -> str | None:
    """A model in words: `p2p`, or `p2p #2` for the second of its bundles."""
    return model if place is None else f"{model} #{place}"


@dataclass(frozen=True)
class Verdict:
    """What the gate says of a bench."""

    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """No check failed, and there was one."""
        return bool(self.checks) and all(check.passed for check in self.checks)


def verdict_as_json(verdict: Verdict) -> dict[str, Any]:
    """The form of `gate --json`; the limit is null where it is infinite, which turns it off.

    `state` is passed, failed or skipped; a skipped check counts as `passed`.
    """
    return {
        "passed": verdict.passed,
        "checks": [
            {
                "name": check.name,
                "model": check.model,
                "place": check.place,
                "variant": check.variant,
                "runtime": check.runtime,
                "reference": check.reference,
                "candidate": check.candidate,
                "limit": None if check.is_off else check.limit,
                "state": check.state.lower(),
                "passed": check.passed,
                "why": check.why,
            }
            for check in verdict.checks
        ],
    }


def verdict_as_markdown(verdict: Verdict, sentences: Sequence[str] = ()) -> str:
    """A sentence a model and a table, for a job summary or a pull request; failures first."""
    failed = sum(not check.passed for check in verdict.checks)
    title = "passed" if verdict.passed else f"FAILED ({failed} of {len(verdict.checks)} checks)"
    lines = [f"## irstd-edge gate: {title}", ""]
    lines += [line for sentence in sentences for line in (_as_paragraph(sentence), "")]
    lines += ["| state | model | variant | check | why |", "|---|---|---|---|---|"]
    for check in sorted(verdict.checks, key=lambda check: check.passed):
        where = (check.who, _variant_of(check), check.name, check.why)
        cells = [_as_text(cell or "") for cell in where]
        lines.append(f"| {check.state} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


MARKUP = re.compile(
    r"[\\`*<\[\]|~&]"  # code, emphasis, HTML, links, tables, entities
    r"|(?<![^\W_])_|_(?![^\W_])"  # emphasis begins and ends outside a word
    r"|:(?=//)|(?<=www)\."  # addresses that become links by themselves
)
OPENING = re.compile(r"^(\d*)([#>+\-=.)])")
"""What makes a heading, a list, a quotation or a line of a paragraph that it begins."""


def _as_text(words: str) -> str:
    """Words that stay text: no table, link, picture or markup comes out of a name."""
    return MARKUP.sub(r"\\\g<0>", printable(words))


def _as_paragraph(sentence: str) -> str:
    """A sentence of which no name makes a heading, a list, a quotation or code."""
    return OPENING.sub(r"\1\\\2", _as_text(sentence).lstrip())


def verdict_as_junit(verdict: Verdict) -> str:
    """JUnit XML, which every CI shows."""
    suite = ET.Element(
        "testsuite",
        name="irstd-edge gate",
        tests=str(len(verdict.checks)),
        failures=str(sum(check.state == "FAILED" for check in verdict.checks)),
        errors="0",
        skipped=str(sum(check.state == "skipped" for check in verdict.checks)),
    )
    for check in verdict.checks:
        place = " ".join(filter(None, (check.who, _variant_of(check)))) or "gate"
        case = ET.SubElement(suite, "testcase", classname=place, name=check.name)
        if check.state == "passed":
            continue
        tag = "failure" if check.state == "FAILED" else "skipped"
        ET.SubElement(case, tag, message=check.why)
    ET.indent(suite)
    return ET.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _variant_of(check: Check) -> str:
    return " on ".join(filter(None, (check.variant, check.runtime)))
