import pytest
from gate_benches import Make, entry, failed, int8, lose_everywhere, skipped

from irstd_edge.benchmarks.gate import judge
from irstd_edge.benchmarks.limits import Limits


def test_iou_is_not_asked_of_points(make_bench: Make) -> None:
    verdict = judge(make_bench("p2p"), Limits(), strict=True)
    assert verdict.passed
    assert "drift.iou" not in [check.name for check in verdict.checks]
    assert len(verdict.checks) == 4


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


def test_a_file_that_does_not_say_what_was_found_is_judged_by_its_pd(make_bench: Make) -> None:
    old = make_bench()
    for row in entry(old)["targets"]:
        del row["matched_reference"], row["matched_candidate"]
    verdict = judge(make_bench(change=lose_everywhere), Limits(), old)
    assert failed(verdict) == ["baseline.net_targets_lost"] * 2
    assert skipped(verdict) == ["baseline.targets_flipped"] * 2
