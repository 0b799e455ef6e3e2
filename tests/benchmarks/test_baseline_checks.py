from types import SimpleNamespace

import pytest
from gate_benches import (
    FOUND,
    Change,
    Json,
    Make,
    entry,
    failed,
    int8,
    lose_everywhere,
    skipped,
    worse_everywhere,
)

from irstd_edge.benchmarks.gate import judge
from irstd_edge.benchmarks.limits import Limits


def test_a_bench_equals_itself_as_baseline(make_bench: Make) -> None:
    verdict = judge(make_bench(), Limits(), make_bench(), strict=True)
    assert verdict.passed
    names = ("fps_ratio", "net_targets_lost", "targets_flipped", "iou", "f1_3px", "fa_per_mpx")
    assert [c.name for c in verdict.checks if c.variant == "fp32"] == [
        f"baseline.{name}" for name in names
    ]


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


def test_benches_of_fp32_alone_are_told_apart_by_their_frames(make_bench: Make) -> None:
    """Without a drift there is no list of targets to compare."""

    def alone(bench: Json) -> None:
        bench["results"][0] |= {"variants": bench["results"][0]["variants"][:1], "drift": []}

    def bench_of(digest: str | None) -> Json:
        bench = make_bench(change=alone)
        bench["results"][0]["variants"][0]["accuracy"]["frames_sha256"] = digest
        return bench

    for old, same in (("a" * 64, True), (None, True), ("b" * 64, False)):
        verdict = judge(bench_of("a" * 64), Limits(floor={"fps": 1}), bench_of(old))
        assert ("baseline.accuracy" in skipped(verdict)) is not same


def test_what_only_one_file_has_is_skipped(make_bench: Make) -> None:
    less = make_bench()
    less["results"][0] |= {"variants": less["results"][0]["variants"][:1]}
    assert skipped(judge(make_bench(), Limits(), less)) == ["baseline.entry"]
    del less["results"][0]["drift"][0]
    other = make_bench()
    other["machine"]["fingerprint"] = "another machine"
    gone = judge(less, Limits(floor={"fps": 1}), other)
    assert skipped(gone)[-1] == "baseline.entry"
    assert skipped(judge(make_bench("p2p"), Limits(), make_bench())) == ["baseline.entry"] * 3


def test_a_variant_that_is_gone_from_the_same_machine_is_red(make_bench: Make) -> None:
    """As INT8 on TensorRT, where a new bundle has no engine yet."""
    less = make_bench()
    less["results"][0]["variants"].pop()
    less["results"][0]["drift"].clear()
    verdict = judge(less, Limits(floor={"fps": 1}), make_bench())
    (check,) = [check for check in verdict.checks if not check.passed]
    assert (check.name, check.variant) == ("baseline.entry", "int8")
    assert "was not measured now, on the same machine; measure it, or accept" in check.why


@pytest.mark.parametrize(
    ("was", "now", "why"),
    [
        (True, False, "clocks were locked for the baseline and are not locked now: sudo jetson_c"),
        (False, True, "clocks were not locked for the baseline and are locked now"),
        (True, True, None),
        (None, False, None),
    ],
)
def test_speed_is_not_compared_between_locked_and_loose_clocks(
    make_bench: Make, was: bool | None, now: bool | None, why: str | None
) -> None:
    old, new = make_bench(), make_bench(change=lambda bench: int8(bench).update(fps=1.0))
    old["machine"]["clocks_locked"], new["machine"]["clocks_locked"] = was, now
    verdict = judge(new, Limits(), old)
    reasons = [check.why for check in verdict.checks if check.state == "skipped"]
    assert all(str(why) in reason for reason in reasons)
    assert len(reasons) == (2 if why else 0)
    assert failed(verdict) == ([] if why else ["baseline.fps_ratio"])


def test_another_version_of_the_runtime_is_named_beside_the_speed(make_bench: Make) -> None:
    benches = []
    for version, fps in (("10.3.0", 29.0), ("10.7.0", 20.0)):
        benches.append(make_bench())
        int8(benches[-1]).update(runtime_version=version, fps=fps)
    (check,) = [c for c in judge(benches[1], Limits(), benches[0]).checks if not c.passed]
    assert check.why.endswith("lowest allowed 0.9; onnxruntime 10.3.0 -> 10.7.0")


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


ASKED = Limits(
    baseline={
        **Limits().baseline,
        **{"net_targets_lost": 9, "position_px": 0.05, "pd_at_fa": -0.005},
    },
    baseline_lost={("lost_by_scr", "0 to 1.5"): 0, ("lost_by_area", "0 to 9"): 2},
)
"""Targets 0 and 1 are of SCR 0 and 0.8; targets 0, 1 and 2 have up to 9 px."""
ASKED_NAMES = ["position_px", "pd_at_fa", "lost_by_scr.0 to 1.5", "lost_by_area.0 to 9"]


@pytest.fixture
def with_curves(make: SimpleNamespace, make_bench: Make) -> Make:
    def made(change: Change = lambda bench: None, found: float = 0.99) -> Json:
        bench = make_bench(change=change)
        for each in bench["results"][0]["variants"]:
            each["accuracy"] |= {"curve": make.curve(found), "threshold": 0.5}
        return bench

    return made


def test_what_is_asked_of_a_baseline_is_checked_and_green_where_nothing_changed(
    with_curves: Make,
) -> None:
    verdict = judge(with_curves(), ASKED, with_curves(), strict=True)
    assert verdict.passed
    asked = [check.name for check in verdict.checks if check.variant == "int8"][-4:]
    assert asked == [f"baseline.{name}" for name in ASKED_NAMES]


def test_faint_targets_that_were_found_before_have_a_limit_of_their_own(with_curves: Make) -> None:
    verdict = judge(with_curves(lose_everywhere), ASKED, with_curves())
    whys = {(check.name, check.variant): check.why for check in verdict.checks if not check.passed}
    name = "baseline.lost_by_scr.0 to 1.5"
    why = "2 lost of 2 targets at SCR 0 to 1.5, highest allowed 0"
    assert whys == {(name, "fp32"): why, (name, "int8"): why}


def test_pd_at_the_false_alarms_of_the_baseline_is_judged_by_the_curves(with_curves: Make) -> None:
    assert judge(with_curves(found=0.985), ASKED, with_curves()).passed
    verdict = judge(with_curves(found=0.98), ASKED, with_curves())
    assert {check.why for check in verdict.checks if not check.passed} == {
        "at 1.25 false alarms per Mpx 0.99 -> 0.98: -0.01, lowest allowed -0.005"
    }
    assert failed(verdict) == ["baseline.pd_at_fa"] * 2


def test_positions_that_moved_since_are_red(with_curves: Make) -> None:
    old = with_curves()
    for each in old["results"][0]["variants"]:
        each["accuracy"]["position_px"] = 0.3
    verdict = judge(with_curves(), ASKED, old)
    assert failed(verdict) == ["baseline.position_px"] * 2
    assert {check.why for check in verdict.checks if not check.passed} == {
        "0.3 -> 0.5: +0.2, highest allowed +0.05"
    }


def no_accuracy(bench: Json) -> None:
    for each in bench["results"][0]["variants"]:
        each["accuracy"] = None


def no_matches(bench: Json) -> None:
    for row in entry(bench)["targets"]:
        del row["matched_reference"], row["matched_candidate"]


@pytest.mark.parametrize(
    ("change", "names", "why"),
    [
        (no_accuracy, ASKED_NAMES, "it was not measured on both sides"),
        (other_images, ASKED_NAMES, "the baseline is of other frames"),
        (no_matches, ASKED_NAMES[2:], "a file does not say which targets were found"),
    ],
)
def test_what_is_asked_of_a_baseline_that_cannot_answer_is_red(
    with_curves: Make, change: Change, names: list[str], why: str
) -> None:
    old = with_curves()
    change(old)
    verdict = judge(with_curves(), ASKED, old)
    assert failed(verdict) == [f"baseline.{name}" for name in names] * 2
    assert {check.why for check in verdict.checks if not check.passed} == {why}


def test_pd_at_the_false_alarms_of_a_baseline_without_curves_is_red(
    with_curves: Make, make_bench: Make
) -> None:
    verdict = judge(with_curves(), ASKED, make_bench())
    assert failed(verdict) == ["baseline.pd_at_fa"] * 2
    assert {check.why for check in verdict.checks if not check.passed} == {
        "a file has no curve to compare Pd by at equal false alarms, or no threshold brings a "
        "mask's down to those of the baseline; bench both anew, or limit fa_per_mpx"
    }
