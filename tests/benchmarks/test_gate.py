from collections.abc import Callable
from copy import deepcopy
from types import SimpleNamespace
from typing import Any

import pytest

from irstd_edge.benchmarks.accuracy import MASK_METRICS
from irstd_edge.benchmarks.gate import judge, load_limits
from irstd_edge.benchmarks.limits import Limits
from irstd_edge.benchmarks.verdict import Verdict
from irstd_edge.edge.types import IrstdError

TARGETS = 945
FOUND = 940
MATCHED = ("matched_reference", "matched_candidate")
Json = dict[str, Any]
Change = Callable[[Json], object]
Make = Callable[..., Json]


@pytest.fixture
def make_bench(make: SimpleNamespace) -> Make:
    """`make_bench(model, change)`: masks of mshnet, or points of p2p, that INT8 keeps as they are.

    FP32 and INT8 both find 940 of 945 targets; `change` is applied to the bench.
    """

    def made(model: str = "mshnet", change: Change | None = None) -> Json:
        masked = model == "mshnet"
        variants = [
            make.variant("fp32", fps=10.0, accuracy=make.accuracy(**figures(masked))),
            make.variant("int8", fps=29.0, accuracy=make.accuracy(**figures(masked))),
        ]
        targets = [make.target(k, **dict.fromkeys(MATCHED, k < FOUND)) for k in range(TARGETS)]
        areas = dict.fromkeys(("iou", "niou"), 0.0) if masked else {}
        bench: Json = make.bench(model, variants, [make.drift(targets, **areas)])
        if change is not None:
            change(bench)
        return bench

    return made


def figures(masked: bool) -> Json:
    areas = {"iou": 0.8, "niou": 0.79, "fa_legacy_per_mpx": 4.0} if masked else {}
    return {
        "images": 664,
        "targets": TARGETS,
        "pd": FOUND / TARGETS,
        "recall_3px": FOUND / TARGETS,
        "fa_per_mpx": 5.0,
        "f1_3px": 0.97,
        "position_px": 0.5,
        **areas,
    }


def int8(bench: Json) -> Json:
    return bench["results"][0]["variants"][1]  # type: ignore[no-any-return]


def entry(bench: Json) -> Json:
    return bench["results"][0]["drift"][0]  # type: ignore[no-any-return]


def flip(bench: Json, lost: int = 0, gained: int = 0) -> None:
    """Lose some of the targets that were found, gain some that were not, everywhere."""
    drift = entry(bench)
    for row in drift["targets"][:lost]:
        row |= {"matched_candidate": False, "flip": "lost"}
    for row in drift["targets"][FOUND : FOUND + gained]:
        row |= {"matched_candidate": True, "flip": "gained"}
    drift |= {"targets_lost": lost, "targets_gained": gained}
    int8(bench)["accuracy"]["pd"] += (gained - lost) / TARGETS


def shift(name: str, change: float) -> Change:
    """A figure that changed, in the variant's accuracy and in the drift entry."""

    def apply(bench: Json) -> None:
        int8(bench)["accuracy"][name] += change
        entry(bench)[name] += change

    return apply


def failed(verdict: Verdict) -> list[str]:
    return [check.name for check in verdict.checks if not check.passed]


def skipped(verdict: Verdict) -> list[str]:
    return [check.name for check in verdict.checks if check.skipped]


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


def test_iou_is_not_asked_of_points(make_bench: Make) -> None:
    verdict = judge(make_bench("p2p"), Limits(), strict=True)
    assert verdict.passed
    assert "drift.iou" not in [check.name for check in verdict.checks]
    assert len(verdict.checks) == 4


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
    drift={**Limits().drift, "pd_at_fa": -0.005, "fps_ratio": 2.0},
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


def worse_at_equal_fa(bench: Json) -> None:
    entry(bench)["pd_at_fa"][0]["pd_candidate"] -= 0.0051


def test_what_is_asked_for_is_checked_and_green_without_drift(asked: Make) -> None:
    verdict = judge(asked(), ASKED, strict=True)
    assert verdict.passed
    assert [check.name for check in verdict.checks][5:] == [
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
            "the bench does not compare Pd at equal false alarms; bench anew with --data",
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


@pytest.mark.parametrize("name", ["f1_3px", "iou", "fa_per_mpx"])
def test_an_undefined_metric_is_red(make_bench: Make, name: str) -> None:
    bench = make_bench()
    int8(bench)["accuracy"] |= {name: None, "undefined": [name]}
    entry(bench)[name] = None
    verdict = judge(bench, Limits())
    assert failed(verdict) == [f"drift.{name}"]
    assert "undefined" in [check.why for check in verdict.checks if not check.passed][0]


def test_a_null_that_nobody_explains_is_red(make_bench: Make) -> None:
    bench = make_bench("p2p")
    entry(bench)["f1_3px"] = None
    for each in bench["results"][0]["variants"]:
        each["accuracy"]["f1_3px"] = None
    assert failed(judge(bench, Limits())) == ["drift.f1_3px"]
    lone = make_bench()
    int8(lone)["accuracy"]["iou"] = entry(lone)["iou"] = None
    assert failed(judge(lone, Limits())) == ["drift.iou"]


def test_without_targets_nothing_is_proved(make_bench: Make) -> None:
    bench = make_bench("p2p")
    entry(bench)["targets"] = []
    for each in bench["results"][0]["variants"]:
        each["accuracy"] |= {"targets": 0, "pd": None, "undefined": ["pd"]}
    verdict = judge(bench, Limits())
    assert failed(verdict) == [
        "drift.net_targets_lost",
        "drift.targets_flipped",
        "gate.empty",
        "gate.empty",
    ]
    assert verdict.checks[-1].why == "the data has no targets; bench on labelled frames"


def find_nothing(bench: Json) -> None:
    for each in bench["results"][0]["variants"]:
        each["accuracy"] |= {"pd": 0.0, "recall_3px": 0.0, "f1_3px": 0.0, "fa_per_mpx": 0.0}
    for row in entry(bench)["targets"]:
        row |= dict.fromkeys(MATCHED, False)


@pytest.mark.parametrize("model", ["mshnet", "p2p"])
def test_a_detector_that_finds_nothing_is_red_though_it_loses_nothing(
    make_bench: Make, model: str
) -> None:
    blind = make_bench(model, find_nothing)
    empty = [check for check in judge(blind, Limits(), blind).checks if not check.passed]
    assert [(c.name, c.model, c.variant, c.runtime) for c in empty] == [
        ("gate.empty", model, "fp32", "onnxruntime"),
        ("gate.empty", model, "int8", "onnxruntime"),
    ]
    assert {c.why for c in empty} == {"finds none of 945 targets; give a detector that was trained"}


def test_points_that_have_no_pd_are_found_by_their_recall(make_bench: Make) -> None:
    bench = make_bench("p2p")
    for each in bench["results"][0]["variants"]:
        each["accuracy"]["pd"] = None
    assert "gate.empty" not in failed(judge(bench, Limits()))
    for each in bench["results"][0]["variants"]:
        each["accuracy"]["recall_3px"] = None
    assert "gate.empty" not in failed(judge(bench, Limits())), "not known is not none"
    for each in bench["results"][0]["variants"]:
        each["accuracy"]["recall_3px"] = 0.0
    assert failed(judge(bench, Limits())).count("gate.empty") == 2


def test_a_lone_detector_that_finds_nothing_is_red_under_a_floor_of_speed(
    make_bench: Make,
) -> None:
    blind = make_bench(change=find_nothing)
    blind["results"][0]["drift"] = []
    assert failed(judge(blind, Limits(floor={"fps": 1}))) == ["drift.entry", *["gate.empty"] * 2]


def test_one_target_found_is_not_nothing(make_bench: Make) -> None:
    bench = make_bench("p2p", find_nothing)
    for each in bench["results"][0]["variants"]:
        each["accuracy"]["pd"] = 1 / TARGETS
    assert judge(bench, Limits(), strict=True).passed


@pytest.mark.parametrize(
    ("floor", "passes"),
    [
        ({"f1_3px": 0.97}, True),
        ({"f1_3px": 0.971}, False),
        ({"iou": 0.81}, False),
        ({"fps": 29}, True),
        ({"fps": 30}, False),
        ({"images": 665}, False),
        ({"targets": 945}, True),
        ({"fa_per_mpx": 5.0}, True),
        ({"fa_per_mpx": 4.9}, False),  # a ceiling
        ({"position_px": 0.4}, False),  # a ceiling
    ],
)
def test_floors_are_absolute_and_hold_what_ships(
    make_bench: Make, floor: dict[str, float], passes: bool
) -> None:
    verdict = judge(make_bench(), Limits(floor=floor), strict=True)
    assert verdict.passed is passes
    assert [c.variant for c in verdict.checks if c.name.startswith("floor.")] == ["int8"]


def test_a_floor_serves_without_drift(make_bench: Make) -> None:
    bench = make_bench()
    bench["results"][0] |= {"drift": [], "variants": bench["results"][0]["variants"][:1]}
    assert judge(bench, Limits(floor={"fps": 9})).passed
    assert failed(judge(bench, Limits(floor={"fps": 11}))) == ["floor.fps"]


@pytest.mark.parametrize("change", [{"fps": None}, {"accuracy": None}])
def test_a_floor_that_cannot_be_checked_is_red(make_bench: Make, change: Json) -> None:
    bench = make_bench(change=lambda bench: int8(bench).update(change))
    verdict = judge(bench, Limits(floor={"fps": 1, "f1_3px": 0.1}))
    assert len(failed(verdict)) == 1


@pytest.mark.parametrize("name", MASK_METRICS)
def test_a_floor_of_masks_that_only_points_meet_is_red(make_bench: Make, name: str) -> None:
    (check,) = [
        check
        for check in judge(make_bench("p2p"), Limits(floor={name: 0.9})).checks
        if not check.passed
    ]
    assert (check.name, check.variant) == (f"floor.{name}", "int8")
    assert check.why == (
        f"points have no {name}, and nothing else was measured; take it out of [floor]"
    )


def test_a_floor_of_masks_is_skipped_for_points_beside_them(make_bench: Make) -> None:
    bench = make_bench()
    bench["results"] += make_bench("p2p")["results"]
    limits = Limits(floor={"iou": 0.79})
    verdict = judge(bench, limits)
    assert verdict.passed and skipped(verdict) == ["floor.iou"]
    (check,) = [check for check in verdict.checks if check.skipped]
    assert (check.model, check.why) == ("p2p", "skipped: points have no iou")
    assert failed(judge(bench, limits, strict=True)) == ["floor.iou"]
    int8(bench)["accuracy"]["iou"] = entry(bench)["iou"] = None
    assert failed(judge(bench, limits)) == ["drift.iou", "floor.iou"], "a null is no point"


def test_a_floor_that_is_undefined_is_red(make_bench: Make) -> None:
    bench = make_bench("p2p")
    int8(bench)["accuracy"] |= {"position_px": None, "undefined": ["position_px"]}
    assert failed(judge(bench, Limits(floor={"position_px": 9}))) == ["floor.position_px"]


def test_a_gate_that_checks_nothing_is_red(make_bench: Make) -> None:
    bench = make_bench()
    bench["results"][0] |= {"drift": [], "variants": []}
    assert failed(judge(bench, Limits())) == ["gate.empty"]
    nothing = make_bench() | {"results": []}
    assert failed(judge(nothing, Limits())) == ["gate.empty"]


def test_one_model_that_is_checked_does_not_cover_for_another(make_bench: Make) -> None:
    bench, other = make_bench(), make_bench("p2p")
    other["results"][0]["drift"] = []
    bench["results"] += other["results"]
    verdict = judge(bench, Limits())
    assert [(c.model, c.name) for c in verdict.checks if not c.passed] == [("p2p", "drift.entry")]


def test_projections_are_not_judged(make_bench: Make) -> None:
    bench = make_bench()
    int8(bench)["measured"] = False
    flip(bench, lost=500)
    assert failed(judge(bench, Limits(floor={"fps": 1000}))) == ["gate.empty"]


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


def test_speed_alone_may_be_judged_without_data(make_bench: Make) -> None:
    bench = make_bench()
    bench["results"][0]["drift"] = []
    for each in bench["results"][0]["variants"]:
        each["accuracy"] = None
    verdict = judge(bench, Limits(floor={"fps": 5}))
    assert verdict.passed and skipped(verdict) == ["drift.entry"]
    assert failed(judge(bench, Limits())) == ["gate.empty"]


def test_fp32_alone_asks_for_something_to_hold_against_it(make_bench: Make) -> None:
    bench = make_bench()
    bench["results"][0] |= {"drift": [], "variants": bench["results"][0]["variants"][:1]}
    (check,) = judge(bench, Limits()).checks
    assert (check.name, check.passed) == ("gate.empty", False)
    assert check.why == (
        "nothing to judge: fp32 alone; bench a cheaper variant beside it, or set a [floor]"
    )


@pytest.fixture
def across(make: SimpleNamespace, make_bench: Make) -> Make:
    """`make_bench`, and an engine in INT8 that lost so many targets against the CPU's FP32."""

    def made(lost: int) -> Json:
        bench = make_bench()
        engine = {"runtime": "tensorrt", "device": "cuda", "fps": 90.0}
        engine["accuracy"] = make.accuracy(**figures(True))
        drift = deepcopy(entry(bench))
        drift |= {"candidate": "int8-fp16", "runtime": "tensorrt", "targets_lost": lost}
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


def test_a_bench_equals_itself_as_baseline(make_bench: Make) -> None:
    verdict = judge(make_bench(), Limits(), make_bench(), strict=True)
    assert verdict.passed
    names = ("fps_ratio", "net_targets_lost", "targets_flipped", "iou", "f1_3px", "fa_per_mpx")
    assert [c.name for c in verdict.checks if c.variant == "fp32"] == [
        f"baseline.{name}" for name in names
    ]


def worse_everywhere(name: str, change: float) -> Change:
    """FP32 and INT8 alike: drift does not see it."""

    def apply(bench: Json) -> None:
        for each in bench["results"][0]["variants"]:
            each["accuracy"][name] += change

    return apply


def lose_everywhere(bench: Json) -> None:
    for row in entry(bench)["targets"][:2]:
        row |= {"matched_reference": False, "matched_candidate": False}
    worse_everywhere("pd", -2 / TARGETS)(bench)


def swap_found(bench: Json) -> None:
    for row in [*entry(bench)["targets"][:3], *entry(bench)["targets"][FOUND : FOUND + 3]]:
        other = not row["matched_reference"]
        row |= {"matched_reference": other, "matched_candidate": other}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda bench: int8(bench).update(fps=0.8 * 29.0), ["fps_ratio"]),
        (worse_everywhere("f1_3px", -0.006), ["f1_3px"] * 2),
        (worse_everywhere("iou", -0.006), ["iou"] * 2),
        (worse_everywhere("fa_per_mpx", 2.1), ["fa_per_mpx"] * 2),
        (lose_everywhere, ["net_targets_lost"] * 2),
        (swap_found, ["targets_flipped"] * 2),
    ],
)
def test_a_regression_against_the_baseline_is_red(
    make_bench: Make, change: Change, expected: list[str]
) -> None:
    verdict = judge(make_bench(change=change), Limits(), make_bench())
    assert failed(verdict) == [f"baseline.{name}" for name in expected]


def test_nine_tenths_of_the_speed_are_enough(make_bench: Make) -> None:
    bench = make_bench(change=lambda bench: int8(bench).update(fps=0.9 * 29.0))
    assert judge(bench, Limits(), make_bench(), strict=True).passed


def test_speed_is_not_compared_between_batches(make_bench: Make) -> None:
    bench = make_bench(change=lambda bench: int8(bench).update(fps=1.0, batch=4))
    verdict = judge(bench, Limits(), make_bench())
    assert verdict.passed
    (check,) = [c for c in verdict.checks if c.state == "skipped" and "batches" in c.why]
    assert check.name == "baseline.fps_ratio"


@pytest.mark.parametrize("fingerprint", ["another machine", None])
def test_speed_is_not_compared_between_machines(make_bench: Make, fingerprint: str | None) -> None:
    bench = make_bench(change=lambda bench: int8(bench).update(fps=1.0))
    bench["machine"]["fingerprint"] = fingerprint
    verdict = judge(bench, Limits(), make_bench())
    assert verdict.passed
    assert skipped(verdict) == ["baseline.fps_ratio"] * 2
    assert failed(judge(bench, Limits(), make_bench(), True)) == ["baseline.fps_ratio"] * 2


def test_speed_is_not_compared_between_sizes_of_frames(make_bench: Make) -> None:
    bench = make_bench(change=lambda bench: int8(bench).update(fps=1.0))
    bench["results"][0]["cost"]["input"] = [1, 1, 512, 640]
    verdict = judge(bench, Limits(), make_bench())
    assert verdict.passed
    assert skipped(verdict) == ["baseline.fps_ratio"] * 2
    whys = {check.why for check in verdict.checks if check.skipped}
    assert whys == {"skipped: the baseline was timed at 256x256, this at 512x640"}


def other_images(bench: Json) -> None:
    for each in bench["results"][0]["variants"]:
        each["accuracy"]["images"] = 600


def other_protocol(bench: Json) -> None:
    for each in bench["results"][0]["variants"]:
        each["accuracy"]["protocol"] = "paper256"


@pytest.mark.parametrize(
    "other",
    [
        other_images,
        other_protocol,
        lambda bench: entry(bench)["targets"][7].update(image="another"),
        lambda bench: entry(bench)["targets"][7].update(row=11.5),
    ],
)
def test_accuracy_is_not_compared_between_frames(make_bench: Make, other: Change) -> None:
    bench = make_bench(change=worse_everywhere("f1_3px", -0.5))
    other(bench)
    verdict = judge(bench, Limits(), make_bench())
    assert verdict.passed
    assert skipped(verdict) == ["baseline.accuracy"] * 2
    strict = judge(bench, Limits(), make_bench(), strict=True)
    assert failed(strict) == ["baseline.accuracy"] * 2


def test_a_file_that_does_not_say_what_was_found_is_judged_by_its_pd(make_bench: Make) -> None:
    old = make_bench()
    for row in entry(old)["targets"]:
        del row["matched_reference"], row["matched_candidate"]
    verdict = judge(make_bench(change=lose_everywhere), Limits(), old)
    assert failed(verdict) == ["baseline.net_targets_lost"] * 2
    assert skipped(verdict) == ["baseline.targets_flipped"] * 2


def test_what_only_one_file_has_is_skipped(make_bench: Make) -> None:
    less = make_bench()
    less["results"][0] |= {"variants": less["results"][0]["variants"][:1]}
    assert skipped(judge(make_bench(), Limits(), less)) == ["baseline.entry"]
    del less["results"][0]["drift"][0]
    gone = judge(less, Limits(floor={"fps": 1}), make_bench())
    assert skipped(gone)[-1] == "baseline.entry"
    assert skipped(judge(make_bench("p2p"), Limits(), make_bench())) == ["baseline.entry"] * 3


def test_two_bundles_of_a_model_meet_their_own_baselines(make_bench: Make) -> None:
    bench, slow = make_bench(), make_bench()
    int8(slow)["fps"] = 20.0
    bench["results"] += slow["results"]
    assert judge(bench, Limits(), deepcopy(bench), strict=True).passed
    swapped = deepcopy(bench)
    swapped["results"].reverse()
    (slower,) = [c for c in judge(bench, Limits(), swapped).checks if not c.passed]
    assert (slower.name, slower.model, slower.place) == ("baseline.fps_ratio", "mshnet", 2)
    alone = judge(make_bench(), Limits(), make_bench())
    assert {check.place for check in alone.checks} == {None}


def test_a_baseline_that_was_asked_for_has_to_be_given(make_bench: Make) -> None:
    limits = Limits(baseline_asked=True)
    assert failed(judge(make_bench(), limits)) == ["gate.baseline"]
    assert judge(make_bench(), limits, make_bench(), strict=True).passed
    assert judge(make_bench(), load_limits(None)).passed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda b: b.update(schema="irstd-edge/bench/2"),
            "BENCH.json: schema is 'irstd-edge/bench/2",
        ),
        (lambda b: b.pop("schema"), "BENCH.json: is no bench.json; give the file of"),
        (lambda b: b.pop("results"), "BENCH.json: results is missing"),
        (lambda b: b.update(results={}), "BENCH.json: results: {} is not a list"),
        (lambda b: b.update(machine=None), "BENCH.json: machine: None is not an object"),
        (lambda b: b["results"].append(3), r"BENCH.json: results\[1\]: 3 is not an object"),
        (lambda b: b["results"][0].pop("drift"), r"BENCH.json: results\[0\]: drift is missing"),
        (lambda b: int8(b).pop("fps"), r"results\[0\].variants\[1\]: fps is missing"),
        (lambda b: int8(b).update(fps="fast"), r"variants\[1\].fps: 'fast' is not a number"),
        (lambda b: int8(b).update(fps=float("nan")), r"variants\[1\].fps: nan is not a number"),
        (lambda b: int8(b).update(measured=1), r"variants\[1\].measured: 1 is not true or false"),
        (lambda b: int8(b)["accuracy"].pop("undefined"), r"accuracy: undefined is missing"),
        (lambda b: int8(b)["accuracy"].update(targets=-1), r"accuracy.targets: -1 is not a count"),
        (
            lambda b: entry(b).update(targets_lost=0.5),
            r"drift\[0\].targets_lost: 0.5 is not a count",
        ),
        (lambda b: entry(b).update(iou="0"), r"drift\[0\].iou: '0' is not a number"),
        (lambda b: entry(b)["targets"][3].pop("image"), r"targets\[3\]: image is missing"),
        (
            lambda b: entry(b)["targets"][3].update(image=4),
            r"targets\[3\].image: 4 is not a string",
        ),
    ],
)
def test_a_malformed_bench_is_named_in_one_line(
    make_bench: Make, change: Change, message: str
) -> None:
    with pytest.raises(IrstdError, match=message) as caught:
        judge(make_bench(change=change), Limits())
    assert "\n" not in str(caught.value)
    with pytest.raises(IrstdError, match="--baseline: "):
        judge(make_bench(), Limits(), make_bench(change=change))


@pytest.mark.parametrize("value", [None, [], 3, "bench"])
def test_what_is_no_object_is_no_bench(value: Any) -> None:
    with pytest.raises(IrstdError, match="BENCH.json: is no bench.json; give"):
        judge(value, Limits())


def test_a_fifth_slower_and_other_frames_are_red_for_their_own_reasons(make_bench: Make) -> None:
    slower = make_bench(change=lambda bench: int8(bench).update(fps=0.8 * 29.0))
    (check,) = [c for c in judge(slower, Limits(), make_bench()).checks if not c.passed]
    assert (check.name, check.why) == (
        *("baseline.fps_ratio", "29 -> 23.2 fps: 0.8 of it, lowest allowed 0.9"),
    )
    others = make_bench(change=lambda bench: int8(bench)["accuracy"].update(images=663))
    verdict = judge(others, Limits(), make_bench(), strict=True)
    reasons = {(c.name, c.variant): c.why for c in verdict.checks if not c.passed}
    assert reasons == {
        ("baseline.accuracy", "int8"): "skipped: the baseline is of other frames",
    }
