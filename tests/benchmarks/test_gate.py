from types import SimpleNamespace

import pytest
from gate_benches import (
    MATCHED,
    TARGETS,
    Json,
    Make,
    entry,
    failed,
    flip,
    int8,
    skipped,
)

from irstd_edge.benchmarks.accuracy import MASK_METRICS
from irstd_edge.benchmarks.gate import judge
from irstd_edge.benchmarks.limits import Limits, load_limits


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
        ({"fps_end_to_end": 19.2}, True),
        ({"fps_end_to_end": 19.3}, False),
        ({"p99_ms": 75}, True),
        ({"p99_ms": 74}, False),  # a ceiling
        ({"memory_mb": 181.5}, True),
        ({"memory_mb": 181}, False),  # a ceiling
        ({"joule_per_frame": 0.4}, True),
        ({"joule_per_frame": 0.3}, False),  # a ceiling
        ({"missed": 2}, True),
        ({"missed": 1}, False),  # a ceiling
        ({"fa_per_mpx": 5.0}, True),
        ({"fa_per_mpx": 4.9}, False),  # a ceiling
        ({"position_px": 0.4}, False),  # a ceiling
    ],
)
def test_floors_are_absolute_and_hold_what_ships(
    make: SimpleNamespace, make_bench: Make, floor: dict[str, float], passes: bool
) -> None:
    bench = make_bench()
    int8(bench).update(joule_per_frame=0.35, pace=make.pace(missed=2))
    verdict = judge(bench, Limits(floor=floor), strict=True)
    assert verdict.passed is passes
    assert [c.variant for c in verdict.checks if c.name.startswith("floor.")] == ["int8"]


@pytest.mark.parametrize("fps", [20, 30])
def test_a_floor_of_speed_leaves_fp32_out_without_frames_as_with_them(
    make: SimpleNamespace, make_bench: Make, fps: float
) -> None:
    bench = make_bench()
    result = bench["results"][0]
    result["drift"] = []
    for each in result["variants"]:
        each["accuracy"] = None
    verdict = judge(bench, Limits(floor={"fps": fps}))
    floors = [check for check in verdict.checks if check.name == "floor.fps"]
    assert [(c.variant, c.passed) for c in floors] == [("int8", fps == 20)]
    result["variants"].append(make.variant("fp32", "openvino", accuracy=None, fps=25.0))
    floors = [c for c in judge(bench, Limits(floor={"fps": fps})).checks if c.name == "floor.fps"]
    assert [(c.variant, c.runtime) for c in floors] == [
        ("int8", "onnxruntime"),
        ("fp32", "openvino"),
    ]


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


def test_a_floor_says_what_was_measured_and_which_side_is_allowed(make_bench: Make) -> None:
    limits = Limits(floor={"p99_ms": 40, "fps_end_to_end": 30})
    whys = {c.name: c.why for c in judge(make_bench(), limits).checks if not c.passed}
    assert whys == {
        "floor.p99_ms": "75, highest allowed 40",
        "floor.fps_end_to_end": "19.23, lowest allowed 30",
    }


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("fps", "bench again"),
        ("fps_end_to_end", "bench again"),
        ("p99_ms", "bench again"),
        ("memory_mb", "bench on Linux, where the variant opens in a process of its own"),
        ("joule_per_frame", "bench on a board with power sensors, by --device jetson"),
        ("missed", "bench with --rate-hz"),
    ],
)
def test_a_floor_of_what_was_not_measured_is_red_and_says_what_brings_it(
    make_bench: Make, name: str, fix: str
) -> None:
    nothing = dict.fromkeys(("fps", "fps_end_to_end", "latency_ms", "memory_mb", "pace"))
    bench = make_bench(change=lambda bench: int8(bench).update(nothing))
    (check,) = [c for c in judge(bench, Limits(floor={name: 1})).checks if not c.passed]
    assert (check.name, check.variant) == (f"floor.{name}", "int8")
    assert check.why == f"was not measured; {fix}, or take it out of [floor]"


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


def test_a_floor_of_one_runtime_leaves_the_others_alone(make_bench: Make) -> None:
    def measure_on_the_gpu(bench: Json) -> None:
        variants = bench["results"][0]["variants"]
        variants.append({**int8(bench), "runtime": "tensorrt", "device": "cuda", "fps": 40.0})

    bench = make_bench(change=measure_on_the_gpu)
    limits = Limits(floor_on={("tensorrt", "fps"): 50.0})
    (check,) = [c for c in judge(bench, limits).checks if c.name.startswith("floor.")]
    assert (check.runtime, check.candidate, check.passed) == ("tensorrt", 40.0, False)
    lower = judge(bench, Limits(floor_on={("tensorrt", "fps"): 30.0}))
    assert [c.passed for c in lower.checks if c.name.startswith("floor.")] == [True]


def test_a_floor_of_a_runtime_that_was_not_measured_is_red(make_bench: Make) -> None:
    verdict = judge(make_bench(), Limits(floor_on={("tensorrt", "fps"): 50.0}))
    (check,) = [c for c in verdict.checks if not c.passed]
    assert check.name == "gate.floor"
    assert "nothing was measured on it; bench with --runtime tensorrt" in check.why
    assert judge(make_bench(), Limits(floor_on={("tensorrt", "p99_ms"): float("inf")})).passed


def test_projections_are_not_judged(make_bench: Make) -> None:
    bench = make_bench()
    int8(bench)["measured"] = False
    flip(bench, lost=500)
    assert failed(judge(bench, Limits(floor={"fps": 1000}))) == ["gate.empty"]


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


def test_a_baseline_that_was_asked_for_has_to_be_given(make_bench: Make) -> None:
    limits = Limits(baseline_asked=True)
    assert failed(judge(make_bench(), limits)) == ["gate.baseline"]
    assert judge(make_bench(), limits, make_bench(), strict=True).passed
    assert judge(make_bench(), load_limits(None)).passed
