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


def test_what_only_one_file_has_is_skipped(make_bench: Make) -> None:
    less = make_bench()
    less["results"][0] |= {"variants": less["results"][0]["variants"][:1]}
    assert skipped(judge(make_bench(), Limits(), less)) == ["baseline.entry"]
    del less["results"][0]["drift"][0]
    gone = judge(less, Limits(floor={"fps": 1}), make_bench())
    assert skipped(gone)[-1] == "baseline.entry"
    assert skipped(judge(make_bench("p2p"), Limits(), make_bench())) == ["baseline.entry"] * 3


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
