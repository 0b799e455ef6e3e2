import json
import math
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from irstd_edge.benchmarks.verdict import (
    Check,
    Verdict,
    verdict_as_json,
    verdict_as_junit,
    verdict_as_markdown,
)

GOOD = Check(
    "drift.f1_3px", "p2p", "int8", "openvino", True, "0.97 -> 0.968: -0.002", 0.97, 0.968, -0.005
)
UNKNOWN = Check("baseline.fps_ratio", "p2p", "int8", "openvino", True, "skipped: another machine")
BAD = Check("gate.baseline", None, None, None, False, "give --baseline <OLD> | or not")


def test_a_verdict_passes_where_all_checks_do_and_there_are_some() -> None:
    assert Verdict((GOOD, UNKNOWN)).passed
    assert not Verdict((GOOD, BAD)).passed
    assert not Verdict(()).passed


def test_json_is_plain() -> None:
    assert verdict_as_json(Verdict((GOOD,))) == {
        "passed": True,
        "checks": [
            {
                "name": "drift.f1_3px",
                "model": "p2p",
                "place": None,
                "variant": "int8",
                "runtime": "openvino",
                "reference": 0.97,
                "candidate": 0.968,
                "limit": -0.005,
                "state": "passed",
                "passed": True,
                "why": "0.97 -> 0.968: -0.002",
            }
        ],
    }


def test_json_tells_a_skipped_check_from_one_that_passed() -> None:
    strict = replace(UNKNOWN, passed=False)
    checks = verdict_as_json(Verdict((GOOD, UNKNOWN, BAD, strict)))["checks"]
    assert [(check["state"], check["passed"]) for check in checks] == [
        ("passed", True),
        ("skipped", True),
        ("failed", False),
        ("failed", False),
    ]


@pytest.mark.parametrize("limit", [math.inf, -math.inf])
def test_a_limit_that_is_off_is_null_in_json(limit: float) -> None:
    value = verdict_as_json(Verdict((replace(GOOD, limit=limit),)))
    assert json.loads(json.dumps(value, allow_nan=False))["checks"][0]["limit"] is None


def test_markdown_puts_failures_first() -> None:
    assert verdict_as_markdown(Verdict((GOOD, UNKNOWN, BAD))) == (
        "## irstd-edge gate: FAILED (1 of 3 checks)\n"
        "\n"
        "| state | model | variant | check | why |\n"
        "|---|---|---|---|---|\n"
        "| FAILED |  |  | gate.baseline | give --baseline \\<OLD> \\| or not |\n"
        "| passed | p2p | int8 on openvino | drift.f1_3px | 0.97 -> 0.968: -0.002 |\n"
        "| skipped | p2p | int8 on openvino | baseline.fps_ratio | skipped: another machine |\n"
    )
    assert verdict_as_markdown(Verdict((GOOD,)), ["p2p: ship it"]).startswith(
        "## irstd-edge gate: passed\n\np2p: ship it\n\n| state |"
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("<img src=x onerror=y>", r"\<img src=x onerror=y>"),
        ("![x](https://a.b/c)", r"!\[x\](https\://a.b/c)"),
        ("www.a.b", r"www\.a.b"),
        ("**ship** `it`", r"\*\*ship\*\* \`it\`"),
        ("_ship_ ~~it~~ f1_3px", r"\_ship\_ \~\~it\~\~ f1_3px"),
        ("a | b \\ &lt;", r"a \| b \\ \&lt;"),
    ],
)
def test_markup_of_a_name_stays_text_in_cells_and_in_sentences(name: str, expected: str) -> None:
    verdict = Verdict((replace(GOOD, model=name),))
    text = verdict_as_markdown(verdict, [f"{name}: ship it"])
    assert f"\n\n{expected}: ship it\n\n" in text
    assert f"| passed | {expected} | int8 on openvino |" in text


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("# p2p", r"\# p2p"),
        ("- p2p", r"\- p2p"),
        ("1. p2p", r"1\. p2p"),
        ("2) p2p", r"2\) p2p"),
        ("> p2p", r"\> p2p"),
        ("    p2p", "p2p"),
        ("+ p2p", r"\+ p2p"),
        ("~~~", r"\~\~\~"),
    ],
)
def test_a_name_opens_no_heading_list_or_block(name: str, expected: str) -> None:
    text = verdict_as_markdown(Verdict((GOOD,)), [f"{name}: ship it"])
    assert f"\n\n{expected}: ship it\n\n" in text


def test_one_of_several_bundles_is_told_from_the_others() -> None:
    second = Verdict((replace(GOOD, place=2),))
    assert verdict_as_json(second)["checks"][0]["place"] == 2
    assert "| p2p #2 | int8 on openvino |" in verdict_as_markdown(second)
    assert 'classname="p2p #2 int8 on openvino"' in verdict_as_junit(second)


def test_junit_counts_failures_and_skips() -> None:
    suite = ET.fromstring(verdict_as_junit(Verdict((GOOD, UNKNOWN, BAD))))
    assert suite.tag == "testsuite"
    assert suite.attrib == {
        "name": "irstd-edge gate",
        "tests": "3",
        "failures": "1",
        "errors": "0",
        "skipped": "1",
    }
    assert [(case.attrib["classname"], case.attrib["name"]) for case in suite] == [
        ("p2p int8 on openvino", "drift.f1_3px"),
        ("p2p int8 on openvino", "baseline.fps_ratio"),
        ("gate", "gate.baseline"),
    ]
    assert [[child.tag for child in case] for case in suite] == [[], ["skipped"], ["failure"]]
    assert suite[2][0].attrib["message"] == BAD.why


def test_a_skipped_check_that_a_strict_gate_failed_is_a_failure() -> None:
    strict = Check("baseline.fps_ratio", "p2p", "int8", "openvino", False, UNKNOWN.why)
    assert strict.state == "FAILED"
    assert "<failure" in verdict_as_junit(Verdict((strict,)))
