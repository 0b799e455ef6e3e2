import math
from copy import deepcopy
from dataclasses import replace
from types import SimpleNamespace

import pytest
from gate_benches import (
    FOUND,
    TARGETS,
    Change,
    Json,
    Make,
    entry,
    failed,
    figures,
    flip,
    int8,
    shift,
    skipped,
)

from irstd_edge.benchmarks.gate import judge
from irstd_edge.benchmarks.limits import Limits


def test_no_drift_is_green_and_every_limit_was_checked(make_bench: Make) -> None:
    verdict = judge(make_bench(), Limits(), strict=True)
    assert verdict.passed
    assert [check.name for check in verdict.checks] == [
        "drift.net_targets_lost",
        "drift.targets_flipped",
        "drift.iou",
        "drift.f1_3px",
        "drift.fa_per_mpx",
    ]
    assert {(c.model, c.variant, c.runtime) for c in verdict.checks} == {
        ("mshnet", "int8", "onnxruntime")
    }


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda bench: flip(bench, lost=2), ["drift.net_targets_lost"]),
        (lambda bench: flip(bench, lost=4, gained=3), ["drift.targets_flipped"]),
        (shift("f1_3px", -0.0051), ["drift.f1_3px"]),
        (shift("iou", -0.0051), ["drift.iou"]),
        (shift("fa_per_mpx", 2.01), ["drift.fa_per_mpx"]),
        (lambda bench: entry(bench).update(f1_3px=-0.1), ["drift.f1_3px"]),
        (lambda bench: int8(bench)["accuracy"].update(f1_3px=0.9), ["drift.f1_3px"]),
        (lambda bench: int8(bench)["accuracy"].update(fa_per_mpx=8.0), ["drift.fa_per_mpx"]),
    ],
)
def test_a_regression_over_its_limit_is_red(
    make_bench: Make, change: Change, expected: list[str]
) -> None:
    verdict = judge(make_bench(change=change), Limits())
    assert failed(verdict) == expected
    assert not verdict.passed


@pytest.mark.parametrize(
    "change",
    [
        lambda bench: flip(bench, lost=1),
        lambda bench: flip(bench, lost=2, gained=1),
        lambda bench: flip(bench, gained=4),
        shift("f1_3px", -0.005),
        shift("iou", -0.005),
        shift("fa_per_mpx", 2.0),
        shift("f1_3px", 0.02),
        shift("fa_per_mpx", -4.0),
    ],
)
def test_a_change_up_to_the_limit_or_for_the_better_is_green(
    make_bench: Make, change: Change
) -> None:
    assert judge(make_bench(change=change), Limits(), strict=True).passed


ASKED = Limits(
    drift={**Limits().drift, "position_px": 0.05, "pd_at_fa": -0.005, "fps_ratio": 2.0},
    lost={("lost_by_scr", "0 to 1.5"): 0, ("lost_by_area", "0 to 9"): 1},
)
"""Everything that a gate.toml may ask of a drift."""


@pytest.fixture
def asked(make: SimpleNamespace, make_bench: Make) -> Make:
    """A bench that can answer all of `ASKED`."""

    def made(change: Change | None = None) -> Json:
        bench = make_bench()
        entry(bench)["pd_at_fa"] = [make.equal_fa(), make.equal_fa(-0.5, own=False)]
        if change is not None:
            change(bench)
        return bench

    return made


def lose(*indices: int) -> Change:
    """Target k is of 4 k + 1 px at an SCR of 0.8 k; others are gained for them."""

    def apply(bench: Json) -> None:
        flip(bench, gained=len(indices))
        for k in indices:
            entry(bench)["targets"][k] |= {"matched_candidate": False, "flip": "lost"}
        entry(bench)["targets_lost"] = len(indices)
        int8(bench)["accuracy"]["pd"] = FOUND / TARGETS

    return apply


def slow(bench: Json) -> None:
    int8(bench)["fps"] = 0.8 * 2.0 * 10.0


def misplace(position_px: float | None) -> Change:
    def apply(bench: Json) -> None:
        int8(bench)["accuracy"]["position_px"] = position_px

    return apply


def worse_at_equal_fa(bench: Json) -> None:
    entry(bench)["pd_at_fa"][0]["pd_candidate"] -= 0.0051


def test_what_is_asked_for_is_checked_and_green_without_drift(asked: Make) -> None:
    verdict = judge(asked(), ASKED, strict=True)
    assert verdict.passed
    assert [check.name for check in verdict.checks][5:] == [
        "drift.position_px",
        "drift.pd_at_fa",
        "drift.lost_by_scr.0 to 1.5",
        "drift.lost_by_area.0 to 9",
        "drift.fps_ratio",
    ]


@pytest.mark.parametrize(
    ("change", "name", "why"),
    [
        (
            lambda bench: flip(bench, lost=2),
            "drift.net_targets_lost",
            "940 -> 938: +2, highest allowed +1",
        ),
        (shift("fa_per_mpx", 5.0), "drift.fa_per_mpx", "5 -> 10: +5, highest allowed +2"),
        (misplace(0.56), "drift.position_px", "0.5 -> 0.56: +0.06, highest allowed +0.05"),
        (
            lambda bench: entry(bench).update(position_px=0.06),  # the worst of both sources
            "drift.position_px",
            "0.5 -> 0.5: +0.06, highest allowed +0.05",
        ),
        (
            misplace(None),
            "drift.position_px",
            "is undefined: no target, or nothing detected; bench on labelled frames",
        ),
        (slow, "drift.fps_ratio", "10 -> 16 fps: 1.6 of fp32, lowest allowed 2"),
        (
            worse_at_equal_fa,
            "drift.pd_at_fa",
            "at 1.25 false alarms per Mpx 0.9947 -> 0.9896: -0.0051, lowest allowed -0.005",
        ),
        (
            lose(1),
            "drift.lost_by_scr.0 to 1.5",
            "1 lost of 2 targets at SCR 0 to 1.5, highest allowed 0",
        ),
        (
            lambda bench: entry(bench).pop("pd_at_fa"),
            "drift.pd_at_fa",
            "the bench does not compare Pd at equal false alarms; bench anew with --data, or limit "
            "fa_per_mpx where no threshold brings a mask's down to FP32's",
        ),
        (
            lambda bench: int8(bench).update(fps=None),
            "drift.fps_ratio",
            "the speed of both sides was not measured; bench fp32 beside it",
        ),
    ],
)
def test_a_regression_is_red_for_its_own_reason(
    asked: Make, change: Change, name: str, why: str
) -> None:
    reasons = {c.name: c.why for c in judge(asked(change), ASKED).checks if not c.passed}
    assert reasons[name] == why
    assert set(reasons) - {name} <= {"drift.lost_by_scr.0 to 1.5", "drift.lost_by_area.0 to 9"}
    if name != "drift.net_targets_lost":  # the two lost ones are faint and small as well
        assert set(reasons) == {name}


def test_small_targets_have_a_limit_of_their_own(asked: Make) -> None:
    """Targets 0, 1, 2 have up to 9 px; only target 2 is clear enough to be lost."""
    small = Limits(lost={("lost_by_area", "0 to 9"): 1, ("lost_by_scr", "0 to 1.5"): 2})
    assert judge(asked(lose(1)), small, strict=True).passed
    assert failed(judge(asked(lose(1, 2)), small)) == ["drift.lost_by_area.0 to 9"]


@pytest.mark.parametrize(
    "change",
    [lose(9), lambda bench: entry(bench)["pd_at_fa"][0].update(pd_candidate=1.0)],
)
def test_a_clear_target_or_a_gain_leaves_what_is_asked_green(asked: Make, change: Change) -> None:
    assert judge(asked(change), ASKED, strict=True).passed


def test_a_range_without_targets_is_skipped_and_red_where_strict(asked: Make) -> None:
    bench = asked()
    for row in entry(bench)["targets"]:
        row["scr"] = min(row["scr"], 6.0)
    limits = Limits(lost={("lost_by_scr", "over 6"): 0})
    verdict = judge(bench, limits)
    assert verdict.passed and skipped(verdict) == ["drift.lost_by_scr.over 6"]
    assert failed(judge(bench, limits, strict=True)) == ["drift.lost_by_scr.over 6"]


@pytest.mark.parametrize(
    ("key", "name", "words"),
    [
        ("area_px", "lost_by_area.0 to 9", "0 targets of 0 to 9 px, and 1 of 945 of unknown area"),
        ("scr", "lost_by_scr.over 6", "0 targets at SCR over 6, and 1 of 945 of unknown SCR"),
    ],
)
def test_a_lost_target_of_unknown_area_or_scr_counts_in_every_range(
    asked: Make, key: str, name: str, words: str
) -> None:
    section, span = name.split(".")
    bench = asked(lose(1))
    for row in entry(bench)["targets"]:
        row[key] = None
    none, one = (Limits(lost={(section, span): limit}) for limit in (0, 1))
    (check,) = [check for check in judge(bench, none).checks if not check.passed]
    assert (check.name, check.candidate) == (f"drift.{name}", 1)
    assert check.why == f"0 lost of {words}, highest allowed 0"
    assert judge(bench, one, strict=True).passed
    known = asked(lose(1))
    entry(known)["targets"][1][key] = None
    (check,) = [check for check in judge(known, none).checks if not check.passed]
    assert check.why.endswith(f"and 1 of 1 of unknown {words.split()[-1]}, highest allowed 0")


def test_one_lost_target_is_red_where_none_may_be_lost(make_bench: Make) -> None:
    bench = make_bench(change=lambda bench: flip(bench, lost=1))
    limits = Limits(drift={**Limits().drift, "net_targets_lost": 0})
    (check,) = [check for check in judge(bench, limits).checks if not check.passed]
    assert (check.name, check.reference, check.candidate, check.limit) == (
        *("drift.net_targets_lost", 940, 939, 0),
    )
    assert check.why == "940 -> 939: +1, highest allowed +0"


def test_a_variant_that_nothing_judged_is_red(make: SimpleNamespace, make_bench: Make) -> None:
    bench = make_bench()
    bench["results"][0]["variants"].append(make.variant("fp16"))
    (check,) = [check for check in judge(bench, Limits()).checks if not check.passed]
    assert (check.name, check.variant) == ("drift.entry", "fp16")
    assert check.why == "the bench does not compare it with fp32: bench again with --data"
    bench["results"][0]["variants"][-1]["accuracy"] = None
    (check,) = [check for check in judge(bench, Limits()).checks if not check.passed]
    assert check.why == "no drift was measured: bench with --data"


@pytest.mark.parametrize(
    ("runtime", "fix"),
    [
        ("tensorrt", "compile BUNDLE --variant fp32, then bench again"),
        ("onnxruntime", "bench a bundle that holds fp32.onnx"),
    ],
)
def test_a_variant_without_any_fp32_is_red_and_says_what_brings_one(
    make: SimpleNamespace, runtime: str, fix: str
) -> None:
    bench = make.bench("p2p", [make.variant("int8-fp16", runtime)], [])
    (check,) = judge(bench, Limits(floor={"fps": 1})).checks[:1]
    assert (check.name, check.passed) == ("drift.entry", False)
    assert check.why == f"no fp32 was measured to compare it with: {fix}"
    bench["results"][0]["variants"][0]["measured"] = False
    assert failed(judge(bench, Limits())) == ["gate.empty"]


@pytest.fixture
def across(make: SimpleNamespace, make_bench: Make) -> Make:
    """`make_bench`, and an engine in INT8 that lost so many targets against the CPU's FP32."""

    def made(lost: int) -> Json:
        bench = make_bench()
        engine = {"runtime": "tensorrt", "device": "cuda", "fps": 90.0}
        engine["accuracy"] = make.accuracy(**figures(True))
        drift = deepcopy(entry(bench))
        drift |= {"candidate": "int8-fp16", "runtime": "tensorrt", "targets_lost": lost}
        for target in drift["targets"][:lost]:
            target["flip"] = "lost"
        drift["reference_runtime"] = "onnxruntime"
        bench["results"][0]["variants"].append(make.variant("int8-fp16", **engine))
        bench["results"][0]["drift"].append(drift)
        return bench

    return made


def test_an_engine_without_fp32_beside_it_is_judged_by_that_of_another_runtime(
    across: Make,
) -> None:
    assert judge(across(lost=1), Limits(), strict=True).passed
    (check,) = [check for check in judge(across(lost=2), Limits()).checks if not check.passed]
    assert (check.name, check.runtime) == ("drift.net_targets_lost", "tensorrt")
    assert check.why.endswith("+2, highest allowed +1 (against fp32 on onnxruntime)")
    floors = judge(across(lost=0), Limits(floor={"fps": 1})).checks
    assert [c.variant for c in floors if c.name == "floor.fps"] == ["int8", "int8-fp16"]
    assert judge(across(lost=0), Limits(), across(lost=0), strict=True).passed


def test_speed_is_never_compared_with_fp32_of_another_runtime(across: Make) -> None:
    limits = Limits(drift={**Limits().drift, "fps_ratio": 1.2})
    (check,) = [check for check in judge(across(lost=0), limits).checks if not check.passed]
    assert (check.name, check.why) == (
        "drift.fps_ratio",
        "fp32 was not measured on tensorrt: compile BUNDLE --variant fp32, then bench again",
    )


@pytest.fixture
def frameless(make_bench: Make) -> Json:
    """What `bench` writes without --data: INT8 at 2.9 times the speed of FP32."""
    bench = make_bench()
    bench["results"][0]["drift"] = []
    for each in bench["results"][0]["variants"]:
        each["accuracy"] = None
    return bench


def test_speed_that_is_asked_for_is_judged_without_frames(frameless: Json) -> None:
    def of_ratio(limit: float) -> Limits:
        return Limits(drift={**Limits().drift, "fps_ratio": limit})

    enough = judge(frameless, of_ratio(2.9))
    assert enough.passed and skipped(enough) == ["drift.entry"]
    (check,) = [check for check in judge(frameless, of_ratio(3.0)).checks if not check.passed]
    assert (check.name, check.variant, check.runtime) == ("drift.fps_ratio", "int8", "onnxruntime")
    assert check.why == "10 -> 29 fps: 2.9 of fp32, lowest allowed 3"
    frameless["results"][0]["variants"][0]["runtime"] = "openvino"
    (check,) = [check for check in judge(frameless, of_ratio(1.0)).checks if not check.passed]
    assert check.why.startswith("fp32 was not measured on onnxruntime: ")


def test_what_is_asked_for_and_only_frames_tell_is_red_without_them(frameless: Json) -> None:
    names = ["drift.position_px", "drift.pd_at_fa"]
    names += ["drift.lost_by_scr.0 to 1.5", "drift.lost_by_area.0 to 9"]
    verdict = judge(frameless, replace(ASKED, floor={"fps": 5}))
    assert failed(verdict) == names
    whys = {check.why for check in verdict.checks if not check.passed}
    assert whys == {"no drift was measured: bench with --data"}
    off = Limits(
        drift={**Limits().drift, "pd_at_fa": -math.inf, "position_px": math.inf},
        lost={("lost_by_scr", "0 to 1.5"): math.inf},
        floor={"fps": 5},
    )
    assert judge(frameless, off).passed


def test_what_is_asked_for_is_red_where_only_fp32_was_measured(make_bench: Make) -> None:
    lone = make_bench()
    lone["results"][0] |= {"drift": [], "variants": lone["results"][0]["variants"][:1]}
    verdict = judge(lone, replace(ASKED, floor={"fps": 5}))
    assert failed(verdict) == [
        "drift.position_px",
        "drift.pd_at_fa",
        "drift.lost_by_scr.0 to 1.5",
        "drift.lost_by_area.0 to 9",
        "drift.fps_ratio",
    ]
    whys = {check.why for check in verdict.checks if not check.passed}
    assert whys == {"fp32 alone was measured; bench a cheaper variant beside it"}
